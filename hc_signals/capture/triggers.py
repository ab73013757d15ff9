"""The capture triggers of a connected table, rendered through pgtrigger.

No trigger names a column, because Heroku Connect must stay free to alter its tables.
"""

from collections.abc import Iterable
from typing import Any

import pgtrigger
from django.db import models

from hc_signals.capture.function import function_name
from hc_signals.conf import origin_rules
from hc_signals.origins import trigger_arguments, when_sql
from hc_signals.postgres.names import literal, quote
from hc_signals.tables import quoted_table

_OPERATIONS = {
    "INSERT": (pgtrigger.Insert, "NEW TABLE AS hc_new"),
    "UPDATE": (pgtrigger.Update, "OLD TABLE AS hc_old NEW TABLE AS hc_new"),
    "DELETE": (pgtrigger.Delete, "OLD TABLE AS hc_old"),
    "TRUNCATE": (pgtrigger.Truncate, ""),
}


class CaptureTrigger(pgtrigger.Trigger):
    """One statement-level trigger of a connected table; the triggers of a table share one generated function.

    Their prefix is not ``pgtrigger_``, so pgtrigger's own ``prune`` does not remove them. Their names are the same on
    every table, so no table has two of a kind after its model, name or schema has changed.
    """

    level = pgtrigger.Statement

    def __init__(self, operation: str, when: Any = pgtrigger.After, name: str = "") -> None:
        kind, self.referencing_sql = _OPERATIONS[operation]
        super().__init__(name=name or operation.lower(), operation=kind, when=when)

    def get_pgid(self, model: Any) -> str:
        return f"hc_signals_{self.name}"

    def create_sql(self, model: Any) -> str:
        """Return CREATE OR REPLACE TRIGGER: unlike DROP and CREATE it waits for no SELECT, and leaves no gap."""
        referencing = f"REFERENCING {self.referencing_sql} " if self.referencing_sql else ""
        rules = origin_rules()
        arguments = ", ".join(map(literal, trigger_arguments(rules)))
        return (
            f"CREATE OR REPLACE TRIGGER {quote(self.get_pgid(model))} {self.when} {self.operation} "
            f"ON {quoted_table(model)} {referencing}FOR EACH STATEMENT WHEN ({when_sql(rules)}) "
            f"EXECUTE FUNCTION public.{function_name(model)}({arguments})"
        )


TRIGGERS = (
    *(CaptureTrigger(operation) for operation in _OPERATIONS),
    # Before the TRUNCATE the function can still read the rows that a reload clears.
    CaptureTrigger("TRUNCATE", pgtrigger.Before, "clear"),
)


def triggers_sql(model: type[models.Model]) -> list[str]:
    """Return the statements that create the triggers of the model's table."""
    return [*(trigger.create_sql(model) for trigger in TRIGGERS), _always_sql(model)]


def _always_sql(model: type[models.Model]) -> str:
    return always_sql(quoted_table(model), [trigger.get_pgid(model) for trigger in TRIGGERS])


def always_sql(table: str, triggers: Iterable[str]) -> str:
    """Return the statement that makes triggers fire under ``session_replication_role = replica`` as well.

    PostgreSQL allows this to the owner of the table; for another role the statement does nothing.
    """
    enable = ", ".join(f"ENABLE ALWAYS TRIGGER {quote(name)}" for name in triggers)
    body = (
        f"BEGIN IF pg_catalog.pg_has_role((SELECT relowner FROM pg_catalog.pg_class "
        f"WHERE oid = {literal(table)}::pg_catalog.regclass), 'USAGE') THEN ALTER TABLE {table} {enable}; END IF; END"
    )
    return f"DO {literal(body)}"
