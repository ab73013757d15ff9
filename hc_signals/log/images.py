"""Reads the images that the log has stored, as rows typed by the database, by the table as it is now."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connections, models

from hc_signals.postgres.names import quote
from hc_signals.tables import quoted_table

Model = type[models.Model]


def kept_image(using: str, model: Model, columns: Iterable[str], delivery: int, image: str) -> tuple[Any, ...]:
    """Return an image of a kept delivery, which has a copy that outlives the log.

    Args:
        delivery: its id.
        image: ``old``, or ``latest`` (the new one, for a deletion the old one).
    """
    stored = {"old": "c.old", "latest": "coalesce(c.new, c.old)"}[image]
    names = ", ".join(f"r.{quote(column)}" for column in columns)
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"SELECT {names} FROM public.hc_signals_delivery c, "
            f"LATERAL json_populate_record(NULL::{quoted_table(model)}, {stored}) r WHERE c.id = %s",
            [delivery],
        )
        return tuple(cursor.fetchone())


def logged_images(
    using: str, model: Model, columns: Sequence[str], old_columns: Sequence[str], ids: Iterable[int]
) -> dict[int, tuple[Any, ...]]:
    """Return what :func:`images_sql` reads, by the ids of the changes; an error leaves the transaction as it was."""
    return {row[0]: row for row in _isolated_rows(using, images_sql(model, columns, old_columns, ids))}


def images_sql(model: Model, columns: Sequence[str], old_columns: Sequence[str], ids: Iterable[int]) -> str:
    """Return the statement that reads the ids of changes, their latest images, and some columns of the old ones.

    Args:
        old_columns: NULL for what is no update.
    """
    names = [f"r.{quote(column)}" for column in columns] + [f"o.{quote(column)}" for column in old_columns]
    typed = f"json_populate_record(NULL::{quoted_table(model)}, "
    return (
        f"SELECT c.id, {', '.join(names)} FROM public.hc_signals_images('{{{','.join(map(str, ids))}}}') c, "
        f"LATERAL {typed}c.latest) r, LATERAL {typed}c.old) o"
    )


def stored_images(using: str, ids: Iterable[int]) -> dict[int, tuple[str | None, str | None]]:
    """Return the old and the new images of changes by their ids, as the log has them: as JSON."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT id, old::text, new::text FROM public.hc_signals_change WHERE id = ANY (%s)", [list(ids)])
        return {number: (old, new) for number, old, new in cursor.fetchall()}


def _isolated_rows(using: str, select: str) -> list[tuple[Any, ...]]:
    """Return all rows, with a savepoint around the statement in the same round trip."""
    connection: Any = connections[using]
    with connection.cursor() as cursor:
        if not connection.in_atomic_block:
            cursor.execute(select)
            return list(cursor.fetchall())
        try:
            # Without parameters, so that all three travel in one message whichever way the project binds them.
            cursor.execute(f"SAVEPOINT hc_signals_images; {select}; RELEASE SAVEPOINT hc_signals_images")
            cursor.nextset()
            return list(cursor.fetchall())
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError:
            cursor.execute("ROLLBACK TO SAVEPOINT hc_signals_images; RELEASE SAVEPOINT hc_signals_images")
            raise
