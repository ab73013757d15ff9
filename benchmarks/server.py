"""The server to measure on: an embedded one, or by choice another, in databases of our own names."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benchmarks.options import Options
from benchmarks.rows import say
from hc_signals.testing import embedded

DATABASE = "hc_signals_benchmark"
MARK = "made by the benchmarks of hc_signals; dropped at their end"
"""Comment on our databases; a database of the same name without it is not ours."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    directory: str | None
    """Path of its files; None for a server of DATABASE_URL, which may be on another machine."""

    def database_url(self, name: str = DATABASE) -> str:
        """Return the URL of a database of the server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def create(self, name: str = DATABASE) -> str:
        """Create a database, replacing one of ours; return its URL."""
        self.drop(name)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
            connection.execute(f"COMMENT ON DATABASE \"{name}\" IS '{MARK}'")
        return self.database_url(name)

    def drop(self, name: str = DATABASE) -> None:
        """Drop a database of ours.

        Raises:
            SystemExit: the database of that name is not ours.
        """
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [name]
            ).fetchone()
            if found is None:
                return
            if found[0] != MARK:
                raise SystemExit(f"bench: there is a database {name!r} that is not ours; drop or rename it first.")
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def has_room(self, megabytes: int) -> bool:
        """True if the disk has room, or if it may be on another machine."""
        return self.directory is None or shutil.disk_usage(self.directory).free > (megabytes + 1000) * 1_000_000

    @contextmanager
    def without_autovacuum(self) -> Iterator[None]:
        """Switch autovacuum off during the block; a server of DATABASE_URL is left alone."""
        if self.directory is not None:
            self._autovacuum("ALTER SYSTEM SET autovacuum = off")
        try:
            yield
        finally:
            if self.directory is not None:
                self._autovacuum("ALTER SYSTEM RESET autovacuum")

    def _autovacuum(self, statement: LiteralString) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)
            connection.execute("SELECT pg_reload_conf()")

    def version(self) -> str:
        """Return the server's version and the settings that affect speed."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
            values = [connection.execute(f"SHOW {name}").fetchone() or ("?",) for name in names]
        texts = [str(value[0]) for value in values]
        return f"PostgreSQL {texts[0]}, " + ", ".join(f"{n} {t}" for n, t in zip(names[1:], texts[1:], strict=True))


@contextmanager
def running(options: Options) -> Iterator[Server]:
    """Start a server, or use that of DATABASE_URL if allowed; remove our databases at the end."""
    foreign = os.environ.pop("DATABASE_URL", None)
    if foreign and options.allow_foreign_server:
        say("measuring on the server of DATABASE_URL, in databases of our own names")
        server = Server(foreign, None)
        try:
            yield server
        finally:
            server.drop()
        return
    if foreign:
        say("leaving the server of DATABASE_URL alone (--allow-foreign-server would use it)")
    say("starting an embedded PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="hc_signals_bench_") as directory:
        own = embedded.start(directory)
        try:
            yield Server(own.url, directory)
        finally:
            own.stop()
