"""The time limits under which our own transactions run, whatever the project has set for its role or database.

A limit of the project's is meant for its own work: ``statement_timeout = '5s'`` must not end a page that delivers a
thousand changes. So our statements run without, for the length of the transaction only: nothing stays in the session,
which may be a pooler's. What runs in the transaction for the project gets the project's limits back: see
:meth:`Limits.project`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hc_signals.postgres.limits import OWN_LIMITS

# A receiver may take its time; idle_session_timeout does not strike in a transaction.
_OWN = {name: value for name, value in OWN_LIMITS.items() if name != "idle_session_timeout"}
_OWN["idle_in_transaction_session_timeout"] = "0"
_SINCE = {"transaction_timeout": 17_00_00}
"""The first version of PostgreSQL that has it; all others are older than what we ask for."""


def _own(version: int) -> dict[str, str]:
    return {name: value for name, value in _OWN.items() if version >= _SINCE.get(name, 0)}


class Limits(NamedTuple):
    """What a transaction would have had without ours."""

    changed: dict[str, str]
    """The project's values, by name, of those that differ from our own."""

    @classmethod
    def of(cls, version: int, row: Sequence[str]) -> "Limits":
        """Return the limits that the statement :func:`own_limits` has found.

        Args:
            version: of the server, as Django has it (150004).
            row: its only row.
        """
        own = _own(version)
        found = dict(zip(own, row, strict=False))
        return cls({name: value for name, value in found.items() if value != own[name]})

    @property
    def project(self) -> str:
        """Statement that sets what the project wants, to the end of the transaction; empty if that is what we have."""
        return _set(self.changed)

    @property
    def own(self) -> str:
        """Statement that sets our own again; empty if no limit of the project's differs."""
        # jit alone is not worth it: between receivers we send single-row statements only.
        limits = self.changed.keys() - {"jit"}
        return _set({name: _OWN[name] for name in self.changed}) if limits else ""

    @property
    def idle_seconds(self) -> float | None:
        """After how many idle seconds the server ends the session while a receiver has it; None: never."""
        value = self.changed.get("idle_in_transaction_session_timeout")
        return None if value is None else _seconds(value)


def own_limits(version: int) -> str:
    """Return the statement that sets our own limits to the end of the transaction; its row is for :class:`Limits`."""
    own = _own(version)
    found = ", ".join(f"pg_catalog.current_setting('{name}') AS {name}" for name in own)
    ours = ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in own.items())
    return f"SELECT found.*, {ours} FROM (SELECT {found} OFFSET 0) found"


def _set(values: dict[str, str]) -> str:
    calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in sorted(values.items()))
    return f"SELECT {calls}" if calls else ""


def _seconds(value: str) -> float:
    """Return seconds of a value as the server shows it: ``1500ms``, ``2s``, ``1min``, ``1h``, ``1d``."""
    units = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    number = value.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number) * units[value[len(number) :] or "ms"]
