"""What happens in Salesforce and is polled: records made, edited, deleted; mass imports; reloads."""

from collections.abc import Mapping, Sequence
from typing import Any

from hc_signals.capture.function_reload import CLEARING_ROWS, is_aware
from hc_signals.tables import NOISE_COLUMNS, quote, quoted_table
from hc_signals.testing.inventing import Inventing
from hc_signals.testing.rows import Model


class Salesforce(Inventing):
    """Salesforce's side: what Heroku Connect reads there and writes into the tables."""

    def insert(self, model: Model, /, *records: Mapping[str, Any], **values: Any) -> list[str]:
        """New records in Salesforce, read in one poll; return their sfids.

        Args:
            records: values by field name; or, for one record, as keyword arguments. An ``sf_id`` may be given; a
                Geolocation is a pair, a relation a key or an instance.

        Raises:
            LookupError: the model has no such field.
        """
        rows = [self._columns(model, record) for record in (*records, *([values] if values or not records else []))]
        missing = iter(self._next_sfids(model, sum("sfid" not in row for row in rows)))
        rows = [self._stamps() | ({} if "sfid" in row else {"sfid": next(missing)}) | row for row in rows]
        with self._as_heroku_connect():
            self._insert_rows(model, rows)
        self.changes += len(rows)
        return [row["sfid"] for row in rows]

    def create(self, model: Model, count: int = 1, **values: Any) -> list[str]:
        """Insert ``count`` invented records in one poll; return their sfids.

        Unique fields get values that are not in the table yet, relations the key of a record that is, or NULL. Where
        they must not be NULL, the records that they need are created first.

        Args:
            values: values of all these records by field name, as for :meth:`insert`; only the rest is invented.

        Raises:
            LookupError: the model has no such field.
            NoValueLeftError: a field that is unique and must not be NULL has no value left.
        """
        invented = self._invented(model, count, given=frozenset(self._columns(model, values)))
        return self.insert(model, *(record | values for record in invented)) if count else []

    def update(self, model: Model, sfid: str, /, **values: Any) -> bool:
        """One record was edited in Salesforce and is polled; tell whether anything that counts changed."""
        return bool(self.poll(model, [{"sf_id": sfid, **values}]))

    def poll(self, model: Model, records: Sequence[Mapping[str, Any]]) -> int:
        """Read records as a poll does: matched by sfid, then by the upsert field, they are updated, else inserted.

        Args:
            records: each with its ``sf_id`` and the values that the poll brought.

        Returns:
            the number of changes in it that count; a record read again unchanged is none.
        """
        rows = [self._columns(model, record) for record in records]
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
        """Return the upsert column if it finds a row that has no sfid yet: the echo came before the write-back."""
        for field in model._meta.local_concrete_fields:
            column = str(field.column)
            if getattr(field, "upsert", False) and row.get(column) is not None:
                unlinked = f"SELECT 1 FROM {quoted_table(model)} WHERE {quote(column)} = %s AND sfid IS NULL"
                with self._cursor() as cursor:
                    cursor.execute(unlinked, [row[column]])
                    if cursor.fetchone():
                        return column
        return None

    def _update_row(self, model: Model, row: dict[str, Any], key: str) -> int:
        """Update one row and tell by its old values, not by any trigger, whether a change that counts was made."""
        row = {"systemmodstamp": self._now(), **row}
        mapped, existing = self._mapped(model), self._existing(model)
        watched = [name for name in row if name not in NOISE_COLUMNS and name in mapped]
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
        """Records were deleted in Salesforce: a hard DELETE; return how many rows went."""
        with self._as_heroku_connect() as cursor:
            cursor.execute(f"DELETE FROM {quoted_table(model)} WHERE sfid = ANY(%s)", [list(sfids)])
            self.changes += cursor.rowcount
            return int(cursor.rowcount)

    def bulk_load(self, model: Model, count: int) -> int:
        """Load ``count`` invented records by COPY, as after a mass import in Salesforce; return the count."""
        stamps, sfids = self._stamps(), self._next_sfids(model, count)
        rows = zip(sfids, self._invented(model, count), strict=True)
        with self._as_heroku_connect():
            self._copy_rows(model, [stamps | {"sfid": sfid} | self._columns(model, row) for sfid, row in rows])
        self.changes += count
        return count

    def reload(self, model: Model, clear: str = "truncate") -> int:
        """Clear the table and fill it again with the same records under new ids; return how many.

        Args:
            clear: ``truncate``, ``delete``, or ``silent``: as ``truncate``, with every trigger switched off. Which of
                them Heroku Connect uses is documented nowhere.
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
        """Return how many changes receivers hear of, for a table filled with the very rows that were in it."""
        if clear == "silent":
            return 0
        if not is_aware(model):
            return len(rows) * (1 if clear == "truncate" else 2)
        if clear == "delete" and len(rows) < CLEARING_ROWS:
            return 2 * len(rows)
        return 2 * sum(1 for row in rows if row["sfid"] is None)
