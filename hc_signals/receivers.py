"""``@on_change``: connects a receiver to chosen changes of one model."""

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db.models import Model
from django.dispatch import Signal
from django.utils.inspect import func_accepts_kwargs

from hc_signals import signals
from hc_signals.conf import get_conf
from hc_signals.delivery.calls import UNWANTED, NotSettled
from hc_signals.delivery.identity import receiver_path
from hc_signals.delivery.routing import FIRST_SIGNAL
from hc_signals.events import ChangeEvent
from hc_signals.exceptions import ConfigurationError
from hc_signals.postgres.moments import now
from hc_signals.tables import connected_tables_of, counts_as_change

OF_TYPE = {kind: FIRST_SIGNAL[kind] for kind in ("CREATE", "UPDATE", "DELETE", "SNAPSHOT")}
"""The signal of each change type. Rows that are read again after a gap arrive as created or updated as well."""

M = TypeVar("M", bound=Model)
M_contra = TypeVar("M_contra", bound=Model, contravariant=True)
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Receiver(Protocol[M_contra, P, R_co]):
    """A receiver of ``@on_change``. To type checkers it must fit both overloads.

    The first one is the function's own signature. The second one has the arguments of a call; ``**kwargs`` may take any
    of them.
    """

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self,
        *,
        signal: Signal,
        sender: type[M_contra],
        instance: M_contra,
        event: ChangeEvent[M_contra],
        using: str,
        **kwargs: Any,
    ) -> object: ...


@dataclass(frozen=True)
class Filter:
    """The changes that a receiver wants: see :func:`on_change`."""

    types: frozenset[str]
    fields: frozenset[str]
    to: Mapping[str, Any]
    from_: Mapping[str, Any]
    attnames: Mapping[str, str]
    """By field: the attribute of its value. For a relation it is the key, which needs no query."""
    settled: bool

    def matches(self, signal: Signal, event: ChangeEvent[Any]) -> bool:
        """Return whether the receiver is called."""
        if not any(OF_TYPE[kind] is signal for kind in self.types):
            return False
        kind = event.change_type
        # A new, a deleted and a re-read record have no changed fields: every field counts as changed.
        is_changed = event.changed_fields if event.changed_fields or kind == "UPDATE" else self.attnames
        if self.fields and self.fields.isdisjoint(is_changed):
            return False
        if not all(name in is_changed for name in (*self.to, *self.from_)):
            return False
        return self._came_to(event) and self._came_from(event)

    def unsettled(self, event: ChangeEvent[Any]) -> tuple[str, ...]:
        """Return the fields for which a settled receiver waits: those it names, or all, that the app has replaced."""
        named = {*self.fields, *self.to, *self.from_}
        return tuple(name for name in event.pending_fields if not named or name in named)

    def _came_to(self, event: ChangeEvent[Any]) -> bool:
        if self.to and event.change_type == "DELETE":
            return False
        values = event.instance.__dict__
        return all(_fits(values.get(self.attnames[name]), wanted) for name, wanted in self.to.items())

    def _came_from(self, event: ChangeEvent[Any]) -> bool:
        if not self.from_ or (event.change_type == "GAP_UPDATE" and not event.previous):
            return True  # the value before the gap is unknown: one call too many is better than none
        if event.change_type == "DELETE":
            values = event.instance.__dict__
            return all(_fits(values.get(self.attnames[name]), wanted) for name, wanted in self.from_.items())
        previous = event.previous
        return all(name in previous and _fits(previous[name], wanted) for name, wanted in self.from_.items())


def _fits(value: Any, wanted: Any) -> bool:
    return bool(wanted(value)) if callable(wanted) else bool(value == wanted)


@dataclass(frozen=True)
class on_change(Generic[M]):
    """Connect a receiver ``(instance, event, using, **kwargs)`` to changes of one model's records.

    A change must fit all arguments. With several decorators, the function is called once if any of them matches.

    Args:
        model: a connected model, a proxy or a multi-table child of one.
        fields: names of fields; at least one must have changed. In a created or deleted record every field has changed.
        to: the new value of each of these fields, which must have changed. It is compared with ``==``; a callable gets
            it and returns whether it fits. The value of a relation is the key. A deleted record has no new values.
        from_: the same for old values. A created record has none; those of a deleted record are its last values.
        types: change types, of CREATE, UPDATE, DELETE and SNAPSHOT. CREATE includes GAP_CREATE, and UPDATE includes
            GAP_UPDATE. A backfill for this receiver counts as CREATE. Any other backfill calls it if SNAPSHOT is named.
        settled: wait while a write of the app is on its way to Salesforce that replaces a value of the change. The
            receiver then gets the final state, in one call. It waits at most ``SETTLED_SECONDS``, for the fields that
            are named, or for all.
        dispatch_uid: part of the receiver's name, for functions that share a dotted path; see docs/receivers.md.

    Raises:
        ConfigurationError: at import: the model is not connected, a field or type does not exist, or the function
            takes no ``**kwargs``.
    """

    model: type[M]
    fields: Collection[str] = ()
    to: Mapping[str, Any] | None = None
    from_: Mapping[str, Any] | None = None
    types: Collection[str] = ("CREATE", "UPDATE")
    settled: bool = False
    dispatch_uid: str = ""

    def __call__(self, function: Receiver[M, P, R]) -> Callable[P, R]:
        """Connect the function, and return it unchanged."""
        if not func_accepts_kwargs(function):
            raise ConfigurationError(
                f"{receiver_path(function)} must accept **kwargs: arguments may be added to a signal at any time."
            )
        wanted = self._filter(f"@on_change of {receiver_path(function)}")
        # One receiver per function and model, so that several decorators call it once: it applies all their filters.
        connected: dict[Any, tuple[list[Filter], Callable[..., Any]]] = function.__dict__.setdefault("_hc_signals", {})
        # Methods of two objects share one __dict__.
        key = self.model, id(getattr(function, "__self__", None)), self.dispatch_uid
        if key not in connected:
            filters: list[Filter] = []
            connected[key] = filters, _filtered(function, filters)
        filters, receiver = connected[key]
        filters.append(wanted)
        for kind in wanted.types:
            OF_TYPE[kind].connect(receiver, sender=self.model, weak=False, dispatch_uid=self.dispatch_uid or None)
        return function

    def _filter(self, what: str) -> Filter:
        tables = connected_tables_of(self.model)
        if not tables:
            raise ConfigurationError(
                f"{what}: {self.model.__module__}.{self.model.__qualname__} is not a connected model; expected one "
                "with an sf_object_name, or a proxy or a multi-table child of one."
            )
        known = {f.name: f for table in tables for f in table._meta.local_concrete_fields}
        attnames = {name: field.attname for name, field in known.items()}
        for text in (self.fields, self.types):
            if isinstance(text, str):
                raise ConfigurationError(f"{what}: {text!r} is one text; expected a list, [{text!r}].")
        for name in (*self.fields, *(self.to or {}), *(self.from_ or {})):
            _check_name(what, name, attnames, f"{self.model._meta.label} has no field of Salesforce")
            if not counts_as_change(known[name].column):
                raise ConfigurationError(
                    f"{what}: {name!r} is bookkeeping of Heroku Connect, whose changes send no signal; leave it out."
                )
        for kind in self.types:
            _check_name(what, kind, OF_TYPE, "there is no change type")
        fields, to, from_ = frozenset(self.fields), self.to or {}, self.from_ or {}
        return Filter(frozenset(self.types), fields, to, from_, attnames, self.settled)


def _check_name(what: str, name: str, known: Collection[str], problem: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}."
        raise ConfigurationError(f"{what}: {problem} {name!r}; {hint}")


def _filtered(function: Any, filters: list[Filter]) -> Callable[..., Any]:
    """Return the receiver that is connected. It has the dotted path of the user's function."""
    receive: Callable[..., Any]
    if iscoroutinefunction(function):

        @wraps(function)
        async def receive(signal: Signal, event: ChangeEvent[Any], **named: Any) -> Any:
            # A query is not allowed in the thread of the event loop.
            is_wanted = sync_to_async(_is_wanted) if any(each.settled for each in filters) else None
            wanted = await is_wanted(filters, signal, event) if is_wanted else _is_wanted(filters, signal, event)
            if not wanted:
                return UNWANTED
            return await function(signal=signal, event=event, **named)
    else:

        @wraps(function)
        def receive(signal: Signal, event: ChangeEvent[Any], **named: Any) -> Any:
            if not _is_wanted(filters, signal, event):
                return UNWANTED
            return function(signal=signal, event=event, **named)

    # A partial, or an object with a __call__, has no __qualname__ that wraps() could copy.
    receive.__qualname__ = getattr(function, "__qualname__", type(function).__qualname__)
    return receive


def _is_wanted(filters: list[Filter], signal: Signal, event: ChangeEvent[Any]) -> bool:
    """Return whether any filter matches; NotSettled: all that do want to wait."""
    is_snapshot = event.change_type == "SNAPSHOT"
    if signal is signals.record_changed:
        if not is_snapshot:
            return False  # its own signal calls the receiver
    elif is_snapshot and any("SNAPSHOT" in each.types for each in filters):
        return False  # a snapshot for this receiver sends both signals; record_changed comes next
    waiting = []
    for each in filters:
        if each.matches(signal, event):
            if not each.settled:
                return True
            waiting.append(each.unsettled(event))
    if waiting and all(waiting) and now() - event.captured_at < timedelta(seconds=get_conf().SETTLED_SECONDS):
        raise NotSettled(list(dict.fromkeys(name for names in waiting for name in names)))
    return bool(waiting)
