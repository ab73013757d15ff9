"""Run one statement and return its rows: the only place that opens a cursor, fetches and closes it again.

If the statement fails, each function raises DatabaseError or InterfaceError. Our statements are never prepared.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

Database = str | BaseDatabaseWrapper
"""A database alias, for the calling thread's connection; or another connection of Django's."""
Params = Sequence[Any] | Mapping[str, Any] | None
"""The values of the placeholders. With None, a percent sign in the statement needs no doubling."""


def rows(database: Database, sql: str, params: Params = None) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows, each a tuple; it must be one that returns rows."""
    with unprepared_cursor(database) as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def row(database: Database, sql: str, params: Params = None) -> Any:
    """Run a statement and return its first row, a tuple; None if it has none."""
    with unprepared_cursor(database) as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()


def execute(database: Database, sql: str, params: Params = None) -> int:
    """Run a statement and return the number of rows that it changed or found."""
    with unprepared_cursor(database) as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)


def relation_exists(database: Database, name: str) -> bool:
    """Return True if a table, view or index has this name, as SQL writes it: ``salesforce."MyTable__c"``."""
    return bool(row(database, "SELECT to_regclass(%s) IS NOT NULL", [name])[0])


def _connection(database: Database) -> Any:
    return connections[database] if isinstance(database, str) else database


@contextmanager
def unprepared_cursor(database: Database) -> Iterator[Any]:
    """Return a cursor of Django's; no statement of the block becomes a prepared statement.

    The server refuses to prepare several statements in one message. And a prepared statement is state of the session,
    which a pooler lends to other clients. A project that binds parameters at the server often sets
    ``prepare_threshold``.
    """
    connection = _connection(database)
    with connection.cursor() as cursor:
        raw = connection.connection
        before, raw.prepare_threshold = raw.prepare_threshold, None
        try:
            yield cursor
        finally:
            raw.prepare_threshold = before
