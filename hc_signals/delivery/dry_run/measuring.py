"""Measures receiver calls: queries, seconds, written rows, and whether the receiver asks if it is a dry run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, transaction
from django.dispatch import Signal

from hc_signals.delivery.calls import UNWANTED, NotSettled
from hc_signals.delivery.dispatch import Dispatcher
from hc_signals.delivery.identity import Receiver, Receivers
from hc_signals.delivery.isolation.call import About
from hc_signals.delivery.project_code import complete
from hc_signals.events import DRY_CALL, DryCall
from hc_signals.postgres.written_rows import Written, difference, written_rows


@dataclass
class Measured(DryCall):
    """One call of a receiver that was made."""

    receiver: str
    gets_event: bool
    is_wanted: bool = True
    queries: int = 0
    seconds: float = 0.0
    has_failed: bool = False
    written: dict[str, Written] = field(default_factory=dict)

    def count(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute wrapper that counts the receiver's queries."""
        self.queries += 1
        return execute(sql, params, many, context)

    @contextmanager
    def watching(self, others: Sequence[str], using: str) -> Iterator[None]:
        """Measure the call in the block; what it writes to other databases has a savepoint, as its writes here have."""
        token = DRY_CALL.set(self)
        began = time.perf_counter()
        try:
            with ExitStack() as stack:
                for alias in others:
                    stack.enter_context(transaction.atomic(using=alias))
                for alias in (using, *others):
                    stack.enter_context(connections[alias].execute_wrapper(self.count))
                began = time.perf_counter()
                yield
                self.seconds = time.perf_counter() - began
        except BaseException:
            self.seconds = time.perf_counter() - began
            raise
        finally:
            DRY_CALL.reset(token)


@dataclass(frozen=True)
class MeasuringDispatcher(Dispatcher):
    """Calls receivers as a delivery does, and measures each call."""

    others: Sequence[str] = ()
    """The other database aliases: each has a transaction open."""
    measured: list[Measured] = field(default_factory=list)

    def _call(
        self, receivers: Receivers, about: About, signal: Signal, named: dict[str, Any], seconds: list[float]
    ) -> list[tuple[str, BaseException]]:
        errors = ((each.name, self._measure(each, about, signal, named, seconds)) for each in receivers)
        return [(name, error) for name, error in errors if error is not None]

    def _measure(
        self, receiver: Receiver, about: About, signal: Signal, named: dict[str, Any], seconds: list[float]
    ) -> BaseException | None:
        measured = Measured(receiver.name, gets_event="event" in named or "events" in named)
        is_made = False

        def watched(**arguments: Any) -> None:
            nonlocal is_made
            is_made = True
            with measured.watching(self.others, self.isolation.using):
                result = receiver.call(**arguments)
                measured.is_wanted = (None if result is None else complete(result)) is not UNWANTED

        late: list[BaseException] = []
        before = self._written()
        # A check after the call may find that it has failed: then the error is stored as if it had been raised.
        failures = super()._call(
            [receiver._replace(call=watched)],
            (*about[:3], lambda name, error: late.append(error)),
            signal,
            named,
            seconds,
        )
        error = next((error for _, error in failures), None) or next(iter(late), None)
        if isinstance(error, NotSettled):
            measured.is_wanted, error = False, None
        if is_made:
            measured.has_failed = error is not None
            if error is None:
                measured.written = difference(before, self._written())
            self.measured.append(measured)
        return error

    def _written(self) -> dict[str, Written]:
        """Return the written rows of all databases; the tables of other ones have their alias in front."""
        found = written_rows(self.isolation.using)
        for alias in self.others:
            if connections[alias].vendor == "postgresql" and not connections[alias].needs_rollback:
                found |= {f"{alias}: {table}": counts for table, counts in written_rows(alias).items()}
        return found
