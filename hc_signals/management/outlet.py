"""Writes to a stream no faster than its reader takes it: a full pipe or a stopped terminal blocks no signal."""

import io
import os
import select
from collections.abc import Callable
from typing import Any

SLICE = 0.2
"""Most seconds of one wait for the reader."""
CHUNK = 4096
"""Bytes of one write: a pipe that is ready takes as many without blocking (``PIPE_BUF`` of Linux)."""
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Outlet:
    """Writes lines to ``stream``.

    Args:
        waits: called before each further wait for a reader that takes nothing; it returns False to give up.
    """

    def __init__(self, stream: Any, waits: Callable[[], bool]) -> None:
        self._stream, self._waits = stream, waits
        try:
            self._file: int | None = stream.fileno()
        except (AttributeError, io.UnsupportedOperation):
            self._file = None  # a StringIO takes everything

    def write(self, line: str) -> None:
        """Write a line, or only its beginning if ``waits`` gives up.

        Raises:
            BrokenPipeError: the reader has gone.
        """
        if self._file is None:
            self._stream.write(f"{line}\n")
            return
        data = f"{line}\n".encode(getattr(self._stream, "encoding", None) or "utf-8", "backslashreplace")
        while data:
            if self._is_ready(SLICE):
                data = data[os.write(self._file, data[:CHUNK]) :]
            elif not self._waits():
                return

    def check(self) -> None:
        """Raise BrokenPipeError if the reader has gone. A write would find out only at the next line."""
        if self._file is not None:
            self._is_ready(0.0)

    def _is_ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._file or 0, select.POLLOUT)
        events = poll.poll(int(seconds * 1000))
        if events and events[0][1] & _GONE:
            raise BrokenPipeError
        return bool(events)
