"""Read dates that Python cannot hold: one such value must not keep a record from its receivers."""

import datetime
from typing import Any

import psycopg
from psycopg.adapt import Loader
from psycopg.types import TypeInfo


def clamp_dates(connection: "psycopg.Connection[Any]") -> None:
    """Read ``infinity`` and years beyond Python's on this connection as ``max`` and ``min`` of their type.

    psycopg raises a DataError for them, in Django as well. In a receiver the ORM uses the same connection, so it reads
    the values that the delivered instance has.
    """
    kinds = (
        ("date", datetime.date.min, datetime.date.max),
        ("timestamp", datetime.datetime.min, datetime.datetime.max),
    )
    for name, lowest, highest in kinds:
        info = psycopg.adapters.types[name]
        connection.adapters.register_loader(info.oid, _clamping_loader(info, lowest, highest))


def _clamping_loader(info: TypeInfo, lowest: datetime.date, highest: datetime.date) -> type[Loader]:
    fast: Any = psycopg.adapters.get_loader(info.oid, psycopg.pq.Format.TEXT)

    class ClampingLoader(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._load = fast(oid, context).load

        def load(self, data: Any) -> Any:
            try:
                return self._load(data)
            except psycopg.DataError:
                text = bytes(data)
                return lowest if text.startswith(b"-") or text.endswith(b"BC") else highest

    return ClampingLoader
