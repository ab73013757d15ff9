"""Reads stored images as rows that the database types after the table as it is now."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connections, models

from hc_signals.postgres.names import literal, quote
from hc_signals.postgres.query import row, rows, unprepared_cursor
from hc_signals.tables import quoted_table

Model = type[models.Model]

_CURSOR = "hc_signals_images"
"""The cursor that the function of that name opens."""
_SOME_OF = "(SELECT json_object_agg(n, {image} -> n) FROM unnest(%(names)s::text[]) n)"
FEW = 20
"""Most changes that are read by a statement without a cursor: its plan takes less time, each change more."""


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


def images_sql(model: Model, columns: Sequence[str], old_columns: Sequence[str], ids: Iterable[int]) -> list[str]:
    """Return the statements that read changes: id, columns of the latest image, of an update's old image.

    The one at :func:`rows_at` returns the rows. The server must get all in one message, or in one transaction.
    """
    chosen, table = list(ids), quoted_table(model)
    arrays = [f"'{{{','.join(map(str, chosen))}}}'", literal(table)]
    if len(chosen) <= FEW:
        names = [f"r.{quote(column)}" for column in columns] + [f"o.{quote(column)}" for column in old_columns]
        typed = f"json_populate_record(NULL::{table}, "
        few = f"public.hc_signals_few_images({', '.join(arrays)})"
        return [f"SELECT c.id, {', '.join(names)} FROM {few} c, LATERAL {typed}c.latest) r, LATERAL {typed}c.old) o"]
    arrays += map(_array, (columns, old_columns))
    return [
        f"SELECT public.hc_signals_images({', '.join(arrays)})",
        f"FETCH ALL FROM {_CURSOR}",
        f"CLOSE {_CURSOR}",
    ]


def rows_at(statements: Sequence[str]) -> int:
    """Return the index of the statement that returns the rows."""
    return min(1, len(statements) - 1)


def _array(names: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(map(literal, names))}]::text[]"


def stored_images(using: str, ids: Iterable[int]) -> dict[int, tuple[str | None, str | None]]:
    """Return the old and new images of changes by their ids, as the JSON that the log has."""
    sql = "SELECT id, old::text, new::text FROM public.hc_signals_log WHERE id = ANY (%s)"
    return {number: (old, new) for number, old, new in rows(using, sql, [list(ids)])}


def logged_values(using: str, model: Model, ids: Iterable[int], names: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Return the latest values of some columns by the ids of changes: JSON, or texts as PostgreSQL prints them."""
    sql = f"SELECT c.id, {_SOME_OF} FROM public.hc_signals_few_images(%(ids)s, %(table)s) c"
    params = {"ids": list(ids), "table": quoted_table(model), "names": list(names)}
    return dict(rows(using, sql.format(image="c.latest"), params))


def kept_values(using: str, delivery: int, names: Sequence[str]) -> dict[str, Any]:
    """Return the latest values of some columns from the image of a failed delivery, as :func:`logged_values` does."""
    sql = f"SELECT {_SOME_OF} FROM public.hc_signals_delivery c WHERE c.id = %(id)s"
    found = row(using, sql.format(image="coalesce(c.new, c.old)"), {"id": delivery, "names": list(names)})
    return dict(found[0])


def _isolated_rows(using: str, statements: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the rows that the statements find. In a transaction there is a savepoint around all, in one message."""
    connection: Any = connections[using]
    with unprepared_cursor(using) as cursor:
        # No parameters: so all statements are one message, however the project binds parameters.
        if not connection.in_atomic_block:
            cursor.execute("; ".join(statements))
            for _ in range(rows_at(statements)):
                cursor.nextset()
            return list(cursor.fetchall())
        try:
            cursor.execute("; ".join([f"SAVEPOINT {_CURSOR}", *statements, f"RELEASE SAVEPOINT {_CURSOR}"]))
            for _ in range(1 + rows_at(statements)):
                cursor.nextset()
            return list(cursor.fetchall())
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError:
            cursor.execute(f"ROLLBACK TO SAVEPOINT {_CURSOR}; RELEASE SAVEPOINT {_CURSOR}")
            raise
