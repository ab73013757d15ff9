"""Capture that no connected model accounts for: of a model that is gone, or on a table that was renamed."""

from collections.abc import Iterable

from django.db import connections, models

from hc_signals.capture import table_state
from hc_signals.capture.function import FUNCTION_PREFIX, function_name
from hc_signals.capture.triggers import (
    TRIGGERS,
    TableStatus,
    drop_function_sql,
    run_patiently,
)
from hc_signals.tables import quote, table_label

NO_MODEL = "no connected model has this table"
_FOUND = """
SELECT p.proname, n.nspname, c.relname FROM pg_proc p
LEFT JOIN pg_trigger t ON t.tgfoid = p.oid
LEFT JOIN pg_class c ON c.oid = t.tgrelid
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pronamespace = 'public'::regnamespace AND starts_with(p.proname, %s)
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


def find(known_models: Iterable[type[models.Model]], using: str) -> list[TableStatus]:
    """Return the orphans, found in the catalog by our own names; takes no lock."""
    return [status for status, _ in _found(known_models, using)]


def remove(
    known_models: Iterable[type[models.Model]], using: str, cause: str = "uninstalled", uninstalled: bool = False
) -> list[TableStatus]:
    """Remove the orphans and return what they were; with no model known, every capture function there is.

    What was removed is told as a gap if a model gets the table again.

    Args:
        cause: of that gap.
        uninstalled: such a table is to be left alone until somebody installs capture on it.

    Raises:
        OperationalError: a table stayed locked.
    """
    removed = []
    for status, statements in _found(known_models, using):

        def needed(status: TableStatus = status, statements: list[str] = statements) -> list[str]:
            if status.detail == NO_MODEL and table_state.is_there(using):
                before = table_state.read(using).get(status.table)
                since = (before and before.good_at) or table_state.off_since(using, status.table)
                table_state.owe(using, status.table, cause, since, uninstalled)
            return statements

        run_patiently(using, needed)
        removed.append(status)
    return removed


def _found(known_models: Iterable[type[models.Model]], using: str) -> list[tuple[TableStatus, list[str]]]:
    tables = {function_name(model): table_label(model) for model in known_models}
    with connections[using].cursor() as cursor:
        cursor.execute(_FOUND, [FUNCTION_PREFIX])
        rows = cursor.fetchall()
    found = []
    for function, schema, table in rows:
        label = f"{schema}.{table}" if table else f"public.{function}()"
        if function not in tables:
            detail = NO_MODEL if table else "a capture function that nothing calls"
            found.append((TableStatus(label, "orphan", detail), [drop_function_sql(function)]))
        elif table and label != tables[function]:
            on = f"{quote(schema)}.{quote(table)}"
            drops = [f"DROP TRIGGER IF EXISTS {quote(t.get_pgid(None))} ON {on}" for t in TRIGGERS]
            found.append((TableStatus(label, "orphan", f"it once was {tables[function]}"), drops))
    return found
