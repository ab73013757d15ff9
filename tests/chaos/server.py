"""The server of one run, which crashes and is replaced; queries are repeated until it answers."""

import os
import tempfile
import time
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos import ledger, writers
from tests.clock import Clock
from tests.server import Server as TemporaryServer
from tests.server import Standby, installation
from tests.small_disk import SmallDisk, small_disk

DISK_MEGABYTES = 64
SETTINGS = ("max_prepared_transactions=20", "fsync=on")


class Server:
    """A PostgreSQL of PG_BIN, else the embedded one, with the example's tables, capture, and the ledgers.

    ``url`` is an address: it stays when a standby takes over, as the name of a server does.

    Args:
        clock: of the server and its standbys; default: the machine's.
        has_small_disk: workers' positions and stored deliveries are on a disk that can be filled. It does not outlive
            the server's processes.
    """

    def __init__(self, clock: Clock | None = None, *, has_small_disk: bool = False) -> None:
        environment = clock.environment if clock else {}
        start_with = small_disk(DISK_MEGABYTES) if has_small_disk else ()
        self.primary = TemporaryServer(installation(), *SETTINGS, environment=environment, start_with=start_with)
        self.disk = SmallDisk(self.primary) if has_small_disk else None
        self.standby: Standby | None = None
        self._address = Path(tempfile.mkdtemp(prefix="hc_signals_address_"))
        self._address.chmod(0o755)  # a pooler may run as another user
        self.url = f"postgresql://postgres@/postgres?host={self._address}"
        self._point_to(self.primary)

    def _point_to(self, server: TemporaryServer) -> None:
        socket, new = self._address / ".s.PGSQL.5432", self._address / "new"
        new.symlink_to(server.directory / socket.name)
        new.replace(socket)

    def set_up(self, records: int, *, capture: bool = True) -> None:
        """Create tables and ledgers.

        Args:
            records: number of records.
            capture: also install hc_signals.
        """
        os.environ |= {"DATABASE_URL": self.url, "DJANGO_SETTINGS_MODULE": "example.settings"}
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        of_capture = ["migrate", "hc_simulate --create-only", "hc_triggers install"]
        for command in of_capture if capture else ["hc_simulate --create-only"]:
            call_command(*command.split(), verbosity=0, stdout=StringIO(), stderr=StringIO())
        connections.close_all()
        if self.disk:
            self.disk.put("^hc_signals_(position|delivery)")
        self.query(ledger.TABLES)
        self.query(writers.TABLES.replace("%(records)s", str(records)))

    def query(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement; repeat it until the server answers."""
        while True:
            try:
                with psycopg.connect(self.url, autocommit=True) as connection:
                    cursor = connection.execute(sql, params)
                    return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                time.sleep(0.1)

    def crash(self) -> None:
        """Stop the server in immediate mode, and start it again."""
        self.primary.crash()

    def follow(self, *, synchronous: bool) -> Standby:
        """Start a standby, and wait until it has all committed changes.

        Args:
            synchronous: the primary confirms a commit only after the standby has it.
        """
        self.standby = Standby(self.primary, *SETTINGS)
        if synchronous:
            self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.primary.execute("SELECT pg_reload_conf()")
        self.standby.catch_up()
        return self.standby

    def fail_over(self, *, keep_old: bool = False) -> TemporaryServer:
        """Promote the standby and give it the address; return the old primary.

        Args:
            keep_old: the old primary is left running; else it is stopped in immediate mode before.
        """
        assert self.standby is not None
        old, standby = self.primary, self.standby
        if not keep_old:
            old.halt()
        standby.promote()
        self.primary, self.standby = standby, None
        self._point_to(standby)
        return old

    def stop(self) -> None:
        """Stop all servers for good."""
        for server in (self.standby, self.primary):
            if server is not None:
                server.stop()
        (self._address / ".s.PGSQL.5432").unlink()
        self._address.rmdir()
