"""Orphans: capture without a connected model, because the model was removed or its table was renamed."""

from collections.abc import Iterable

from django.db import models

from hc_signals.capture import table_state
from hc_signals.capture.function import FUNCTION_PREFIX, function_name
from hc_signals.capture.install import drop_function_sql, run_in_turn
from hc_signals.capture.status import TableStatus
from hc_signals.capture.triggers import TRIGGERS
from hc_signals.log.schema import Cause, exists
from hc_signals.postgres.names import quote
from hc_signals.postgres.query import rows
from hc_signals.tables import table_label

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
    """Return the orphans beside these models. They are found by name in the catalog, without a lock on any table."""
    return [status for status, _ in _found(known_models, using)]


def remove(
    known_models: Iterable[type[models.Model]], using: str, cause: str = Cause.UNINSTALLED, uninstalled: bool = False
) -> list[TableStatus]:
    """Remove the orphans and return them. If a model gets the table of an orphan again, a gap is reported.

    Args:
        known_models: whose capture is no orphan; none: remove every capture function.
        cause: of that gap.
        uninstalled: the worker does not install capture on these tables until a command has.

    Raises:
        OperationalError: a table stayed locked.
    """
    removed = []
    for status, statements in _found(known_models, using):

        def recorded(status: TableStatus = status, statements: list[str] = statements) -> list[str]:
            if status.detail == NO_MODEL and exists(using):
                before = table_state.read(using).get(status.table)
                since = (before and before.good_at) or table_state.incomplete_since(using, status.table)
                table_state.record_gap(using, status.table, cause, since, uninstalled)
            return statements

        run_in_turn(using, recorded)
        removed.append(status)
    return removed


def _found(known_models: Iterable[type[models.Model]], using: str) -> list[tuple[TableStatus, list[str]]]:
    tables = {function_name(model): table_label(model) for model in known_models}
    found = []
    for function, schema, table in rows(using, _FOUND, [FUNCTION_PREFIX]):
        label = f"{schema}.{table}" if table else f"public.{function}()"
        if function not in tables:
            detail = NO_MODEL if table else "a capture function that nothing calls"
            found.append((TableStatus(label, "orphan", detail), [drop_function_sql(function)]))
        elif table and label != tables[function]:
            on = f"{quote(schema)}.{quote(table)}"
            drops = [f"DROP TRIGGER IF EXISTS {quote(t.get_pgid(None))} ON {on}" for t in TRIGGERS]
            found.append((TableStatus(label, "orphan", f"the table was {tables[function]} before"), drops))
    return found
