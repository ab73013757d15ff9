"""Readers known to be wrong: the chaos run must find each of them out."""

from typing import Any

from hc_signals import changelog
from hc_signals.changelog import ChangeLog, Position


def id_cursor() -> None:
    """Read ``id > last``: loses what commits late."""
    changelog._PAGE = (  # type: ignore[misc]
        f"SELECT id, {changelog.CHANGE_COLUMNS} "
        "FROM public.hc_signals_change WHERE id > %(after)s {shard} ORDER BY id LIMIT %(limit)s"
    )
    read = ChangeLog.page
    highest: dict[int, int] = {}

    def page(self: ChangeLog, position: Position, limit: int) -> Any:
        found = read(self, position, limit)
        highest[self.shard] = found[-1].id if found else position.last_id or 0
        return found

    def close_window(self: ChangeLog, position: Position) -> Position:
        return Position(floor_id=highest[self.shard], lost=position.lost)

    ChangeLog.page = page  # type: ignore[method-assign]
    ChangeLog.close_window = close_window  # type: ignore[method-assign]


def floor_from_xmax() -> None:
    """Take xmax of the snapshot for the next transaction to be born: loses those open above the last finished one."""
    changelog._TARGET = (  # type: ignore[misc]
        "SELECT pg_current_snapshot()::text, pg_snapshot_xmax(pg_current_snapshot())::text"
    )
