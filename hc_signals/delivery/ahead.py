"""Reads the next page of an open window while receivers process the current one.

The server takes about as long to read a page and to type its images as fast receivers take to process it. So the worker
asks for both in advance, over a second connection: the images of the next page, whose changes it has already read, and
the changes of the page after it. ``make bench BENCH="--only network"`` measures what this gains.

A page read in advance is not stale: the window and its target are fixed. The claim still decides whether this worker
may deliver the page. If the position has moved, or another server has answered, the worker discards the page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hc_signals.delivery.instances import InstanceBuilder
from hc_signals.delivery.listeners import Listeners
from hc_signals.delivery.records import Images, by_table, changed_columns
from hc_signals.log import window
from hc_signals.log.change import Change, cut_page
from hc_signals.log.images import images_sql, rows_at
from hc_signals.log.position import LogShard, Position
from hc_signals.postgres.own_connections import SERVER
from hc_signals.postgres.side_connection import SideConnection, Statement


class Batch(NamedTuple):
    """The changes of a page, and the images that were read with them."""

    changes: list[Change]
    has_more: bool
    limit: int
    """Most changes that the page could have."""
    images: Mapping[str, Images]
    """By table."""


@dataclass
class _Sent:
    """Statements on their way: the images of a page by table, then the changes of the page after it."""

    at: Position
    batch: Batch
    old_columns: dict[str, list[str]]
    images_at: list[int]
    """By table: the index of the cursor that has the rows."""
    after: Position | None
    cursors: list[Any]


class Ahead:
    """Reads ahead in one shard, by a connection that the shards of a worker share."""

    def __init__(self, log: LogShard, side: SideConnection, builders: Mapping[str, InstanceBuilder]) -> None:
        self.log, self._side, self._builders = log, side, builders
        self._sent: _Sent | None = None
        self._following: tuple[Position, Batch] | None = None
        """The page after the last one taken, without images."""

    def take(self, position: Position) -> Batch | None:
        """Return the page at this position if it was read in advance, else None."""
        sent, self._sent, self._following = self._sent, None, None
        if sent is None:
            return None
        if not self._side.finish(sent.cursors) or not _is_same(sent.at, position):
            return None
        if sent.cursors and sent.cursors.pop().fetchone()[0] != self._side.server:
            return None
        if sent.after is not None:
            page = cut_page(sent.cursors.pop().fetchall(), sent.batch.limit)
            self._following = sent.after, Batch(*page, sent.batch.limit, {})
        read = {
            label: Images(columns, cursor.fetchall)
            for (label, columns), cursor in zip(
                sent.old_columns.items(), (sent.cursors[index] for index in sent.images_at), strict=True
            )
        }
        return sent.batch._replace(images=read)

    def go_on(self, after: Position, limit: int, listeners: Listeners, consumer: str) -> None:
        """Start to read the page after the current one, which ends at ``after``."""
        if self._following is None or not _is_same(self._following[0], after):
            self._following = after, Batch(*window.read_page(self.log, after, limit), limit, {})
        batch = self._following[1]
        statements: list[Statement] = []
        old_columns: dict[str, list[str]] = {}
        images_at: list[int] = []
        for label, changes in by_table(batch.changes, self._builders, consumer).items():
            builder = self._builders[label]
            if listeners.wanted(builder.model):
                old_columns[label] = changed_columns(builder, changes)
                ids = [change.id for change in changes]
                images = images_sql(builder.model, builder.columns, old_columns[label], ids)
                images_at.append(len(statements) + rows_at(images))
                statements += [(statement, None) for statement in images]
        then = replace(after, last_id=batch.changes[-1].id) if batch.has_more and batch.changes else None
        if then is not None:
            statements.append(window.page_statement(self.log, then, batch.limit))
        # A full page can be the last of its window. Another server has other changes under the same ids.
        cursors = self._side.send([*statements, (SERVER, None)]) if statements else []
        if cursors is not None:
            self._sent = _Sent(after, batch, old_columns, images_at, then, cursors)

    def receive(self) -> None:
        """Read whatever has arrived, without blocking; otherwise the server stalls on a full socket."""
        if self._sent is not None:
            self._side.receive()

    def forget(self) -> None:
        """Discard the page read in advance: this worker does not deliver it."""
        if self._sent is not None:
            self.take(self._sent.at)
        self._following = None


def _is_same(one: Position, other: Position) -> bool:
    return (one.seen, one.target, one.last_id) == (other.seen, other.target, other.last_id)
