"""The psycopg connection during a call: messages that go past Django, and attributes that a receiver leaves changed.

Django's execute wrappers get no statement that a receiver gives to psycopg itself: ``cursor.copy()``,
``cursor.stream()``, ``connection.connection.execute()``.
"""

import threading
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from hc_signals.exceptions import LeftSettingsError

_ALWAYS = ("row_factory", "cursor_factory")
_OUTSIDE = (*_ALWAYS, "autocommit", "isolation_level", "read_only", "deferrable")
"""psycopg refuses to change the others in a transaction."""
_Lock = type(threading.RLock())


class Driver:
    """Watches the psycopg connection ``raw`` until :meth:`release`.

    Args:
        in_transaction: a transaction of ours lasts as long.
    """

    def __init__(self, raw: Any, *, in_transaction: bool) -> None:
        if not isinstance(raw.lock, _Lock):
            # psycopg holds its lock while it calls wait(); ``before`` must be able to take it again.
            raw.lock = threading.RLock()
        self.before: Callable[[], None] | None = None
        """Is called ahead of each message to the server, while a receiver runs; may send statements itself."""
        self._raw = raw
        self._names = _ALWAYS if in_transaction else _OUTSIDE
        self.values = attrgetter(*self._names)
        self.was = self.values(raw)
        """What ``values(raw)`` returns as long as no receiver has changed an attribute."""
        # Not None if a receiver delivers changes itself.
        self._outer = raw.__dict__.get("wait")
        self._wait, raw.wait = raw.wait, self._before_wait

    def _before_wait(self, *args: Any, **kwargs: Any) -> Any:
        if self.before is not None:
            self.before()
        return self._wait(*args, **kwargs)

    def changed(self) -> list[str]:
        """Return the names of attributes that a receiver has changed; set them back, if they matter in a transaction.

        Outside a transaction the connection is closed.
        """
        found = self.values(self._raw)
        if found == self.was:
            return []
        changed = {name: was for name, was, now in zip(self._names, self.was, found, strict=True) if was != now}
        for name in changed.keys() & set(_ALWAYS):
            setattr(self._raw, name, changed[name])
        return list(changed)

    def release(self) -> None:
        """Watch the connection no longer."""
        if self._outer is None:
            del self._raw.wait
        else:
            self._raw.wait = self._outer


def changed_driver_error(names: list[str]) -> LeftSettingsError:
    """Return the error that is stored for a receiver that has left these attributes changed."""
    return LeftSettingsError(
        f"The receiver changed attributes of psycopg's connection and left them so: {', '.join(names)}. They are set "
        "back, and in a transaction whatever it wrote is gone. Give a row_factory to a cursor of your own: "
        "connection.connection.cursor(row_factory=...)."
    )
