"""Writes rows as the app does, Salesforce's answer to them, and the echo of the next poll."""

import json
from collections.abc import Callable
from typing import Any

from django.db import transaction

from hc_signals.postgres import query
from hc_signals.postgres.names import quote
from hc_signals.tables import quoted_table, table_parts
from hc_signals.testing.rows import Model
from hc_signals.testing.salesforce import Salesforce

Refusal = Callable[[Model, int], str]
"""Returns Salesforce's message for a row, by model and row id; an empty text if Salesforce accepts the row."""


class AppWrites(Salesforce):
    """The way of an app's write: to the trigger log, to Salesforce and back."""

    def app_insert(self, model: Model, /, **values: Any) -> int:
        """Insert a record as the app does: no sfid yet, PENDING, in the trigger log; return the row's id."""
        row = self._columns(model, values)
        with transaction.atomic(using=self.using):
            return self._insert_rows(model, [row])[0]

    def app_update(self, model: Model, row_id: int, /, **values: Any) -> None:
        """Update a record as the app does."""
        row = self._columns(model, values)
        names = ", ".join(f"{quote(name)} = %s" for name in row)
        with transaction.atomic(using=self.using):
            query.execute(
                self.using, f"UPDATE {quoted_table(model)} SET {names} WHERE id = %s", [*row.values(), row_id]
            )

    def send_app_writes(self, refuse: str | Refusal = "") -> int:
        """Send the NEW entries of the trigger log, and write Salesforce's answers; return the number of entries.

        An accepted insert gets its sfid and INSERTED, an accepted update gets UPDATED. A refused record gets FAILED.
        Salesforce refuses a record that refers, by an external id, to a parent that has no sfid.

        Args:
            refuse: Salesforce's error message for every record; or a function of model and row id that returns the
                message for this one, or an empty text.
        """
        done = 0
        by_table = {table_parts(model): model for model in self.models}
        for schema in sorted({schema for schema, _ in by_table}):
            log = f"{quote(schema)}._trigger_log"
            with self._as_heroku_connect() as cursor:
                cursor.execute(f"SELECT id, table_name, record_id, action FROM {log} WHERE state = 'NEW' ORDER BY id")
                for log_id, table, row_id, action in cursor.fetchall():
                    model = by_table.get((schema, table))
                    refusal = self._refusal(model, row_id, action, refuse)
                    self._answer(model, row_id, action, refusal)
                    cursor.execute(
                        f"UPDATE {log} SET state = %s, sf_message = %s, updated_at = clock_timestamp(), "
                        "processed_at = clock_timestamp(), processed_tx = txid_current() WHERE id = %s",
                        ["FAILED" if refusal else "SUCCESS", refusal or None, log_id],
                    )
                    done += 1
        return done

    def _refusal(self, model: Model | None, row_id: int, action: str, refuse: str | Refusal) -> str:
        if isinstance(refuse, str) and refuse:
            return refuse
        if model is None or action == "DELETE":
            return ""
        refusal = "" if isinstance(refuse, str) else refuse(model, row_id)
        return refusal or self._missing_parent(model, row_id)

    def _missing_parent(self, model: Model, row_id: int) -> str:
        """Return Salesforce's message if a row refers by an external id to a parent that is not there."""
        from hc_signals.writes.children import children  # needs the project's settings

        for child in children([model]):
            for field in child.relations:
                parent, key = field.related_model, field.target_field
                missing = query.row(
                    self.using,
                    f"SELECT c.{quote(field.column)} FROM {quoted_table(model)} c "
                    f"WHERE c.id = %s AND c.{quote(field.column)} IS NOT NULL AND NOT EXISTS ("
                    f"SELECT FROM {quoted_table(parent)} p "
                    f"WHERE p.{quote(key.column)} = c.{quote(field.column)} AND p.sfid IS NOT NULL)",
                    [row_id],
                )
                if missing:
                    name = getattr(key, "sf_field_name", key.name)
                    return (
                        f"INVALID_FIELD:Foreign key external ID: {missing[0]} not found for field {name} "
                        f"in entity {self._object_name(parent)}:--"
                    )
        return ""

    def _answer(self, model: Model | None, row_id: int, action: str, refuse: str) -> None:
        if model is None or action == "DELETE":
            return
        if refuse:
            answer: dict[str, Any] = {"_hc_lastop": "FAILED", "_hc_err": json.dumps({"msg": refuse})}
        elif action == "INSERT":
            # If the echo came first, the row has Salesforce's id already.
            answer = {"_hc_lastop": "INSERTED", "sfid": self._sfid_of(model, row_id) or self._next_sfids(model, 1)[0]}
        else:
            answer = {"_hc_lastop": "UPDATED"}
        names = ", ".join(f"{quote(name)} = %s" for name in answer)
        query.execute(self.using, f"UPDATE {quoted_table(model)} SET {names} WHERE id = %s", [*answer.values(), row_id])

    def _sfid_of(self, model: Model, row_id: int) -> str | None:
        found = query.row(self.using, f"SELECT sfid FROM {quoted_table(model)} WHERE id = %s", [row_id])
        return found[0] if found else None

    def echo(self, model: Model, /, **computed: Any) -> int:
        """Poll the records that the app wrote: they get SYNCED, new stamps, and values that Salesforce computed.

        Args:
            computed: the values that Salesforce computed, by field name, for all of the records.

        Returns:
            the number of rows.
        """
        values = {"isdeleted": False} | self._columns(model, computed)
        with self._as_heroku_connect() as cursor:
            cursor.execute(
                f"SELECT id FROM {quoted_table(model)} WHERE _hc_lastop IN ('INSERTED', 'UPDATED') ORDER BY id"
            )
            ids = [row[0] for row in cursor.fetchall()]
            for row_id in ids:
                row = {"id": row_id, "createddate": self._now(), "_hc_lastop": "SYNCED", **values}
                self.changes += self._update_row(model, row, key="id")
        return len(ids)
