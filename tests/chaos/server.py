"""The server of one run: its own, crashed now and then, and asked again and again until it answers."""

import os
import time
from io import StringIO
from typing import Any

import psycopg

from tests.chaos import ledger, writers
from tests.server import Server as TemporaryServer
from tests.server import installation


class Server:
    """A PostgreSQL of PG_BIN, else the embedded one, with the example's tables, capture, and the ledgers."""

    def __init__(self) -> None:
        self._server = TemporaryServer(installation(), "max_prepared_transactions=20", "fsync=on")
        self.url = self._server.url

    def set_up(self, records: int) -> None:
        """Make everything, for so many records."""
        os.environ |= {"DATABASE_URL": self.url, "DJANGO_SETTINGS_MODULE": "example.settings"}
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        for command in (["migrate"], ["hc_simulate", "--create-only"], ["hc_triggers", "install"]):
            call_command(*command, verbosity=0, stdout=StringIO(), stderr=StringIO())
        connections.close_all()
        self.query(ledger.TABLES)
        self.query(writers.TABLES.replace("%(records)s", str(records)))

    def query(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement, however often the server goes away meanwhile."""
        while True:
            try:
                with psycopg.connect(self.url, autocommit=True) as connection:
                    cursor = connection.execute(sql, params)
                    return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                time.sleep(0.1)

    def crash(self) -> None:
        """Stop the server in immediate mode, and start it again."""
        self._server.crash()

    def stop(self) -> None:
        """Stop it for good."""
        self._server.stop()
