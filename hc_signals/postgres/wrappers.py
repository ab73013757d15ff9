"""Keep the project's ``connection.execute_wrappers`` away from our statements.

A wrapper may put statements in front of each one, as django-pghistory's ``context()`` does. Then we would read the
wrong result. Code of the project gets its wrappers back: see :func:`of_project`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

Wrapper = Callable[[Any, Any, Any, bool, Any], Any]


class _Ours(list[Wrapper]):
    """The wrappers of our own statements, in place of the project's."""

    project: list[Wrapper]


def of_project(connection: Any) -> list[Wrapper]:
    """Return the project's wrappers of a Django connection, whether they are set aside or not."""
    found: Any = connection.execute_wrappers
    return list(found.project if isinstance(found, _Ours) else found)


@contextmanager
def set_aside(using: str, *ours: Wrapper) -> Iterator[None]:
    """Keep this thread's statements from the project's wrappers during the block; ``ours`` get them instead."""
    connection: Any = connections[using]
    before = connection.execute_wrappers
    own = _Ours(ours)
    own.project = of_project(connection)
    connection.execute_wrappers = own
    try:
        yield
    finally:
        connection.execute_wrappers = before


@contextmanager
def as_project(using: str) -> Iterator[None]:
    """Give this thread's statements the project's wrappers during the block, and none of ours."""
    connection: Any = connections[using]
    before, connection.execute_wrappers = connection.execute_wrappers, of_project(connection)
    try:
        yield
    finally:
        connection.execute_wrappers = before


def prepares_cursors(connection: Any) -> bool:
    """Return whether a backend may send a statement before each cursor: django-tenants' sets ``search_path`` there."""
    return type(connection)._cursor is not BaseDatabaseWrapper._cursor  # type: ignore[attr-defined]


def forget_queries() -> None:
    """Forget the statements that Django notes under ``DEBUG = True``: a long process would keep thousands of them.

    Statements that a test captures stay, as with ``assertNumQueries``.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.force_debug_cursor:
            connection.queries_log.clear()
