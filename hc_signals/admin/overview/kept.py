"""Keeps a result for some seconds in this process, so that many open pages ask the database once."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Results by key. While one request reads a result, the others wait for it."""

    def __init__(self) -> None:
        self._results: dict[Hashable, tuple[float, T]] = {}
        self._locks: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, read: Callable[[], T], seconds: float) -> T:
        """Return the result of ``read()``, or an earlier one for this key that is younger than ``seconds``.

        The keys must be few: none is forgotten.
        """
        with self._locks.setdefault(key, threading.Lock()):
            at, result = self._results.get(key, (0.0, None))
            if result is None or time.monotonic() - at >= seconds:
                result = read()
                self._results[key] = (time.monotonic(), result)
            return result

    def clear(self) -> None:
        """Forget all results."""
        self._results = {}
