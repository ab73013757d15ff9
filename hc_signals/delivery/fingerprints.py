"""Fingerprints of what a receiver carries, such as a partial's arguments: receivers may share one dotted path."""

import hashlib
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

LENGTH = 8
DEPTH = 6
"""Levels of nested values that are read; a list may contain itself."""

_first_seen: dict[int, tuple[weakref.ref[Any], str]] = {}
"""By id() of the object: its fingerprint stays the same if its content changes."""


def fingerprint(receiver: Callable[..., Any]) -> str:
    """Return a short text that is the same in every process for receivers with the same content; empty without any.

    The content is texts, whole numbers, classes and functions, also inside lists, dicts and dataclasses. A method's
    content is the attributes of its object. An object of any other kind counts by its class.
    """
    carrier = receiver.__self__ if isinstance(receiver, MethodType) else receiver
    known = _first_seen.get(id(carrier))
    if known is not None and known[0]() is carrier:
        return known[1]
    try:
        reference = weakref.ref(carrier, partial(_forget, id(carrier)))
        carried = _carried(carrier)
        found = hashlib.sha256(repr(carried).encode(errors="replace")).hexdigest()[:LENGTH] if carried else ""
    except Exception:  # it takes no weak reference, so its content may change; or its code raises
        return ""
    _first_seen[id(carrier)] = reference, found
    return found


def _forget(key: int, _: object) -> None:
    _first_seen.pop(key, None)


def _carried(carrier: Any) -> Any:
    """Return the content of a receiver, or of a method's object; nothing for a plain function."""
    if isinstance(carrier, FunctionType):
        return _of_function(carrier, DEPTH)
    return _plain(carrier, DEPTH) if isinstance(carrier, partial) else _of_object(carrier, DEPTH)


def _of_object(owner: Any, depth: int) -> Any:
    return _path(owner) if isinstance(owner, type) else _plain(dict(getattr(owner, "__dict__", {})), depth)


def _of_function(function: Any, depth: int) -> list[Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closure = [(name, cell.cell_contents) for name, cell in cells]
    carried = [*closure, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
    return _all(carried, depth)


def _plain(value: Any, depth: int) -> Any:
    """Return a value as texts and lists of them, the same in every process."""
    if depth == 0:
        return "…"
    for types, make in _SHAPES.items():
        if isinstance(value, types):
            return make(value, depth - 1)
    if is_dataclass(value):
        return [_path(type(value)), *_all([getattr(value, each.name) for each in fields(value)], depth - 1)]
    return _path(type(value))


def _all(values: Iterable[Any], depth: int) -> list[Any]:
    return [_plain(value, depth) for value in values]


def _path(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


_SHAPES: Mapping[Any, Callable[[Any, int], Any]] = {
    (type(None), str, bytes, int): lambda value, depth: repr(value),
    type: lambda value, depth: _path(value),
    MethodType: lambda value, depth: [_path(value), _of_object(value.__self__, depth)],
    FunctionType: lambda value, depth: [_path(value), *_of_function(value, depth)],
    partial: lambda value, depth: _all([value.func, list(value.args), value.keywords], depth),
    (list, tuple): _all,
    (set, frozenset): lambda value, depth: sorted(_all(value, depth), key=repr),
    Mapping: lambda value, depth: sorted(_all(value.items(), depth), key=repr),
}
