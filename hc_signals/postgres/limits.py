"""The time limits and keepalives of our own sessions and transactions, whatever the project has set for its role.

A project sets small limits for the requests of its site. They would end a session that sleeps, a long chore, or
a page that delivers a thousand changes. A page of receivers runs in the project's session, so its limits last
to the end of the transaction only; the project's code in it gets the project's limits back: see :class:`Limits`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

OWN_LIMITS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
    "transaction_timeout": "0",
    "jit": "off",
}
"""0 means none. A suspended process that has left a transaction open must lose it, or it holds its locks for ever. No
statement of ours is worth compiling."""

KEEPALIVES = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "14000",
}
"""Make the server notice within 14 seconds that the client is gone, so that its locks are free."""

NO_JIT = "SET LOCAL jit = off"
"""For the transaction of a page. The server does not plan a SET, so it cannot compile it. A SELECT of set_config() is
compiled itself if ``jit_above_cost`` is 0."""

# A receiver may take its time; idle_session_timeout does not act inside a transaction. No receiver gets jit back: it
# would hold for our statements between two receivers too.
_PAGE_LIMITS = {name: value for name, value in OWN_LIMITS.items() if name not in ("idle_session_timeout", "jit")}
_PAGE_LIMITS["idle_in_transaction_session_timeout"] = "0"

_SINCE = {"transaction_timeout": 17_00_00}
"""The first version of PostgreSQL that has the setting. PostgreSQL 14 has all others; setting an unknown one fails."""


def own_limits(*, is_local: bool, **limits: str) -> str:
    """Return the statement that gives a session or a transaction of ours the OWN_LIMITS, or other ``limits``.

    ``is_local``: to the end of the transaction, which is right everywhere. For the whole session only if the session is
    not a pooler's, and no receiver is called in it.
    """
    return f"SELECT {set_configs({**OWN_LIMITS, **limits}, is_local=is_local)}"


def set_configs(values: Mapping[str, str], *, is_local: bool) -> str:
    """Return the columns of a SELECT that makes settings; a setting that the server does not have is left out."""
    return ", ".join(_set_config(name, value, is_local) for name, value in sorted(values.items()))


def _set_config(name: str, value: str, is_local: bool) -> str:
    call = f"pg_catalog.set_config('{name}', '{value}', {str(is_local).lower()})"
    if name not in _SINCE:
        return call
    return f"CASE WHEN pg_catalog.current_setting('server_version_num')::int >= {_SINCE[name]} THEN {call} END"


_FOUND = ", ".join(f"pg_catalog.current_setting('{name}', true) AS {name}" for name in _PAGE_LIMITS)
SET_PAGE_LIMITS = f"SELECT found.*, {set_configs(_PAGE_LIMITS, is_local=True)} FROM (SELECT {_FOUND} OFFSET 0) found"
"""Statement that sets our limits to the end of a page's transaction; :meth:`Limits.of` reads its row."""


class Limits(NamedTuple):
    """The limits that a page's transaction would have without ours."""

    changed: dict[str, str]
    """The project's values, by name, that differ from our own."""

    @classmethod
    def of(cls, row: Sequence[str | None]) -> "Limits":
        """Return the limits from the only row of SET_PAGE_LIMITS."""
        found = zip(_PAGE_LIMITS, row, strict=False)
        return cls({name: value for name, value in found if value not in (None, _PAGE_LIMITS[name])})

    @property
    def project(self) -> str:
        """Statement that sets the project's limits to the end of the transaction; empty if they equal ours."""
        return f"SELECT {set_configs(self.changed, is_local=True)}" if self.changed else ""

    @property
    def own(self) -> str:
        """Statement that sets our limits again; empty if no limit of the project's differs."""
        if not self.changed:
            return ""
        return f"SELECT {set_configs({name: _PAGE_LIMITS[name] for name in self.changed}, is_local=True)}"

    @property
    def idle_seconds(self) -> float | None:
        """Seconds after which the server ends a session that is idle while a receiver runs; None: never."""
        value = self.changed.get("idle_in_transaction_session_timeout")
        return None if value is None else _seconds(value)


def _seconds(value: str) -> float:
    """Return the seconds of a value as the server shows it: ``1500ms``, ``2s``, ``1min``, ``1h``, ``1d``."""
    units = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    number = value.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * units[value[len(number) :] or "ms"]
