"""Keeps a result for some seconds in this process, so that many open pages ask the database once."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 100
"""Most results that one :class:`Kept` holds; then it forgets all of them."""


class Kept(Generic[T]):
    """Results by key, each for ``seconds``. While one request reads a result, the others wait for it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._results: dict[Hashable, tuple[float, T]] = {}
        self._locks: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, read: Callable[[], T], seconds: float | None = None) -> T:
        """Return the result of ``read()``, or an earlier one for this key that is younger than ``seconds``."""
        seconds = self.seconds if seconds is None else seconds
        with self._locks.setdefault(key, threading.Lock()):
            at, result = self._results.get(key, (0.0, None))
            if result is None or time.monotonic() - at >= seconds:
                result = read()
                if len(self._results) >= MOST:
                    self.clear()
                self._results[key] = (time.monotonic(), result)
            return result

    def clear(self) -> None:
        """Forget all results."""
        self._results = {}
