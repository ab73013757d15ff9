"""Gaps that stand in no log: those of a position, and changes that could not be captured, as changes of every table.

So they go the way of a gap in the log: a receiver that fails on one has a delivery kept, and is called again.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connections

from hc_signals.log.change import Change

# Ids of the log, so that they are nobody else's; that the log has no such row makes a hole in it, as a rollback does.
_DRAW = """
SELECT nextval('public.hc_signals_change_id_seq'), pg_current_xact_id()::text, clock_timestamp() AT TIME ZONE 'UTC',
    t.name, c.epoch
FROM unnest(%s::text[]) t (name), public.hc_signals_control c
"""


def gap_changes(using: str, tables: Iterable[str], gap: Mapping[str, Any]) -> list[Change]:
    """Return a gap of every table as one change of each. Not before the target snapshot is taken: it takes an xid.

    Args:
        using: database alias.
        tables: their names as the log has them.
        gap: its ``cause``; ``since`` and ``until`` in ISO format where they are known.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_DRAW, [list(tables)])
        return [
            Change(
                id=number,
                xid=xid,
                captured=now,
                table_name=table,
                operation="GAP",
                origin="heroku_connect",
                record_key=None,
                record_id=None,
                changed=None,
                note=gap,
                epoch=epoch,
            )
            for number, xid, now, table, epoch in cursor.fetchall()
        ]
