"""Heroku Connect's trigger log and its archive as models: what the app wrote, and what became of it."""

from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar, Self

from django.apps.registry import Apps
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models, router, transaction

from hc_signals.heroku.trigger_log.words import TriggerLogAction, TriggerLogState, WriteAlgorithm, hstore_text_to_dict
from hc_signals.postgres.moments import aware
from hc_signals.tables import connected_models, get_schema, quote, quoted_table, table_parts

_EVERYWHERE = frozenset({"id", "sfid", "systemmodstamp", "isdeleted"})
"""Columns that every mapped table has, also where the model inherits the field from another mapped table."""

# hstore() stands without a schema on purpose: it may live in `public` or in `heroku_ext`, and Heroku Connect's own
# functions call hstore's functions without a schema too. So this works wherever the app can write to the table at all.
# `t.*` rather than `t`: a column named t would win over the alias.
_CAPTURE = "SELECT {function}(hstore(t.*), %s::varchar, %s::text[]) FROM {table} t WHERE t.id = %s"

_PENDING = "UPDATE {table} SET _hc_lastop = 'PENDING', _hc_err = NULL WHERE id = %s AND _hc_lastop = 'FAILED'"


class TriggerLogQuerySet(models.QuerySet["TriggerLogAbstract"]):
    """Rows of either table."""

    def failed(self) -> Self:
        """Keep what Salesforce refused."""
        return self.filter(state=TriggerLogState.FAILED)

    def has_table(self) -> bool:
        """Tell whether the table exists: Heroku Connect makes it with the first mapping that writes."""
        with connections[self.db].cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [quoted_table(self.model)])
            return bool(cursor.fetchone()[0])

    def iterator(self, chunk_size: int | None = None) -> Any:
        """Yield the rows, none where there is no table: ``dumpdata`` reads every model through this."""
        return super().iterator(chunk_size) if self.has_table() else iter(())

    def related_to(self, log: "TriggerLogAbstract") -> Self:
        """Keep the changes of the record that ``log`` is about, itself included."""
        return self.filter(table_name=log.table_name, record_id=log.record_id)


class TriggerLogAbstract(models.Model):
    """What both tables have in common."""

    is_archived: ClassVar[bool] = False
    """Whether Heroku Connect is done with the row."""

    id = models.AutoField(primary_key=True)
    txid = models.BigIntegerField(null=True, editable=False)
    created_at = models.DateTimeField(null=True, editable=False)
    updated_at = models.DateTimeField(null=True, editable=False)
    processed_at = models.DateTimeField(null=True, editable=False)
    table_name = models.CharField(max_length=128, editable=False)
    record_id = models.IntegerField(editable=False)
    sf_id = models.CharField("Salesforce id", max_length=18, null=True, db_column="sfid", editable=False)
    action = models.CharField(max_length=7, choices=TriggerLogAction.choices, editable=False)
    state = models.CharField(max_length=8, choices=TriggerLogState.choices)
    sf_message = models.TextField("Salesforce message", null=True, editable=False)
    values = models.TextField(null=True, editable=False)
    old = models.TextField(null=True, editable=False)

    objects: ClassVar[Any] = TriggerLogQuerySet.as_manager()

    class Meta:
        abstract = True
        managed = False
        ordering = ("id",)
        get_latest_by = "created_at"
        base_manager_name = "objects"  # for `dumpdata --all`

    def __str__(self) -> str:
        """Return what was done to which record, and when."""
        created_at = aware(self.created_at)
        when = f"{created_at:%Y-%m-%d %H:%M:%S%z}" if created_at else "no date"
        return f"#{self.pk} {self.action} {self.table_name} {self.record_id} [{self.state}] [{when}]"

    @property
    def values_as_dict(self) -> dict[str, str | None]:
        """The values after the change by column: of an update, the changed ones."""
        return hstore_text_to_dict(self.values)

    @property
    def old_as_dict(self) -> dict[str, str | None]:
        """The whole record before the change by column; empty for an insert."""
        return hstore_text_to_dict(self.old)

    def get_model(self) -> type[models.Model] | None:
        """Return the connected model of the table; None if the project has none (any more)."""
        return self._model_of(self.table_name)

    def related(self, exclude_self: bool = False) -> TriggerLogQuerySet:
        """Return the rows of the same table about the same record.

        Args:
            exclude_self: leave this row out.
        """
        found: TriggerLogQuerySet = type(self).objects.using(self._state.db).related_to(self)
        return found.exclude(pk=self.pk) if exclude_self else found

    @classmethod
    def capture_insert_from_model(
        cls, table_name: str, record_id: int, *, exclude_fields: Iterable[str] = (), using: str | None = None
    ) -> list["TriggerLog"]:
        """Put a record into the log as it is now, as if it had just been inserted.

        Args:
            table_name: the mapped table, without schema.
            record_id: the record's ``id`` in that table.
            exclude_fields: names of model fields to leave out; ``id`` and ``sfid`` always stay.
            using: database alias; default: where the router sends writes to the log.

        Returns:
            the new rows of the live log.

        Raises:
            LookupError: no connected model has this table.
            FieldDoesNotExist: the model has no such field, or its column is in another table.
            Model.DoesNotExist: there is no such record; of the class of the record.
        """
        columns = cls._columns(table_name, exclude_fields)
        return cls._capture("hc_capture_insert_from_row", table_name, record_id, columns, using)

    @classmethod
    def capture_update_from_model(
        cls,
        table_name: str,
        record_id: int,
        *,
        update_fields: Iterable[str] = (),
        update_columns: Iterable[str] = (),
        using: str | None = None,
    ) -> list["TriggerLog"]:
        """Put a record into the log as it is now, as if it had just been updated.

        Args:
            table_name: the mapped table, without schema.
            record_id: the record's ``id`` in that table.
            update_fields: names of the only model fields to send.
            update_columns: the same by column, together with ``update_fields``; neither of them: the whole record.
            using: database alias; default: where the router sends writes to the log.

        Returns:
            the new rows of the live log.

        Raises:
            LookupError: no connected model has this table.
            FieldDoesNotExist: the model has no such field, or its column is in another table.
            Model.DoesNotExist: there is no such record; of the class of the record.
        """
        columns = [*cls._columns(table_name, update_fields), *update_columns]
        return cls._capture("hc_capture_update_from_row", table_name, record_id, columns, using)

    def capture_insert(self, *, exclude_fields: Iterable[str] = ()) -> list["TriggerLog"]:
        """Do :meth:`capture_insert_from_model` for the record of this row, on this row's database."""
        return self.capture_insert_from_model(
            self.table_name, self.record_id, exclude_fields=exclude_fields, using=self._state.db
        )

    def capture_update(
        self, *, update_fields: Iterable[str] = (), update_columns: Iterable[str] = ()
    ) -> list["TriggerLog"]:
        """Do :meth:`capture_update_from_model` for the record of this row, on this row's database."""
        return self.capture_update_from_model(
            self.table_name,
            self.record_id,
            update_fields=update_fields,
            update_columns=update_columns,
            using=self._state.db,
        )

    def redo(self, write_algorithm: WriteAlgorithm = WriteAlgorithm.ORDERED_WRITES) -> "TriggerLogAbstract":
        """Have the change sent again.

        With ordered writes an insert or update is captured anew at the end of the queue, with the record's values of
        now, and this row becomes REQUEUED. With merged writes, and for deletions, the row itself is NEW again; an
        archived one is copied to the live log. The record itself, if FAILED, is PENDING again: so ``sync_failed`` is
        sent once more if Salesforce refuses once more.

        Args:
            write_algorithm: how the connection sends what the app wrote.

        Returns:
            the row that will be sent: a new one, or this one.

        Raises:
            LookupError: to be captured anew, but no connected model has the table.
            Model.DoesNotExist: the record is gone, or this row is (Heroku Connect archived it meanwhile).
        """
        with transaction.atomic(using=self._state.db):
            # Heroku Connect moves rows away: without the lock, saving one that is gone could bring it back.
            type(self).objects.using(self._state.db).select_for_update().get(pk=self.pk)
            self._expect_answer()
            again = self._recapture() if write_algorithm == WriteAlgorithm.ORDERED_WRITES else None
            if again is None:
                return self._renew()
            self.set_state(TriggerLogState.REQUEUED)
            return again

    def _recapture(self) -> "TriggerLog | None":
        """Return the new row; None for what cannot be captured: a record that is gone, an update of nothing."""
        columns = list(self.values_as_dict)
        if self.action == TriggerLogAction.INSERT:
            return self.capture_insert()[0]
        if self.action == TriggerLogAction.UPDATE and columns:
            return self.capture_update(update_columns=columns)[0]
        return None

    def _expect_answer(self) -> None:
        """Make a FAILED record PENDING, as a write of the app does, by a statement that is none.

        Heroku Connect's status trigger makes SYNCED of FAILED that is written over FAILED: a second refusal would not
        be seen in the record, and so not be told by ``sync_failed``.
        """
        table = f"{quote(table_parts(type(self))[0])}.{quote(self.table_name)}"
        with connections[self._state.db or router.db_for_write(type(self))].cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL, current_setting('xmlbinary')", [table])
            is_there, xmlbinary = cursor.fetchone()
            if is_there:
                cursor.execute("SELECT set_config('xmlbinary', 'hex', true)")
                cursor.execute(_PENDING.format(table=table), [self.record_id])
                cursor.execute("SELECT set_config('xmlbinary', %s, true)", [xmlbinary])

    def _renew(self) -> "TriggerLogAbstract":
        raise NotImplementedError

    def set_state(self, state: TriggerLogState) -> None:
        """Write the state and no other column.

        Raises:
            DatabaseError: the row is gone: Heroku Connect archived or purged it.
        """
        self.state = state
        self.save(using=self._state.db, update_fields=["state"])

    @classmethod
    def _model_of(cls, table_name: str) -> type[models.Model] | None:
        wanted = (table_parts(cls)[0], table_name)
        return next((model for model in connected_models() if table_parts(model) == wanted), None)

    @classmethod
    def _known_model_of(cls, table_name: str) -> type[models.Model]:
        model = cls._model_of(table_name)
        if model is None:
            raise LookupError(f"No connected model has the table {table_parts(cls)[0]}.{table_name}.")
        return model

    @classmethod
    def _columns(cls, table_name: str, names: Iterable[str]) -> list[str]:
        """Return the columns of the fields in this very table."""
        opts = cls._known_model_of(table_name)._meta
        columns = []
        for name in names:
            field = opts.get_field(name)
            column = getattr(field, "column", None)
            if column is None or not (field in opts.local_concrete_fields or column in _EVERYWHERE):
                raise FieldDoesNotExist(f"The field {name!r} of {opts.label} has no column in {table_name}.")
            columns.append(str(column))
        return columns

    @classmethod
    def _capture(
        cls, function: str, table_name: str, record_id: int, columns: list[str], using: str | None
    ) -> list["TriggerLog"]:
        model, schema = cls._known_model_of(table_name), table_parts(cls)[0]
        live = trigger_log_of(schema)[0]
        alias = using or router.db_for_write(live)
        place = quote(schema)
        sql = _CAPTURE.format(function=f"{place}.{function}", table=f"{place}.{quote(table_name)}")
        with transaction.atomic(using=alias):
            with connections[alias].cursor() as cursor:
                cursor.execute(sql, [table_name, columns, record_id])
                ids = [row[0] for row in cursor.fetchall()]
            if not ids:
                missing: type[Exception] = model.DoesNotExist  # type: ignore[attr-defined]
                raise missing(f"{model._meta.label} has no record with id {record_id} in {table_name}.")
            captured: Any = live.objects.using(alias).filter(pk__in=ids)
            return list(captured)


class _Live(TriggerLogAbstract):
    class Meta(TriggerLogAbstract.Meta):
        abstract = True

    def _renew(self) -> TriggerLogAbstract:
        self.set_state(TriggerLogState.NEW)
        return self


class _Archive(TriggerLogAbstract):
    is_archived = True

    id = models.IntegerField(primary_key=True, editable=False)

    class Meta(TriggerLogAbstract.Meta):
        abstract = True

    def _renew(self) -> TriggerLogAbstract:
        kept = ("txid", "created_at", "table_name", "record_id", "sf_id", "action", "values", "old")
        live = trigger_log_of(table_parts(type(self))[0])[0]
        copy = live(state=TriggerLogState.NEW, **{name: getattr(self, name) for name in kept})
        copy.save(using=self._state.db, force_insert=True)
        self.set_state(TriggerLogState.REQUEUED)
        return copy


class TriggerLog(_Live):
    """Changes that wait to be sent to Salesforce, and those sent a moment ago."""

    class Meta(TriggerLogAbstract.Meta):
        app_label = "hc_signals"
        db_table = f'{get_schema()}"."_trigger_log'
        verbose_name = "trigger log entry"
        verbose_name_plural = "trigger log"


class TriggerLogArchive(_Archive):
    """Changes that Heroku Connect is done with, kept for some days or weeks."""

    class Meta(TriggerLogAbstract.Meta):
        app_label = "hc_signals"
        db_table = f'{get_schema()}"."_trigger_log_archive'
        verbose_name = "archived trigger log entry"
        verbose_name_plural = "trigger log archive"


TriggerLogs = tuple[type[TriggerLog], type[TriggerLogArchive]]


@cache
def trigger_log_of(schema: str) -> TriggerLogs:
    """Return the models of the trigger log and the archive of one connection of Heroku Connect.

    Args:
        schema: of the connection's tables. That of ``HEROKU_CONNECT_SCHEMA`` has :class:`TriggerLog` and
            :class:`TriggerLogArchive`. Those of another one are in no app: neither admin nor migrations know them.
    """
    if schema == table_parts(TriggerLog)[0]:
        return TriggerLog, TriggerLogArchive
    registry = Apps()
    made: list[Any] = []
    for own, base, table in (
        (TriggerLog, _Live, "_trigger_log"),
        (TriggerLogArchive, _Archive, "_trigger_log_archive"),
    ):
        options = {"app_label": "hc_signals", "apps": registry, "db_table": f'{schema}"."{table}'}
        meta = type("Meta", (own.Meta,), options)
        made.append(type(own.__name__, (base,), {"__module__": __name__, "__doc__": own.__doc__, "Meta": meta}))
    return made[0], made[1]
