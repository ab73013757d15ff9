"""Sends refused children again: rows that Salesforce refused because their parent was not there yet.

A row may refer to its parent by the parent's external id. If the row reaches Salesforce first, Salesforce refuses it,
and Heroku Connect does not try again. ``hc_listen`` finds such rows by their entries of the trigger log, and does
``redo()`` once every parent has its sfid: parents before children, for a parent may have been refused as well.

It asks the tables and keeps no list of its own. So it loses no row, however the worker ends, and whatever a person does
to the trigger log.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from typing import Any

from django.db import models, transaction
from django.db.models.signals import ModelSignal

from hc_signals.conf import Conf, chosen, get_conf
from hc_signals.db.models import READ_WRITE
from hc_signals.heroku.trigger_log.models import trigger_log_of
from hc_signals.heroku.trigger_log.words import TriggerLogState
from hc_signals.postgres.names import quote
from hc_signals.postgres.query import relation_exists, rows
from hc_signals.signals import sync_failed
from hc_signals.tables import connected_models, is_connected, quoted_table, table_parts

logger = logging.getLogger("hc_signals")

Model = type[models.Model]

redo_given_up = ModelSignal()
"""A refused child was sent again MAX_ATTEMPTS times, and is refused still. Sent with ``sender`` (the model),
``instance``, ``message`` (Salesforce's answer) and ``using``."""

CHECK_EVERY = 10.0
"""Seconds between two checks: Heroku Connect reads its log as often, at most."""
MOST = 500
"""Most rows of a model that are sent again by one check."""

PARENT_IS_MISSING = "%Foreign key external ID%not found%"
"""Pattern of LIKE: Salesforce's message (``INVALID_FIELD``) when no record has the external id that a row refers to."""

# Entries of rows that are refused still. Without _hc_lastop, a row that was saved again since would be sent twice.
#
# `before` is how often the row was sent again. The live log has no index of rows, so it is read once for all of them.
_READY = """
WITH ready AS MATERIALIZED (
    SELECT f.* FROM (
        SELECT id, false AS is_archived, action, record_id, processed_at FROM {live} WHERE {refused}
        UNION ALL
        SELECT id, true, action, record_id, processed_at FROM {archive} WHERE {refused}
    ) f JOIN {child} c ON c.id = f.record_id
    WHERE c._hc_lastop = 'FAILED' AND (f.action = 'UPDATE' OR c.sfid IS NULL) AND {linked}
), live AS MATERIALIZED (
    SELECT l.record_id, count(*) AS count FROM {live} l WHERE {again} GROUP BY l.record_id
), counted AS (
    SELECT r.*, coalesce(live.count, 0) + archived.count AS before
    FROM ready r LEFT JOIN live USING (record_id),
         LATERAL (SELECT count(*) FROM {archive} l WHERE l.record_id = r.record_id AND {again}) archived
)
SELECT id, is_archived FROM counted
WHERE before < %(attempts)s
  AND (before = 0 OR processed_at IS NULL OR processed_at < clock_timestamp() - make_interval(secs => least(
       %(longest)s, %(first)s * power(2, before - 1))))
ORDER BY id LIMIT %(most)s
"""
_BEFORE = """
SELECT count(*) FROM (
    SELECT FROM {live} l WHERE {again} AND l.record_id = %(row)s
    UNION ALL SELECT FROM {archive} l WHERE {again} AND l.record_id = %(row)s
) l
"""
_REFUSED = "table_name = %(table)s AND state = 'FAILED' AND action <> 'DELETE' AND sf_message LIKE %(message)s"
_AGAIN = "l.table_name = %(table)s AND l.state = 'REQUEUED' AND l.sf_message LIKE %(message)s"
_LINKED = "(c.{column} IS NULL OR EXISTS (SELECT FROM {parent} p WHERE p.{key} = c.{column} AND p.sfid IS NOT NULL))"


@dataclass(frozen=True)
class Child:
    """A model of rows that refer to parents by the parents' external ids."""

    model: Model
    relations: tuple[Any, ...]
    """The foreign keys that do."""

    @cached_property
    def schema(self) -> str:
        """Schema of the table, and of its trigger log."""
        return table_parts(self.model)[0]

    def ready(self, using: str, conf: Conf) -> list[tuple[int, bool]]:
        """Return the refused entries whose parents are all in Salesforce and whose pause is over: id, is_archived."""
        linked = " AND ".join(
            _LINKED.format(
                column=quote(str(field.column)),
                parent=quoted_table(field.related_model),
                key=quote(str(field.target_field.column)),
            )
            for field in self.relations
        )
        live, archive = map(quoted_table, trigger_log_of(self.schema))
        sql = _READY.format(
            live=live,
            archive=archive,
            child=quoted_table(self.model),
            refused=_REFUSED,
            again=_AGAIN,
            linked=linked,
        )
        pauses = {"attempts": conf.MAX_ATTEMPTS, "first": conf.RETRY_SECONDS, "longest": conf.RETRY_MAX_SECONDS}
        return rows(using, sql, {**self._parameters, **pauses, "most": MOST})

    def sent_again(self, using: str, row_id: int) -> int:
        """Return how often a row was sent again because its parent was missing."""
        live, archive = map(quoted_table, trigger_log_of(self.schema))
        sql = _BEFORE.format(live=live, archive=archive, again=_AGAIN)
        (found,) = rows(using, sql, {**self._parameters, "row": row_id})
        return int(found[0])

    @property
    def _parameters(self) -> dict[str, Any]:
        return {"table": table_parts(self.model)[1], "message": PARENT_IS_MISSING}


def children(among: Iterable[Model]) -> list[Child]:
    """Return those of the models whose rows refer to a parent by its external id, in a read-write mapping."""
    found = []
    for model in among:
        relations = tuple(
            field
            for field in model._meta.local_concrete_fields
            if isinstance(field, models.ForeignKey)
            and is_connected(field.related_model)
            and str(field.target_field.column) not in ("sfid", "id")
        )
        if relations and getattr(model, "sf_access", "") == READ_WRITE:
            found.append(Child(model, relations))
    return found


class RefusedChildren:
    """Sends refused children again, for the models that ``REDO_CHILDREN`` chooses."""

    def __init__(self, using: str, conf: Conf) -> None:
        self._using, self._conf = using, conf
        self.children: Sequence[Child] = children(chosen("REDO_CHILDREN", conf.REDO_CHILDREN, connected_models()))

    def watch(self) -> None:
        """Send ``redo_given_up`` in this process from now on, as part of the delivery of ``sync_failed``."""
        for child in self.children:
            sync_failed.connect(give_up, sender=child.model)

    def redo(self) -> int:
        """Send those again whose parents are all in Salesforce; return their number.

        Raises:
            DatabaseError: the tables cannot be read, or the role may not write to them.
        """
        return sum(self._redo(child) for child in self.children if relation_exists(self._using, _log_of(child)))

    def run(self) -> float:
        """Do :meth:`redo`; return the seconds until the next time."""
        done = self.redo()
        if done:
            logger.info("%s refused rows were sent to Salesforce again: their parents are there now.", done)
        return CHECK_EVERY

    def _redo(self, child: Child) -> int:
        done = 0
        for log_id, is_archived in child.ready(self._using, self._conf):
            log: Any = trigger_log_of(child.schema)[is_archived]
            with transaction.atomic(using=self._using):
                # Another worker may have sent it, or Heroku Connect may have moved it to the archive.
                failed = log.objects.using(self._using).select_for_update(skip_locked=True)
                for entry in failed.filter(pk=log_id, state=TriggerLogState.FAILED):
                    entry.redo()
                    done += 1
        return done


def give_up(sender: Model, instance: models.Model, message: str, using: str, **kwargs: Any) -> None:
    """Receiver of ``sync_failed``: send ``redo_given_up`` after the last attempt."""
    (child,) = children([sender])
    is_about_parent = fnmatch(message or "", PARENT_IS_MISSING.replace("%", "*"))
    if is_about_parent and child.sent_again(using, int(instance.pk)) >= get_conf().MAX_ATTEMPTS:
        redo_given_up.send(sender=sender, instance=instance, message=message, using=using)


def _log_of(child: Child) -> str:
    return quoted_table(trigger_log_of(child.schema)[0])
