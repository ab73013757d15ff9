"""The capture functions of a database, as a session has read them; and what they should be.

The source of a function is long. So a session reads it once, and again if the function's row in the catalog has become
another one. Of the source a digest is kept.
"""

import hashlib
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from django.db import connections, models

from hc_signals.capture.function import function_body, is_genuine
from hc_signals.capture.function_columns import Layout, read_layout
from hc_signals.conf import get_conf
from hc_signals.origins import Rules
from hc_signals.tables import table_label


@dataclass(frozen=True)
class InstalledFunction:
    """One capture function in the catalog."""

    version: str
    """Object id, transaction and place of its row in the catalog: CREATE OR REPLACE and ALTER change them."""
    digest: str
    """Digest of its source: see :func:`body_digest`."""
    layout: Layout | None
    """The columns that it captures; None if a person has made them unreadable."""
    is_genuine: bool
    """True if it is unaltered since any version of this package generated it, for any model."""


class InstalledFunctions:
    """The capture functions that one session has read, by name."""

    def __init__(self) -> None:
        self._known: dict[str, InstalledFunction] = {}

    @classmethod
    def of_session(cls, using: str) -> "InstalledFunctions":
        """Return those of the calling thread's session; another session may be of another server."""
        connection = connections[using]
        connection.ensure_connection()
        return _of_session.setdefault(connection.connection, cls())

    def version(self, name: str) -> str | None:
        """Return the version of a function that was read last; None if none was."""
        found = self._known.get(name)
        return found.version if found else None

    def take(self, name: str, version: str | None, source: str | None) -> InstalledFunction | None:
        """Return a function as it was found; ``source`` is None if this version was read before."""
        if version is None:
            return self._known.pop(name, None) and None
        if source is not None:
            text = source.strip()
            self._known[name] = InstalledFunction(version, _digest(text), read_layout(text), is_genuine(text))
        return self._known[name]


_of_session: MutableMapping[Any, InstalledFunctions] = WeakKeyDictionary()
"""By psycopg's connection."""


def body_digest(model: type[models.Model], layout: Layout) -> str:
    """Return the digest of the source that the capture function of a model should have."""
    conf = get_conf()
    chosen = conf.RELOAD_AWARE
    choice = chosen if isinstance(chosen, bool) else tuple(chosen)
    return _body_digest(model, table_label(model), layout, conf.origin_rules, choice)


# A function depends on table, rules and RELOAD_AWARE too. To generate it takes 100 times as long as to compare it.
@lru_cache(maxsize=10_000)
def _body_digest(
    model: type[models.Model], table: str, layout: Layout, rules: Rules, reload_aware: bool | Sequence[str]
) -> str:
    return _digest(function_body(model, layout).strip())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
