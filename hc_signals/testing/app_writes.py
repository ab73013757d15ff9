"""Writes rows as the app does, Salesforce's answer to them, and the echo of the next poll."""

import json
from typing import Any

from django.db import transaction

from hc_signals.postgres import query
from hc_signals.postgres.names import quote
from hc_signals.tables import quoted_table, table_parts
from hc_signals.testing.rows import Model
from hc_signals.testing.salesforce import Salesforce


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

    def send_app_writes(self, refuse: str = "") -> int:
        """Send the NEW entries of the trigger log, and write Salesforce's answers; return the number of entries.

        An accepted insert gets its sfid and INSERTED, an accepted update gets UPDATED.

        Args:
            refuse: Salesforce's error message. With it, every record gets FAILED. Empty: Salesforce accepts all.
        """
        done = 0
        by_table = {table_parts(model): model for model in self.models}
        for schema in sorted({schema for schema, _ in by_table}):
            log = f"{quote(schema)}._trigger_log"
            with self._as_heroku_connect() as cursor:
                cursor.execute(f"SELECT id, table_name, record_id, action FROM {log} WHERE state = 'NEW' ORDER BY id")
                for log_id, table, row_id, action in cursor.fetchall():
                    self._answer(by_table.get((schema, table)), row_id, action, refuse)
                    cursor.execute(
                        f"UPDATE {log} SET state = %s, sf_message = %s, updated_at = clock_timestamp(), "
                        "processed_at = clock_timestamp(), processed_tx = txid_current() WHERE id = %s",
                        ["FAILED" if refuse else "SUCCESS", refuse or None, log_id],
                    )
                    done += 1
        return done

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
