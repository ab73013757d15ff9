"""The failed tries of a thread: count them, log them at growing intervals, retry after growing pauses.

All threads of hc_listen use it, so that the same error has the same words everywhere.
"""

import logging
import random
import time
import traceback
from collections import Counter
from pathlib import Path

from hc_signals.exceptions import ExportError
from hc_signals.postgres.errors import Kind, is_database_error, kind_of, one_line, remedy, sqlstate

logger = logging.getLogger("hc_signals")

NO_SQLSTATE = "none"
"""The code of a lost or refused connection: libpq passes no SQLSTATE on."""

_EXPORT_LINE = "%s failed: %s; trying again. Try %s in %.0f s."
_LINES: dict[Kind | None, tuple[int, str]] = {
    Kind.LOST: (logging.WARNING, "%s has no connection to the database: %s; reconnecting. Try %s in %.0f s."),
    Kind.WAIT: (logging.WARNING, "%s waits for the server: %s; trying again. Try %s in %.0f s."),
    Kind.FAULT: (logging.ERROR, "%s is refused by the database: %s; trying again. Try %s in %.0f s. %s"),
    None: (logging.ERROR, "%s failed: %s; trying again. Try %s in %.0f s. Please report this."),
}
"""By kind of the error, None for one that is not the database's: level and text of the log line."""


class Trouble:
    """The failed tries of one thread at one task, from the first one until :meth:`ends`.

    Only that thread calls the methods; other threads may read the attributes at any time.

    Args:
        name: of the thread or its task, as the log shows it.
        longest: most seconds between two tries.
    """

    FIRST_PAUSE = 0.2
    """Seconds before the second try; doubled with each try, with a jitter down to the half."""
    LOG_AGAIN = (60.0, 3600.0)
    """First and longest seconds between two log lines about the same error; doubled each time."""

    def __init__(self, name: str, longest: float = 10.0) -> None:
        self.name, self.longest = name, longest
        self.text = ""
        """The last error as one line; empty while there is no trouble."""
        self.errors: Counter[str] = Counter()
        """Failed tries so far, by SQLSTATE or by the class of an error that is not the database's."""
        self._tries = 0
        self._since = 0.0
        self._log_again: dict[str, tuple[float, float]] = {}
        """By SQLSTATE or class: when the error is logged again, and the seconds between log lines after that."""

    def happens(self, error: BaseException) -> float:
        """Count and log a failed try; return the seconds until the next one."""
        now = time.monotonic()
        if not self._tries:
            self._since = now
        self._tries += 1
        is_databases = is_database_error(error)
        key = (sqlstate(error) or NO_SQLSTATE) if is_databases else type(error).__name__
        self.errors[key] += 1
        self.text = one_line(error) if is_databases else _text(error)
        at, interval = self._log_again.get(key, (0.0, self.LOG_AGAIN[0]))
        if now >= at:
            self._log_again[key] = now + interval, min(2 * interval, self.LOG_AGAIN[1])
            self._log(error, kind_of(error) if is_databases else None, now - self._since)
        return self._pause()

    def _log(self, error: BaseException, kind: Kind | None, seconds: float) -> None:
        said = [self.name, self.text, self._tries, seconds]
        if kind is Kind.FAULT:
            said.append(remedy(error))
        level, line = (logging.WARNING, _EXPORT_LINE) if isinstance(error, ExportError) else _LINES[kind]
        logger.log(level, line, *said, extra={"sqlstate": sqlstate(error), "task": self.name, "tries": self._tries})

    def _pause(self) -> float:
        # Limit the exponent: after an outage of hours the number would be no float.
        longest = min(self.longest, self.FIRST_PAUSE * 2.0 ** min(self._tries - 1, 30))
        return longest * random.uniform(0.5, 1)  # noqa: S311  (not for secrets)

    def ends(self) -> None:
        """Note that a try has succeeded; log it if a try failed before."""
        if not self._tries:
            return
        logger.warning(
            "%s works again after %.0f s and %s failed tries.", self.name, time.monotonic() - self._since, self._tries
        )
        self.text, self._tries = "", 0
        self._log_again.clear()


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, ExportError) else f"{type(error).__name__} at {places(error)}"


def places(error: BaseException) -> str:
    """Return where an error was raised, as one line without any values; the innermost place first."""
    frames = traceback.extract_tb(error.__traceback__)
    short = ["/".join(Path(frame.filename).parts[-2:]) + f":{frame.lineno} {frame.name}" for frame in frames]
    return " < ".join(reversed(short))
