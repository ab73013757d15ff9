"""Makes changes from gaps that are not in the log: a gap of the position, and lost statements.

They are delivered like a gap in the log: if a receiver fails on one, the delivery is stored and retried.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from hc_signals.conf import mirror_origin
from hc_signals.log.change import Change
from hc_signals.postgres.query import rows

# Draw ids from the log's sequence so they are unique. The unused ids are holes, as after a rollback.
_DRAW = """
SELECT nextval('public.hc_signals_change_id_seq'), pg_current_xact_id()::text, clock_timestamp() AT TIME ZONE 'UTC',
    t.name, 'GAP', %s, NULL, NULL, NULL, NULL, c.epoch
FROM unnest(%s::text[]) t (name), public.hc_signals_control c
"""


def gap_changes(using: str, tables: Iterable[str], gap: Mapping[str, Any]) -> list[Change]:
    """Return one change per table for a gap of every table.

    Call it after the window is opened: it assigns an xid to the transaction, which the target snapshot must not miss.
    ``gap`` has the ``cause``; also ``since`` and ``until`` in ISO format, if known.
    """
    return [Change(*found)._replace(note=gap) for found in rows(using, _DRAW, [mirror_origin(), list(tables)])]
