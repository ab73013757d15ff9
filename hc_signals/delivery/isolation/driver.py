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
_values: dict[tuple[str, ...], Callable[[Any], Any]] = {names: attrgetter(*names) for names in (_ALWAYS, _OUTSIDE)}
_Lock = type(threading.RLock())


class Driver:
    """The psycopg connection ``raw`` during one call, until :meth:`release`.

    Args:
        before: is called ahead of each message to the server; may send statements itself.
        in_transaction: the call is in a transaction of ours.
    """

    __slots__ = ("_before", "_names", "_outer", "_raw", "_wait", "_was")

    def __init__(self, raw: Any, before: Callable[[], None], *, in_transaction: bool) -> None:
        if not isinstance(raw.lock, _Lock):
            # psycopg holds its lock while it calls wait(); ``before`` must be able to take it again.
            raw.lock = threading.RLock()
        self._raw, self._before = raw, before
        self._names = _ALWAYS if in_transaction else _OUTSIDE
        self._was = _values[self._names](raw)
        # Not None if a receiver of this call delivers changes itself.
        self._outer = raw.__dict__.get("wait")
        self._wait, raw.wait = raw.wait, self._before_wait

    def _before_wait(self, *args: Any, **kwargs: Any) -> Any:
        self._before()
        return self._wait(*args, **kwargs)

    def release(self) -> list[str]:
        """Watch the connection no longer; return the names of changed attributes, which are set back in a transaction.

        Outside a transaction the connection is closed for it.
        """
        raw = self._raw
        if self._outer is None:
            del raw.wait
        else:
            raw.wait = self._outer
        found = _values[self._names](raw)
        if found == self._was:
            return []
        changed = {name: was for name, was, now in zip(self._names, self._was, found, strict=True) if was != now}
        for name in changed.keys() & set(_ALWAYS):
            setattr(raw, name, changed[name])
        return list(changed)


def changed_driver_error(names: list[str]) -> LeftSettingsError:
    """Return the error that is stored for a receiver that has left these attributes changed."""
    return LeftSettingsError(
        f"The receiver changed attributes of psycopg's connection and left them so: {', '.join(names)}. They are set "
        "back, and in a transaction whatever it wrote is gone. Give a row_factory to a cursor of your own: "
        "connection.connection.cursor(row_factory=...)."
    )
