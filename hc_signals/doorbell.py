"""The doorbell: sleep until a writer rings. LISTEN has a connection of its own that nobody else touches.

The worker holds an advisory lock only while it sleeps; writers ring only when they cannot share it (the proof is in
migrations_sql/0001_change_log.sql). No flag in a table could do this without losing a ring now and then.
"""

import random
import time
from collections.abc import Callable
from types import TracebackType

import psycopg
from django.db import connections

LOCK = (1212372819, 1)
CHANNEL = "hc_signals"


class Doorbell:
    """LISTEN, sleep, wake, reconnect.

    Args:
        using: database alias whose connection parameters are taken.
        stopping: asked at least every SLICE seconds while waiting.
    """

    SLICE = 0.5
    """Seconds of one wait: a signal handler's flag is seen only between two."""
    PING_TIMEOUT = 5.0
    BUSY_PAUSES = (0.003, 0.05)
    """First and longest pause while the lock is refused: a writer is open, or another worker has the bell."""
    MAX_BACKOFF = 10.0

    def __init__(self, using: str, stopping: Callable[[], bool]) -> None:
        self._params = {
            key: value
            for key, value in connections[using].get_connection_params().items()
            if key not in ("cursor_factory", "context", "prepare_threshold", "pool")
        }
        self._stopping = stopping
        self._connection: psycopg.Connection | None = None
        self._failures = 0
        self._busy_pause = self.BUSY_PAUSES[0]
        self.heard = False
        """False when the ping came back never: LISTEN is swallowed, the worker polls."""

    def __enter__(self) -> "Doorbell":
        self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def _connect(self) -> None:
        self._connection = psycopg.connect(
            **self._params, autocommit=True, keepalives_idle=10, keepalives_interval=5, keepalives_count=3
        )
        self._connection.execute(f"LISTEN {CHANNEL}")
        self.heard = self._ping()

    def _ping(self) -> bool:
        """Ring ourselves: only this proves that a ring arrives. A transaction pooler swallows LISTEN silently."""
        assert self._connection is not None  # noqa: S101
        self._connection.execute("SELECT pg_notify(%s, '')", [CHANNEL])
        return any(True for _ in self._connection.notifies(timeout=self.PING_TIMEOUT, stop_after=1))

    def sleep(self, found_more: Callable[[], bool], seconds: float) -> None:
        """Sleep until rung, stopped, or ``seconds`` are over.

        Args:
            found_more: the last look at the log, taken after the lock: a writer that did not ring is visible to it.
        """
        if self._connection is None or self._connection.closed:
            self._reconnect()
            return
        try:
            if not self._lock():
                time.sleep(self._busy_pause)
                self._busy_pause = min(2 * self._busy_pause, self.BUSY_PAUSES[1])
                return
            self._busy_pause = self.BUSY_PAUSES[0]
            try:
                if not found_more():
                    self._wait(seconds)
            finally:
                self._unlock()
        except psycopg.OperationalError:
            self._connection.close()

    def _lock(self) -> bool:
        assert self._connection is not None  # noqa: S101
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s, %s)", LOCK).fetchone()
        return bool(row and row[0])

    def _unlock(self) -> None:
        assert self._connection is not None  # noqa: S101
        if not self._connection.closed:
            self._connection.execute("SELECT pg_advisory_unlock(%s, %s)", LOCK)

    def _wait(self, seconds: float) -> None:
        assert self._connection is not None  # noqa: S101
        deadline = time.monotonic() + seconds
        while not self._stopping() and (left := deadline - time.monotonic()) > 0:
            # stop_after=1 ends after the whole packet; leaving the loop by break would drop the rest of it
            if any(True for _ in self._connection.notifies(timeout=min(self.SLICE, left), stop_after=1)):
                return

    def _reconnect(self) -> None:
        """Try once; the caller reads the log after it, because rings sent meanwhile never come again."""
        try:
            self._connect()
            self._failures = 0
        except psycopg.OperationalError:
            self._failures += 1
            pause = min(self.MAX_BACKOFF, 0.1 * 2**self._failures) * random.uniform(0.5, 1)  # noqa: S311
            deadline = time.monotonic() + pause
            while not self._stopping() and time.monotonic() < deadline:
                time.sleep(0.1)
