"""A clock for servers that tests and the chaos run set: libfaketime reads its offset from a file."""

import tempfile
from pathlib import Path
from types import TracebackType

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""The library; None if it is not installed."""


class Clock:
    """A clock; it is right at first.

    Args:
        delay: seconds until each process sees a new time. With 0, reading the clock takes 4 µs: it reads a file.
    """

    def __init__(self, delay: int = 0) -> None:
        self.delay = delay
        self._file = tempfile.NamedTemporaryFile("w+", prefix="hc_signals_clock_")  # noqa: SIM115 -- see __exit__
        Path(self._file.name).chmod(0o644)  # the server may run as another user
        self.environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": self._file.name,
            **({"FAKETIME_CACHE_DURATION": str(delay)} if delay else {"FAKETIME_NO_CACHE": "1"}),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        """Variables of the processes that have this clock."""
        self.set_to(0)

    def set_to(self, seconds: float) -> None:
        """Set the clock to some seconds after the right time."""
        self.offset = seconds
        Path(self._file.name).write_text(f"{seconds:+.3f}")

    def __enter__(self) -> "Clock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
