"""Plays Heroku Connect: its tables, functions and triggers, and its way of writing."""

import datetime
import random
from collections.abc import Callable, Iterable

from hc_signals.tables import connected_models
from hc_signals.testing.rows import Model
from hc_signals.testing.tables import RealHerokuConnectError
from hc_signals.testing.traffic import POLL_SIZE, Step, Traffic

__all__ = ("POLL_SIZE", "HerokuConnect", "RealHerokuConnectError", "Step")


class HerokuConnect(Traffic):
    """A Heroku Connect for tests and development, on real tables of a real server.

    Records are given and named by the model's field names (or column names). What is written follows Heroku Connect's
    habits: ``xmlbinary = hex`` for its own work, all mapped columns in one UPDATE, a hard DELETE for a record deleted
    in Salesforce, an sfid write-back and an echo for what the app wrote. Its own triggers are on every table.

    Args:
        using: database alias.
        models: the connected models to play; default: all of the project.
        seed: the same seed on the same (empty) tables plays the same records in the same order.
        clock: gives ``systemmodstamp`` and ``createddate``; default: now, in UTC.
    """

    def __init__(
        self,
        using: str = "default",
        *,
        models: Iterable[Model] | None = None,
        seed: int = 0,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self.using = using
        self.models = list(connected_models() if models is None else models)
        self.chance = random.Random(seed)
        self.clock = clock
        self.changes = 0
        """Changes written so far that a receiver must hear of: no bookkeeping, no no-ops, no writes of the app."""
        self._numbers: dict[Model, int] = {}
        self._making: set[Model] = set()

    def __repr__(self) -> str:
        return f"<HerokuConnect using={self.using!r} models={[model._meta.label for model in self.models]}>"
