"""The real PgBouncer in front of a server, for tests: found by the variable PGBOUNCER, on PATH, or in /usr/sbin."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

PORT = 6432
"""Port in the name of the Unix socket; each PgBouncer has its own directory."""


def program() -> str | None:
    """Return the path of PgBouncer; None if it is not installed."""
    named = os.environ.get("PGBOUNCER", "pgbouncer")
    return shutil.which(named) or shutil.which(named, path="/usr/sbin:/usr/local/sbin")


needs_pgbouncer = pytest.mark.skipif(program() is None, reason="PgBouncer is not installed (apt-get install pgbouncer)")


class PgBouncer:
    """A PgBouncer on a Unix socket, in front of every database of a server; run by ``nobody`` for root.

    Args:
        server: URL or libpq string of the server; its database is the one of :attr:`url`.
        mode: ``session``, ``transaction`` or ``statement``.
        size: server connections per user and database; more clients wait.
        users: further users that may connect; all of them without a password.
        options: further settings, such as ``server_reset_query=``.
    """

    def __init__(
        self, server: str, mode: str, *, size: int = 20, users: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        self._server = conninfo_to_dict(server)
        self.user, self.database = str(self._server.get("user", "postgres")), str(self._server["dbname"])
        self.directory = Path(tempfile.mkdtemp(prefix="hc_pgbouncer_"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._write(mode, size, [self.user, *users], options)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _write(self, mode: str, size: int, users: Sequence[str], options: Sequence[str]) -> None:
        target = {key: self._server[key] for key in ("host", "port", "password") if self._server.get(key)}
        lines = [
            "[databases]",
            "* = " + " ".join(f"{key}={value}" for key, value in target.items()),
            "[pgbouncer]",
            "listen_addr =",
            f"unix_socket_dir = {self.directory}",
            f"listen_port = {PORT}",
            "auth_type = trust",
            f"auth_file = {self.directory / 'users'}",
            f"admin_users = {self.user}",
            f"pool_mode = {mode}",
            f"default_pool_size = {size}",
            "max_client_conn = 200",
            "ignore_startup_parameters = extra_float_digits, options",
            "server_login_retry = 0.2",
            *options,
        ]
        (self.directory / "ini").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.directory / "users").write_text("".join(f'"{user}" ""\n' for user in users), encoding="utf-8")

    @property
    def url(self) -> str:
        """The address of the server's database through PgBouncer."""
        return self.url_of(self.database)

    def url_of(self, database: str, user: str | None = None) -> str:
        """Return the address of a database through PgBouncer."""
        where = urlencode({"host": str(self.directory), "port": PORT})
        return f"postgresql://{quote(user or self.user)}@/{quote(database)}?{where}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program()), str(self.directory / "ini")], stdout=log, stderr=log, **self._as
            )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, f"PgBouncer ended: {self.log()}"
            assert time.monotonic() < deadline, f"PgBouncer did not answer in time: {self.log()}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            self.ask("SHOW VERSION")
        except psycopg.OperationalError:
            return False
        return True

    def ask(self, command: str) -> list[dict[str, Any]]:
        """Run a command of its console, such as ``SHOW SERVERS``; return the answer."""
        with psycopg.connect(self.url_of("pgbouncer"), autocommit=True, row_factory=psycopg.rows.dict_row) as console:
            answer = psycopg.ClientCursor(console, row_factory=psycopg.rows.dict_row).execute(command)
            return answer.fetchall() if answer.description else []

    def log(self) -> str:
        """Return its log."""
        return (self.directory / "log").read_text(encoding="utf-8")

    def end(self) -> None:
        """Kill it: clients and servers lose their connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def change(self, setting: str, value: str) -> None:
        """Change a setting while clients are connected."""
        self.ask(f"SET {setting} = '{value}'")

    def restart(self) -> None:
        """Kill it and start it again."""
        self.end()
        self.start()

    def stop(self) -> None:
        """End it and remove its files."""
        self.end()
        shutil.rmtree(self.directory)
