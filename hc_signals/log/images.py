"""Reads stored images as rows that the database types after the table as it is now."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connections, models

from hc_signals.postgres.names import literal, quote
from hc_signals.postgres.query import row, rows, unprepared_cursor
from hc_signals.tables import quoted_table

Model = type[models.Model]


def kept_image(using: str, model: Model, columns: Iterable[str], delivery: int, image: str) -> tuple[Any, ...]:
    """Return an image of a failed delivery, by its id. Its copy stays when the log is emptied.

    ``image`` is ``old``, or ``latest``: the new image, for a deletion the old one.
    """
    stored = {"old": "c.old", "latest": "coalesce(c.new, c.old)"}[image]
    names = ", ".join(f"r.{quote(column)}" for column in columns)
    sql = (
        f"SELECT {names} FROM public.hc_signals_delivery c, "
        f"LATERAL json_populate_record(NULL::{quoted_table(model)}, {stored}) r WHERE c.id = %s"
    )
    return tuple(row(using, sql, [delivery]))


def logged_images(
    using: str, model: Model, columns: Sequence[str], old_columns: Sequence[str], ids: Iterable[int]
) -> dict[int, tuple[Any, ...]]:
    """Return the rows of :func:`images_sql` by the ids of the changes; an error leaves the transaction usable."""
    return {found[0]: found for found in _isolated_rows(using, images_sql(model, columns, old_columns, ids))}


def images_sql(model: Model, columns: Sequence[str], old_columns: Sequence[str], ids: Iterable[int]) -> str:
    """Return the statement that reads changes: id, columns of the latest image, of an update's old image."""
    names = [f"r.{quote(column)}" for column in columns] + [f"o.{quote(column)}" for column in old_columns]
    typed = f"json_populate_record(NULL::{quoted_table(model)}, "
    return (
        f"SELECT c.id, {', '.join(names)} FROM "
        f"public.hc_signals_images('{{{','.join(map(str, ids))}}}', {literal(quoted_table(model))}) c, "
        f"LATERAL {typed}c.latest) r, LATERAL {typed}c.old) o"
    )


def stored_images(using: str, ids: Iterable[int]) -> dict[int, tuple[str | None, str | None]]:
    """Return the old and new images of changes by their ids, as the JSON that the log has."""
    sql = "SELECT id, old::text, new::text FROM public.hc_signals_log WHERE id = ANY (%s)"
    return {number: (old, new) for number, old, new in rows(using, sql, [list(ids)])}


def _isolated_rows(using: str, select: str) -> list[tuple[Any, ...]]:
    """Return all rows of a statement, with a savepoint around it in the same round trip."""
    connection: Any = connections[using]
    if not connection.in_atomic_block:
        return rows(using, select)
    with unprepared_cursor(using) as cursor:
        try:
            # No parameters: so all three statements are one message, however the project binds parameters.
            cursor.execute(f"SAVEPOINT hc_signals_images; {select}; RELEASE SAVEPOINT hc_signals_images")
            cursor.nextset()
            return list(cursor.fetchall())
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError:
            cursor.execute("ROLLBACK TO SAVEPOINT hc_signals_images; RELEASE SAVEPOINT hc_signals_images")
            raise
