"""Installs and removes capture, one table per transaction.

Django's migrations create no triggers on unmanaged tables, and Heroku Connect may create its tables after ``migrate``.
"""

from collections.abc import Callable

from django.db import OperationalError, connections, models, transaction

from hc_signals.capture.function import function_name, function_sql
from hc_signals.capture.function_columns import Layout
from hc_signals.capture.status import TableStatus, compare, find_tables, status_of
from hc_signals.capture.triggers import triggers_sql
from hc_signals.log.schema import exists
from hc_signals.postgres.locks import INSTALLER
from hc_signals.postgres.names import literal, quote
from hc_signals.postgres.query import row
from hc_signals.tables import mapped_columns, table_label

LOCK_TIMEOUT = "2s"
"""Longest wait for a lock on a table: new writers queue behind a waiting CREATE TRIGGER."""


def install_sql(model: type[models.Model], layout: Layout | None = None) -> list[str]:
    """Return the statements of a transaction that installs capture; by default for every mapped column, none fresh."""
    return [*_turn_sql(), *function_sql(model, layout), *triggers_sql(model)]


def drop_function_sql(name: str) -> str:
    """Return the statement that drops a capture function and its triggers.

    DROP TRIGGER would need the ownership of the tables; CASCADE does not, and drops nothing but triggers.
    """
    return f"DROP FUNCTION IF EXISTS public.{quote(name)}() CASCADE"


def install_capture(
    model: type[models.Model], using: str, attempts: int = 5, end_fresh: bool = False, wait_for_writers: bool = False
) -> TableStatus:
    """Install capture on the model's table if it is not installed, and return the new status.

    If the function alone is outdated, the table is not touched. A disabled trigger is enabled.

    Args:
        end_fresh: also replace a function that still waits for fresh columns to be filled, by one that does not.
        wait_for_writers: also recreate the triggers if the function alone is outdated. That waits for transactions
            that write to the table, so none that began under the old triggers is open afterwards.

    Raises:
        OperationalError: the table stayed locked for ``attempts`` times LOCK_TIMEOUT.
    """

    def statements() -> list[str]:
        # Asked again when no other installer runs: triggers that are created twice would be drift.
        found = find_tables([model], using)[0]
        status = compare(model, found)
        if not status.is_installable and not (status.state == "installed" and end_fresh):
            return []
        function = function_sql(model, found.layout(model) if end_fresh else next_layout(model, using))
        only_function = status.is_captured and not status.has_stale_triggers and not wait_for_writers
        return function if only_function else [*function, *triggers_sql(model)]

    if statements():
        run_in_turn(using, statements, attempts)
    return status_of(model, using)


def next_layout(model: type[models.Model], using: str) -> Layout:
    """Return the columns of the function to install; those that the installed function lacks are fresh."""
    found = find_tables([model], using)[0]
    if found.oid is None:
        return Layout(tuple(mapped_columns(model)))
    now = row(using, "SELECT to_json(clock_timestamp())#>>'{}'")[0]
    return found.layout(model).after(found.installed_layout, now)


def uninstall_capture(model: type[models.Model], using: str, before: Callable[[], None] | None = None) -> None:
    """Remove capture from the model's table, and the state of a reload of the table.

    It calls ``before`` first, in the same transaction. It raises OperationalError if the table stays locked.
    """

    def statements() -> list[str]:
        if before is not None:
            before()
        return [drop_function_sql(function_name(model)), *_forget_reload_sql(model, using)]

    run_in_turn(using, statements)


def _forget_reload_sql(model: type[models.Model], using: str) -> list[str]:
    if not exists(using):
        return []
    table = literal(table_label(model))
    return [
        f"DELETE FROM public.hc_signals_{name} WHERE table_name = {table}" for name in ("cleared", "reload", "refill")
    ]


def run_in_turn(using: str, statements: Callable[[], list[str]], attempts: int = 5) -> None:
    """Run the statements that ``statements`` returns in one transaction, while no other installer runs.

    After an OperationalError, usually a locked table, it tries again. The last attempt raises the error.
    """
    for attempt in range(attempts):
        try:
            with transaction.atomic(using=using), connections[using].cursor() as cursor:
                for turn in _turn_sql():
                    cursor.execute(turn)
                for statement in statements():
                    cursor.execute(statement)
            return
        except OperationalError:
            if attempt + 1 == attempts:
                raise


def _turn_sql() -> list[str]:
    """Return the statements that limit waiting, and exclude other installers until the transaction ends."""
    turn = f"SELECT pg_catalog.pg_advisory_xact_lock({INSTALLER[0]}, {INSTALLER[1]})"
    return [f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'", turn]
