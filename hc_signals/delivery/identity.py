"""Names receivers. A name is the same in every process, and belongs to one receiver.

The name is the dotted path, or ``path#uid`` if ``dispatch_uid`` is a text. Two partials, two closures of a factory or
one method of two objects share a path. They get a suffix made from their content
(:mod:`~hc_signals.delivery.fingerprints`), which does not depend on the order of connection: ``path#1f0c9a2e``.
Receivers with the same content are counted, ``path#1of2``: the count makes a name invalid when one is added or removed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from types import MethodType
from typing import Any, NamedTuple

from hc_signals.delivery.connections import EVERY_SENDER, Connection
from hc_signals.delivery.fingerprints import fingerprint
from hc_signals.exceptions import RedeliveryError


class Receiver(NamedTuple):
    """A connected receiver and its names."""

    call: Callable[..., Any]
    name: str
    """Unique among the receivers of the same records."""
    labels: tuple[str, ...]
    """Names under which a delivery to it may be stored, its present name first. Other receivers may share some."""
    own: tuple[str, ...]
    """The labels that no other receiver of the same signal and sender shares."""


Receivers = list[Receiver]


def receiver_path(receiver: Callable[..., Any]) -> str:
    """Return the dotted path of a receiver, as the project connected it."""
    name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
    return _storable(f"{getattr(receiver, '__module__', '?')}.{name}")


def _storable(name: str) -> str:
    """Return a name that every database can store and every log can show: other characters become escapes."""
    if name.isascii() and name.isprintable():
        return name
    shown = (c if c.isprintable() and c <= "\xff" else c.encode("unicode_escape").decode() for c in name)
    return "".join(shown)


def resolve(name: str, receivers: Sequence[Receiver]) -> Receivers:
    """Return the receiver that a stored name means; an empty list if there is none.

    A deployment may have changed the name since: by a ``dispatch_uid``, or by another receiver with the same path.

    Raises:
        RedeliveryError: the name fits several receivers.
    """
    found = [each for each in receivers if name in each.own]
    if not found and (names := sorted({each.name for each in receivers if name in each.labels})):
        raise RedeliveryError(
            f"{name} fits {len(names)} connected receivers ({', '.join(names)}); expected one. Connect each with a "
            "dispatch_uid of its own; discard this delivery and replay its change to the receivers that miss it."
        )
    return found


Namesakes = dict[Any, Connection]
"""Receivers that share a dotted path (and ``dispatch_uid``), by the id of the object."""


class Names:
    """Names of the receivers that are called for the same records.

    A receiver has one name in all signals, so that the changes of a record reach it in order. Receivers that no signal
    calls for the same sender may share a name; their deliveries are then ordered as if they were one receiver.
    """

    def __init__(self, by_signal: Iterable[Iterable[Connection]]) -> None:
        groups: dict[str, list[Namesakes]] = defaultdict(list)
        for connections in by_signal:
            for base, namesakes in _called_together(list(connections)):
                groups[base].append(namesakes)
        self._labels: dict[tuple[str, Any], tuple[str, ...]] = {}
        self.by_order: dict[str, int] = {}
        """By shared name: how many receivers differ in the order of their connection alone."""
        for base, of_base in groups.items():
            self._name(base, of_base)

    def _name(self, base: str, groups: list[Namesakes]) -> None:
        is_shared = any(len(group) > 1 for group in groups)
        by_full_name: dict[str, Namesakes] = defaultdict(dict)
        for key, connection in (pair for group in groups for pair in group.items()):
            content = fingerprint(connection.receiver)
            by_full_name[f"{base}#{content}" if content else base][key] = connection
        for full, namesakes in by_full_name.items():
            numbers = _numbers(namesakes, groups)
            total = max(numbers.values())
            for key, connection in namesakes.items():
                name = full if is_shared else base
                if is_shared and (total > 1 or full == base):
                    name = f"{full}{'#' if full == base else '-'}{numbers[key]}of{total}"
                path = receiver_path(connection.receiver)
                self._labels[base, key] = tuple(dict.fromkeys((name, full, base, path)))
            if total > 1:
                self.by_order[full] = len(namesakes)

    def receivers(self, called: Iterable[tuple[Connection, Callable[..., Any]]]) -> Receivers:
        """Return the receivers of one signal and sender; KeyError: one was connected after the names were made."""
        found = [(each, call, self._labels[_base(each), _object(each.receiver)]) for each, call in called]
        owners: dict[str, set[str]] = defaultdict(set)
        for _, _, labels in found:
            for label in labels:
                owners[label].add(labels[0])
        receivers = []
        for _, call, labels in found:
            own = tuple(label for label in labels if len(owners[label]) == 1)
            receivers.append(Receiver(call, labels[0], labels, own))
        return receivers


def _called_together(connections: list[Connection]) -> Iterator[tuple[str, Namesakes]]:
    """Yield the namesakes that one signal calls for one sender."""
    for sender in dict.fromkeys(each.sender_id for each in connections):
        found: dict[str, Namesakes] = defaultdict(dict)
        for each in connections:
            if each.sender_id in (EVERY_SENDER, sender):
                found[_base(each)].setdefault(_object(each.receiver), each)
        yield from found.items()


def _numbers(namesakes: Namesakes, groups: Iterable[Namesakes]) -> dict[Any, int]:
    """Number namesakes in order, each with the smallest number that no other one of its groups has."""
    found: dict[Any, int] = {}
    for key in namesakes:
        taken = {found.get(other) for group in groups if key in group for other in group if other in namesakes}
        found[key] = next(number for number in count(1) if number not in taken)
    return found


def _base(connection: Connection) -> str:
    path, uid = receiver_path(connection.receiver), connection.uid
    return _storable(f"{path}#{uid}") if isinstance(uid, str) else path


def _object(receiver: Callable[..., Any]) -> Any:
    """Return what identifies a receiver while it exists: Python makes a new bound method at each access."""
    if isinstance(receiver, MethodType):
        return id(receiver.__self__), id(receiver.__func__)
    return id(receiver)
