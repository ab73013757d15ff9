"""The server of one run: embedded, crashed now and then, and asked again and again until it answers."""

import os
import time
from io import StringIO
from typing import Any

import psycopg

from hc_signals.testing import embedded
from tests.chaos import ledger, writers


class Server:
    """An embedded PostgreSQL with the example's tables, capture, and the ledgers.

    Args:
        directory: where its files live.
    """

    def __init__(self, directory: str) -> None:
        self._server = embedded.start(directory)
        self.url = self._server.url

    def set_up(self, records: int) -> None:
        """Make everything, for so many records; two-phase commit is switched on by the first crash."""
        self.query("ALTER SYSTEM SET max_prepared_transactions = 20")
        self.crash()
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
