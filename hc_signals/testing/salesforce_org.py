"""Salesforce's side of the connection, for what takes time: polls under way, writes without an answer yet.

Other methods of the simulator do in one step what Heroku Connect does in several. Here each step is a call, so a test
can put others in between::

    org = SalesforceOrg(HerokuConnect())
    poll = org.poll(Contact, sfid)          # Salesforce is read
    contact.save()                          # the app writes
    poll.write()                            # the older value comes back
    org.take_writes().answer()              # Salesforce gets the app's value
    org.poll(Contact, sfid).write()         # and it comes back
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from django.db.models import Model as DjangoModel

from hc_signals.postgres import query
from hc_signals.postgres.hstore import hstore_text_to_dict
from hc_signals.postgres.names import quote
from hc_signals.tables import quoted_table, table_parts
from hc_signals.testing.app_writes import Refusal
from hc_signals.testing.heroku_connect import HerokuConnect
from hc_signals.testing.rows import Model

Record = dict[str, Any]
"""The values of a record, by column."""

_OWN = ("id", "_hc_lastop", "_hc_err")
"""Columns that Salesforce does not have."""
_NOT_SENT = (*_OWN, "sfid")
_NEW = 'SELECT id, table_name, record_id, sfid, action, "values" FROM {log} WHERE state = %s ORDER BY id'
_UNSENT = """
SELECT "values", old FROM {log} WHERE state = 'NEW' AND action = 'UPDATE' AND table_name = %s AND record_id = %s
ORDER BY id DESC
"""


@dataclass
class Poll:
    """Records as a poll has read them, which are not in the table yet."""

    heroku: HerokuConnect
    model: Model
    records: dict[str, Record | None]
    """By sfid; None: there is no such record in Salesforce."""

    def write(self) -> int:
        """Write them into the table, also those that have changed since; return the number of changes for receivers."""
        before = self.heroku.changes
        existing = self.heroku._existing(self.model)
        found = [record for record in self.records.values() if record is not None]
        rows = [{name: value for name, value in record.items() if name in existing} for record in found]
        self.heroku._write_rows(self.model, rows)
        if gone := [sfid for sfid, record in self.records.items() if record is None]:
            self.heroku.delete(self.model, *gone)
        return self.heroku.changes - before


@dataclass(frozen=True)
class Write:
    """One write of the app that Salesforce has got."""

    log: str
    """The trigger log that has the entry."""
    entry: int
    """Id of the entry."""
    model: Model
    row_id: int
    action: str
    values: Record
    """By column, as texts."""
    refusal: str
    """Salesforce's message; empty: the write is accepted."""
    sfid: str | None = None


@dataclass
class Writes:
    """The app's writes that Salesforce has got, and has not answered yet."""

    heroku: HerokuConnect
    taken: list[Write] = field(default_factory=list)
    """In the order of the trigger log."""

    def answer(self) -> int:
        """Write Salesforce's answers into the rows and into the trigger log; return their number."""
        with self.heroku._as_heroku_connect():
            for each in self.taken:
                self._write(each)
        return len(self.taken)

    def _write(self, answer: Write) -> None:
        row: Record = {"_hc_lastop": "UPDATED"}
        if answer.refusal:
            row = {"_hc_lastop": "FAILED", "_hc_err": json.dumps({"msg": answer.refusal})}
        elif answer.action == "INSERT":
            row = {"_hc_lastop": "INSERTED", "sfid": answer.sfid}
        using = self.heroku.using
        if answer.action != "DELETE" and not self._is_taken(answer):
            names = ", ".join(f"{quote(name)} = %s" for name in row)
            sql = f"UPDATE {quoted_table(answer.model)} SET {names} WHERE id = %s"
            query.execute(using, sql, [*row.values(), answer.row_id])
        query.execute(
            using,
            f"UPDATE {answer.log} SET state = %s, sf_message = %s, updated_at = clock_timestamp(), "
            "processed_at = clock_timestamp(), processed_tx = txid_current() WHERE id = %s",
            ["FAILED" if answer.refusal else "SUCCESS", answer.refusal or None, answer.entry],
        )

    def _is_taken(self, answer: Write) -> bool:
        """Return whether another row has the sfid: a poll was faster, and has made a second row of the record."""
        sql = f"SELECT 1 FROM {quoted_table(answer.model)} WHERE sfid = %s AND id <> %s"
        is_new = answer.action == "INSERT" and not answer.refusal
        return is_new and query.row(self.heroku.using, sql, [answer.sfid, answer.row_id]) is not None


class SalesforceOrg:
    """The records in Salesforce. A record of the tables is taken over when it is first named, without unsent writes.

    Args:
        heroku: the simulator whose tables are polled and written to.
    """

    def __init__(self, heroku: HerokuConnect) -> None:
        self.heroku = heroku
        self._records: dict[Model, dict[str, Record | None]] = defaultdict(dict)
        self._flows: dict[Model, list[Callable[[Record], None]]] = defaultdict(list)
        self._formulas: dict[Model, dict[str, Callable[[Record], Any]]] = defaultdict(dict)

    def record(self, model: Model, sfid: str) -> Record | None:
        """Return a record with its formulas, by column; None if there is none."""
        known = self._records[model]
        if sfid not in known:
            known[sfid] = self._row(model, sfid)
        record = known[sfid]
        return None if record is None else {**record, **self._computed(model, record)}

    def edit(self, model: Model, sfid: str, /, **values: Any) -> None:
        """Edit a record in Salesforce. LookupError: it is not there."""
        self._save(model, sfid, self.heroku._columns(model, values))

    def delete(self, model: Model, sfid: str) -> None:
        """Delete a record in Salesforce."""
        self._records[model][sfid] = None

    def merge(self, model: Model, sfid: str, into: str) -> None:
        """Merge a record into another one: it is deleted, and what referred to it by sfid refers to the other one."""
        for other in self.heroku.models:
            relations: list[Any] = [each for each in other._meta.local_concrete_fields if each.related_model is model]
            for column in (str(each.column) for each in relations if each.target_field.column == "sfid"):
                for child in self._referring(other, column, sfid):
                    self._save(other, child, {column: into})
        self.delete(model, sfid)

    def add_flow(self, model: Model, change: Callable[[Record], None]) -> None:
        """Let a function change the values, by column, of each record that is saved."""
        self._flows[model].append(change)

    def add_formula(self, model: Model, name: str, compute: Callable[[Record], Any]) -> None:
        """Compute a field from the record whenever it is read. A new result does not move ``systemmodstamp``."""
        (column,) = self.heroku._columns(model, {name: None})
        self._formulas[model][column] = compute

    def poll(self, model: Model, *sfids: str) -> Poll:
        """Read records in Salesforce, for :meth:`.Poll.write`."""
        return Poll(self.heroku, model, {sfid: self.record(model, sfid) for sfid in sfids})

    def take_writes(self, refuse: str | Refusal = "") -> Writes:
        """Let Salesforce have the NEW entries of the trigger log, which become PENDING, for :meth:`.Writes.answer`.

        Args:
            refuse: Salesforce's error message for every record; or a function of model and row id that returns the
                message for this one, or an empty text.
        """
        writes, by_table = Writes(self.heroku), {table_parts(model): model for model in self.heroku.models}
        for schema in sorted({schema for schema, _ in by_table}):
            log = f"{quote(schema)}._trigger_log"
            with self.heroku._as_heroku_connect() as cursor:
                cursor.execute(_NEW.format(log=log), ["NEW"])
                entries = cursor.fetchall()
                for _, table, _, sfid, _, _ in entries:
                    if sfid and (schema, table) in by_table:
                        self.record(by_table[schema, table], sfid)  # as it is without any of these writes
                cursor.execute(
                    f"UPDATE {log} SET state = 'PENDING' WHERE id = ANY (%s)", [[each[0] for each in entries]]
                )
            for entry, table, row_id, sfid, action, values in entries:
                if (model := by_table.get((schema, table))) is None:
                    continue
                refusal = self.heroku._refusal(model, row_id, action, refuse)
                given = {name: value for name, value in hstore_text_to_dict(values).items() if name not in _NOT_SENT}
                writes.taken.append(self._take(Write(log, entry, model, row_id, action, given, refusal, sfid)))
        return writes

    def _take(self, write: Write) -> Write:
        """Save a write of the app; return it with its sfid, or with Salesforce's refusal."""
        if write.refusal:
            return write
        if write.action == "INSERT":
            (sfid,) = self.heroku._next_sfids(write.model, 1)
            self._records[write.model][sfid] = {"sfid": sfid, **self.heroku._stamps()}
            self._save(write.model, sfid, {name: value for name, value in write.values.items() if value is not None})
            return replace(write, sfid=sfid)
        known = write.sfid or self.heroku._sfid_of(write.model, write.row_id)
        if known is None or self.record(write.model, known) is None:
            return replace(write, refusal="ENTITY_IS_DELETED:entity is deleted:--")
        if write.action == "DELETE":
            self.delete(write.model, known)
        else:
            self._save(write.model, known, write.values)
        return replace(write, sfid=known)

    def _save(self, model: Model, sfid: str, values: Record) -> None:
        self.record(model, sfid)
        record = self._records[model][sfid]
        if record is None:
            raise LookupError(f"Salesforce has no {model._meta.label} {sfid}.")
        record |= values
        for change in self._flows[model]:
            change(record)
        record["systemmodstamp"] = self.heroku._now().replace(microsecond=0)

    def _computed(self, model: Model, record: Record) -> Record:
        return {column: compute(record) for column, compute in self._formulas[model].items()}

    def _row(self, model: Model, sfid: str) -> Record | None:
        with self.heroku._cursor() as cursor:
            cursor.execute(f"SELECT * FROM {quoted_table(model)} WHERE sfid = %s", [sfid])
            found = cursor.fetchone()
            names = [column.name for column in cursor.description]
        if found is None:
            return None
        record = dict(zip(names, found, strict=True))
        log = f"{quote(table_parts(model)[0])}._trigger_log"
        unsent = _UNSENT.format(log=log)
        for values, old in query.rows(self.heroku.using, unsent, [table_parts(model)[1], record["id"]]):
            before = hstore_text_to_dict(old)
            record |= {name: before[name] for name in hstore_text_to_dict(values) if name in before}
        return {name: value for name, value in record.items() if name not in _OWN}

    def _referring(self, model: Model, column: str, sfid: str) -> list[str]:
        for each in self.heroku.sfids(model):
            self.record(model, each)
        known = self._records[model].items()
        return [each for each, record in known if record is not None and record.get(column) == sfid]


def rapid_updates(org: SalesforceOrg, instance: DjangoModel, name: str, values: tuple[Any, Any]) -> Iterator[str]:
    """Play Heroku's first course: the app writes twice, and a poll brings the first value back in between.

    Yields:
        what has just happened.
    """
    model, sfid = type(instance), _sfid(org, instance)
    for value, number in zip(values, ("first", "second"), strict=True):
        setattr(instance, name, value)
        instance.save(update_fields=[name])
        yield f"the app writes its {number} value"
        if number == "first":
            writes = org.take_writes()
            poll = org.poll(model, sfid)
            yield "Salesforce has the first value, and a poll reads it"
    writes.answer()
    poll.write()
    yield "the poll brings the first value back"
    org.take_writes().answer()
    org.poll(model, sfid).write()
    yield "the poll brings the second value"


def revived_deletion(org: SalesforceOrg, instance: DjangoModel) -> Iterator[str]:
    """Play the second course: the app deletes a record, a poll brings it back, and a later poll deletes it."""
    model, sfid = type(instance), _sfid(org, instance)
    poll = org.poll(model, sfid)
    yield "a poll reads the record"
    instance.delete()
    yield "the app deletes it"
    poll.write()
    yield "the poll brings it back"
    org.take_writes().answer()
    org.poll(model, sfid).write()
    yield "a poll deletes it"


def duplicate_by_poll(org: SalesforceOrg, instance: DjangoModel) -> Iterator[str]:
    """Play the third course: a poll reads a new record of the app before its row has the sfid.

    Without an external id the poll inserts a second row, and the first one never gets its sfid.
    """
    instance.save()
    yield "the app inserts a row"
    writes = org.take_writes()
    org.poll(type(instance), str(writes.taken[-1].sfid)).write()
    yield "a poll reads the record"
    writes.answer()
    yield "Salesforce answers"


def _sfid(org: SalesforceOrg, instance: DjangoModel) -> str:
    return str(org.heroku._sfid_of(type(instance), int(instance.pk)))
