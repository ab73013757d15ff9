"""The facts that hc_status, the metrics and the admin share: this module reads them, each in one place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from django.db import transaction
from django.db.models import Model

from hc_signals.capture import orphans, pausing, table_state
from hc_signals.capture.status import FoundTable, TableStatus, compare, find_tables
from hc_signals.conf import Conf
from hc_signals.delivery import failures
from hc_signals.log.backlog import COUNT_LIMIT, Backlog, backlog, total
from hc_signals.log.consumers import names
from hc_signals.log.figures import stored_at
from hc_signals.log.positions import shards_of
from hc_signals.log.presence import workers
from hc_signals.log.rotation import held_up_by, size_mb
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.query import execute
from hc_signals.tables import connected_models

STATEMENT_TIMEOUT = "5s"
"""Longest that a statement may take in :func:`limited`: no figure is better than a load on the server."""


@dataclass(frozen=True)
class Consumer:
    """One consumer of the log, as it is now."""

    name: str
    workers: int
    """Connections of its running workers."""
    by_shard: tuple[Backlog, ...]
    """The backlog of each shard; none if the consumer has no position, only failed deliveries."""
    deliveries: Mapping[str, int]
    """Failed deliveries by their state, without states that no delivery has."""
    stored_at: Mapping[int, datetime] = field(default_factory=dict)
    """When the newest position of each shard was stored. A shard with nothing to do stores none."""
    holds_up_rotation: bool = False
    """Changes older than the retention stay in the log, because this consumer has not got them."""

    @property
    def backlog(self) -> Backlog:
        """The backlog of all shards."""
        return total(self.by_shard)

    @property
    def moved_at(self) -> datetime | None:
        """When its newest position was stored."""
        return max(self.stored_at.values(), default=None)


class Survey:
    """The facts about one database, each read when it is first asked for, and then kept.

    Of a consumer's undelivered changes, ``count_limit`` are counted: in equal shares, or with ``each_shard`` in each.
    """

    def __init__(self, using: str, conf: Conf, count_limit: int = COUNT_LIMIT, each_shard: bool = False) -> None:
        self.using, self.conf, self.count_limit, self.each_shard = using, conf, count_limit, each_shard

    @cached_property
    def models(self) -> list[type[Model]]:
        """The connected models."""
        return connected_models()

    @cached_property
    def tables(self) -> list[FoundTable]:
        """The table of each connected model, from the catalog."""
        return find_tables(self.models, self.using)

    @property
    def statuses(self) -> list[TableStatus]:
        """The status of capture on the table of each connected model."""
        return [compare(*pair) for pair in zip(self.models, self.tables, strict=True)]

    @cached_property
    def orphans(self) -> list[TableStatus]:
        """Capture that no connected model uses."""
        return orphans.find(self.models, self.using)

    @cached_property
    def pause(self) -> pausing.Pause:
        """Whether capture is paused."""
        return pausing.find(self.using)

    @cached_property
    def watched(self) -> Mapping[str, table_state.TableState]:
        """What the watch over capture has stored of each table."""
        return table_state.read(self.using)

    @cached_property
    def consumers(self) -> list[Consumer]:
        """All consumers that have a position or a failed delivery, by name."""
        stored, late = stored_at(self.using), held_up_by(self.using, self.conf.RETENTION_HOURS)
        return [
            replace(self.consumer(name), stored_at=stored.get(name, {}), holds_up_rotation=name in late)
            for name in names(self.using)
        ]

    def consumer(self, name: str) -> Consumer:
        """Read one consumer, without ``stored_at`` and ``holds_up_rotation``."""
        shards = shards_of(self.using, name)
        limit = self.count_limit if self.each_shard else self.count_limit // max(1, len(shards))
        by_shard = tuple(backlog([shard], limit) for shard in shards)
        return Consumer(name, workers(self.using, name), by_shard, failures.counts(self.using, name))

    @cached_property
    def log_mb(self) -> float:
        """Size of the log on disk with its indexes, in units of 2**20 bytes."""
        return size_mb(self.using)


@contextmanager
def limited(using: str) -> Iterator[None]:
    """Run the block in one transaction, in which no statement takes longer than STATEMENT_TIMEOUT.

    A limit for the session could stay in the session of a pooler.
    """
    with transaction.atomic(using=using):
        execute(using, own_limits(is_local=True, statement_timeout=STATEMENT_TIMEOUT))
        yield
