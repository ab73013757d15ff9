"""Finds the changes of one record, by the index of records; which consumers still wait for them; keeps the index."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, models, transaction

from hc_signals.log.change import CHANGE_COLUMNS, Change
from hc_signals.log.schema import BUCKETS
from hc_signals.postgres.query import relation_exists, row, rows
from hc_signals.tables import quoted_table, table_label

NEWEST = 2**63 - 1
"""Above every id."""

_EXISTS = "SELECT to_regprocedure('public.hc_signals_of_record(text,text,text[],bigint,bigint,integer)') IS NOT NULL"
_OF_RECORD = "SELECT public.hc_signals_of_record(%s, %s, %s, %s, %s, %s)"
_SUMMARIZE = """
SELECT n.bucket, public.hc_signals_summarize(n.bucket, n.done)
FROM unnest(%s::integer[], %s::bigint[]) AS n (bucket, done)
"""
# A deleted row with the same sfid may still be there while Heroku Connect writes the new one: the newest counts.
_ROW = "SELECT id::text, sfid FROM {table} WHERE {column} = %s ORDER BY id DESC LIMIT 1"
_WAITING = """
SELECT c.id, p.consumer FROM public.hc_signals_change c, public.hc_signals_newest_position p
WHERE c.id = ANY (%s) AND p.shard = public.hc_signals_shard_of(c.table_name, c.record_id, c.record_key, p.shards)
  AND NOT pg_visible_in_snapshot(c.xid, p.seen)
  AND NOT coalesce(pg_visible_in_snapshot(c.xid, p.target) AND c.id <= p.last_id, false)
ORDER BY c.id, p.consumer
"""
_ONE = f"SELECT id, {CHANGE_COLUMNS}, old ->> 'sfid' FROM public.hc_signals_log WHERE id = %s"
_SHORT, _LONG = 15, 18
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


@dataclass(frozen=True)
class RecordKeys:
    """How the log names a record of a connected table."""

    table: str
    sfid: str | None
    """None: Salesforce has not given it one."""
    key: str | None
    """Its id in the table; None: not known. It may have had others, before the table was reloaded."""
    in_table: bool
    """The table has it now."""


@dataclass(frozen=True)
class Found:
    """Changes that were found."""

    ids: list[int]
    """The newest first."""
    unsearched: int | None
    """Changes up to this id were not all searched, as a bucket has no index of records yet; None: all were."""


def exists(using: str) -> bool:
    """Return whether the database can find the changes of a record: not before migration 0004 has run."""
    return bool(row(using, _EXISTS)[0])


def long_sfid(text: str) -> str:
    """Return the sfid of 18 characters for one of 15, to which Salesforce's older pages shorten it; others unchanged.

    The last three characters say which of the others are capitals.
    """
    if len(text) != _SHORT or not (text.isascii() and text.isalnum()):
        return text
    parts = (text[start : start + 5] for start in (0, 5, 10))
    return text + "".join(_LETTERS[sum(each.isupper() << bit for bit, each in enumerate(part))] for part in parts)


def find_record(using: str, model: type[models.Model], text: str) -> RecordKeys:
    """Return the record of a connected model that a text names: its sfid (15 or 18 characters), or its id."""
    table, text = table_label(model), long_sfid(text)
    is_key = text.isascii() and text.isdigit() and len(text) not in (_SHORT, _LONG)
    found = _row_of(using, model, "id" if is_key else "sfid", text)
    if found is not None:
        return RecordKeys(table, found[1], found[0], in_table=True)
    return RecordKeys(table, None if is_key else text, text if is_key else None, in_table=False)


def _row_of(using: str, model: type[models.Model], column: str, text: str) -> tuple[str, str | None] | None:
    """Return id and sfid of a row of the table; None if there is none, or the table has other columns."""
    table = quoted_table(model)
    if not relation_exists(using, table):
        return None
    try:
        with transaction.atomic(using=using):
            value = int(text) if column == "id" else text
            found: tuple[str, str | None] | None = row(using, _ROW.format(table=table, column=column), [value])
            return found
    except DatabaseError:
        return None


def changes_of(using: str, record: RecordKeys, keys: Iterable[str], before: int, size: int) -> Found:
    """Return the newest changes of a record with ids below ``before``, at most ``size``.

    ``keys`` are ids in the table under which it may have been captured before it had its sfid.
    """
    return _found(using, [record.table, record.sfid, sorted(keys), 0, before, size])


def table_changes(using: str, table: str, after: int, before: int, size: int) -> Found:
    """Return the newest rows of the log with ids in between that concern a whole table: gaps, reloads."""
    return _found(using, [table, None, [], after, before, size])


def _found(using: str, params: list[Any]) -> Found:
    (found,) = row(using, _OF_RECORD, params)
    return Found(found["ids"], found["unsearched"])


def one_change(using: str, number: int) -> tuple[Change, str | None] | None:
    """Return a change by its id, and the sfid in its old image, which may be None; None if the log does not hold it."""
    found = row(using, _ONE, [number])
    return (Change(*found[:-1]), found[-1]) if found else None


def waiting_consumers(using: str, ids: Iterable[int]) -> Mapping[int, list[str]]:
    """Return the consumers whose position is not past each of these changes; nothing for those that none waits for."""
    found: dict[int, list[str]] = {}
    for number, consumer in rows(using, _WAITING, [list(ids)]):
        found.setdefault(number, []).append(consumer)
    return found


def summarize(using: str, done: Sequence[int]) -> list[int]:
    """Summarize pages of the log that are full, so that records are found in them, for some seconds at most.

    ``done`` has the number of ranges of pages, by bucket, that were summarized before; the new numbers are returned. If
    they differ, there may be more to do.
    """
    found = dict(rows(using, _SUMMARIZE, [list(range(BUCKETS)), list(done)]))
    return [found[bucket] for bucket in range(BUCKETS)]
