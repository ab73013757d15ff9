"""Writes what Heroku Connect reads in Salesforce: edited and deleted records, bulk loads, reloads."""

from collections.abc import Mapping, Sequence
from typing import Any

from hc_signals.capture.function_reload import CLEARING_ROWS, recognises_reloads
from hc_signals.postgres import query
from hc_signals.postgres.names import quote
from hc_signals.tables import counts_as_change, mapped_columns, quoted_table
from hc_signals.testing.inventing import Inventing
from hc_signals.testing.rows import Model


class Salesforce(Inventing):
    """Changes in Salesforce, as Heroku Connect writes them into the tables."""

    def update(self, model: Model, sfid: str, /, **values: Any) -> bool:
        """Poll one record that was edited in Salesforce; return whether that made a change for receivers."""
        return bool(self.poll(model, [{"sf_id": sfid, **values}]))

    def poll(self, model: Model, records: Sequence[Mapping[str, Any]]) -> int:
        """Update or insert records, as a poll does. A row matches by sfid, then by the upsert field.

        Args:
            records: each with its ``sf_id`` and the values that the poll read.

        Returns:
            the number of changes for receivers; an unchanged record is none.
        """
        return self._write_rows(model, [self._columns(model, record) for record in records])

    def _write_rows(self, model: Model, rows: Sequence[dict[str, Any]]) -> int:
        """Update or insert rows, by column; return the number of changes for receivers."""
        before = self.changes
        stamps = self._stamps()
        new = []
        known = set(self.sfids(model, [row["sfid"] for row in rows]))
        with self._as_heroku_connect():
            for row in rows:
                key = "sfid" if row["sfid"] in known else self._unlinked_by(model, row)
                if key is None:
                    new.append(stamps | row)
                else:
                    self.changes += self._update_row(model, row, key)
            self._insert_rows(model, new)
            self.changes += len(new)
        return self.changes - before

    def _unlinked_by(self, model: Model, row: dict[str, Any]) -> str | None:
        """Return the upsert column if it matches a row without sfid: the echo came before the write-back."""
        for field in model._meta.local_concrete_fields:
            column = str(field.column)
            if getattr(field, "upsert", False) and row.get(column) is not None:
                unlinked = f"SELECT 1 FROM {quoted_table(model)} WHERE {quote(column)} = %s AND sfid IS NULL"
                if query.row(self.using, unlinked, [row[column]]):
                    return column
        return None

    def _update_row(self, model: Model, row: dict[str, Any], key: str) -> int:
        """Update one row; return 1 if the old values show a change for receivers, without asking a trigger; else 0."""
        row = {"systemmodstamp": self._now(), **row}
        mapped, existing = mapped_columns(model), self._existing(model)
        watched = [name for name in row if name in mapped and counts_as_change(name) and name != "sfid"]
        differs = " OR ".join(f"t.{quote(n)} IS DISTINCT FROM b.{quote(n)}" for n in watched) or "false"
        names = [name for name in row if name != key and name in existing]
        with self._cursor() as cursor:
            cursor.execute(
                f"UPDATE {quoted_table(model)} t SET {', '.join(f'{quote(n)} = %s' for n in names) or 'sfid = t.sfid'} "
                f"FROM {quoted_table(model)} b WHERE b.id = t.id AND t.{quote(key)} = %s RETURNING {differs}",
                [*(row[name] for name in names), row[key]],
            )
            return sum(1 for (differed,) in cursor.fetchall() if differed)

    def delete(self, model: Model, *sfids: str) -> int:
        """Delete records that were deleted in Salesforce, by a hard DELETE; return the number of rows."""
        with self._as_heroku_connect() as cursor:
            cursor.execute(f"DELETE FROM {quoted_table(model)} WHERE sfid = ANY(%s)", [list(sfids)])
            self.changes += cursor.rowcount
            return int(cursor.rowcount)

    def bulk_load(self, model: Model, count: int) -> int:
        """Load ``count`` invented records by COPY, as after a mass import in Salesforce; return ``count``."""
        stamps, sfids = self._stamps(), self._next_sfids(model, count)
        rows = zip(sfids, self._invented(model, count), strict=True)
        with self._as_heroku_connect():
            self._copy_rows(model, [stamps | {"sfid": sfid} | self._columns(model, row) for sfid, row in rows])
        self.changes += count
        return count

    def reload(self, model: Model, clear: str = "truncate") -> int:
        """Clear the table and fill it with the same records under new ids; return the number of records.

        Args:
            clear: ``truncate``, ``delete``, or ``silent`` (truncate with every trigger disabled). Heroku's
                documentation does not say which of them Heroku Connect does.
        """
        statement = "DELETE FROM" if clear == "delete" else "TRUNCATE"
        with self._as_heroku_connect() as cursor:
            rows = self._all_rows(model)
            if clear == "silent":
                cursor.execute(f"ALTER TABLE {quoted_table(model)} DISABLE TRIGGER USER")
            cursor.execute(f"{statement} {quoted_table(model)}")
        with self._as_heroku_connect() as cursor:
            self._copy_rows(model, rows)
            if clear == "silent":
                cursor.execute(f"ALTER TABLE {quoted_table(model)} ENABLE TRIGGER USER")
        self.changes += self._changes_of_reload(model, rows, clear)
        return len(rows)

    def _changes_of_reload(self, model: Model, rows: Sequence[Mapping[str, Any]], clear: str) -> int:
        """Return the number of changes that receivers are called for, after a reload of unchanged records."""
        if clear == "silent":
            return 0
        if not recognises_reloads(model):
            return len(rows) * (1 if clear == "truncate" else 2)
        if clear == "delete" and len(rows) < CLEARING_ROWS:
            return 2 * len(rows)
        return 2 * sum(1 for row in rows if row["sfid"] is None)
