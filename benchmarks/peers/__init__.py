"""Peers: each works off a backlog in its own environment, without our code in the process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.options import Options
from benchmarks.rows import say
from benchmarks.server import Server

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".venv-bench"
DATABASE = "hc_signals_benchmark_peer"
TIMEOUT = 120.0


@dataclass(frozen=True)
class Peer:
    """One of them."""

    name: str
    """Names its environment and its script in this directory."""
    label: str
    requirements: tuple[str, ...]
    count: int
    """Number of changes in its backlog: enough to measure, few enough to finish soon."""
    at_least: float | None = None
    """Lowest ratio of our rate to its rate."""
    live: bool = False
    """True if changes arrive while it listens; False if they are there before it starts."""

    @property
    def python(self) -> Path:
        """Path of its Python interpreter."""
        return ENVIRONMENTS / self.name / "bin" / "python"


_PGPUBSUB = ("django-pgpubsub==1.3.1", "Django>=5.2,<6", "psycopg[binary]")
PEERS = (
    Peer("pgpubsub", "django-pgpubsub, listen --recover", _PGPUBSUB, 1000, 50),
    Peer("pgpubsub", "django-pgpubsub, listening", _PGPUBSUB, 1000, 50, live=True),
    Peer("pgqueuer", "pgqueuer on psycopg", ("pgqueuer[psycopg]==1.6.0", "psycopg[binary]"), 5000, 4),
    Peer("procrastinate", "procrastinate", ("procrastinate==3.10.0", "psycopg[binary]"), 500),
)


def runs(options: Options, server: Server) -> dict[str, Callable[[], float]]:
    """Return a function for each peer that can be installed; say which peers are left out."""
    if not options.peers:
        say("peers are left out of this run")
        return {}
    found = {peer.label: partial(_rate, peer, server) for peer in PEERS if _is_installed(peer)}
    return {label: run for label, run in found.items() if _works(label, run)}


def _works(label: str, run: Callable[[], float]) -> bool:
    """Run the peer once, unmeasured; if it fails, leave it out and print its message."""
    try:
        run()
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or [f"exit code {error.returncode}"]
        say(f"{label} is left out, it does not run here: {said[-1]}")
        return False
    except subprocess.TimeoutExpired:
        say(f"{label} is left out: it did not finish within {TIMEOUT:.0f} s")
        return False
    return True


def _is_installed(peer: Peer) -> bool:
    """Install the peer, once."""
    done = ENVIRONMENTS / peer.name / ".installed"
    wanted = "\n".join(peer.requirements)
    if done.exists() and done.read_text() == wanted:
        return True
    say(f"installing {peer.label}")
    install = [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements]
    for command in ([sys.executable, "-m", "venv", str(ENVIRONMENTS / peer.name)], install):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            said = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
            say(f"{peer.label} is left out, it cannot be installed: {said[-1]}")
            return False
    done.write_text(wanted)
    return True


def _rate(peer: Peer, server: Server) -> float:
    """Let the peer work off a backlog in a new database; return changes per second."""
    url = server.create(DATABASE)
    environment = {**os.environ, "DATABASE_URL": url, "PGPUBSUB_USE_PSYCOPG_V3": "True", "COUNT": str(peer.count)}
    environment |= {"LIVE": "1"} if peer.live else {}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    try:
        result = subprocess.run(
            [str(peer.python), str(HERE / f"{peer.name}_backlog.py")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        seconds = json.loads(result.stdout.splitlines()[-1])["seconds"]
    finally:
        server.drop(DATABASE)
    return float(peer.count / seconds)
