"""Heroku Connect's trigger log and its archive as models: the app's writes, and Salesforce's answers."""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from django.apps.registry import Apps
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models, router, transaction

from hc_signals.heroku.trigger_log.words import TriggerLogAction, TriggerLogState, WriteAlgorithm
from hc_signals.postgres.hstore import hstore_text_to_dict
from hc_signals.postgres.moments import shown
from hc_signals.postgres.names import quote
from hc_signals.postgres.query import relation_exists, rows
from hc_signals.tables import connected_models, get_schema, quoted_table, table_parts

_EVERYWHERE = frozenset({"id", "sfid", "systemmodstamp", "isdeleted"})
"""Columns that every mapped table has, even if the model inherits the field from another mapped table."""

# hstore() has no schema, because it may be in `public` or in `heroku_ext`. Heroku Connect's own functions call it
# without a schema too, so this works wherever the app can write to the table.
# `t.*` and not `t`: a column named t would take precedence over the alias.
_CAPTURE = "SELECT {function}(hstore(t.*), %s::varchar, %s::text[]) FROM {table} t WHERE t.id = %s"

_PENDING = "UPDATE {table} SET _hc_lastop = 'PENDING', _hc_err = NULL WHERE id = %s AND _hc_lastop = 'FAILED'"


L_co = TypeVar("L_co", bound="TriggerLogAbstract", covariant=True)


class TriggerLogQuerySet(models.QuerySet[L_co]):
    """Rows of the trigger log or of its archive."""

    def failed(self) -> Self:
        """Filter the changes that Salesforce refused."""
        return self.filter(state=TriggerLogState.FAILED)

    def has_table(self) -> bool:
        """Return whether the table exists; Heroku Connect creates it with the first read-write mapping."""
        return relation_exists(self.db, quoted_table(self.model))

    def iterator(self, chunk_size: int | None = None) -> Any:
        """Yield the rows; none if there is no table, because ``dumpdata`` calls this for every model."""
        return super().iterator(chunk_size) if self.has_table() else iter(())

    def related_to(self, log: "TriggerLogAbstract") -> Self:
        """Filter the changes of the same record as ``log``, itself included."""
        return self.filter(table_name=log.table_name, record_id=log.record_id)


class TriggerLogAbstract(models.Model):
    """Base of the trigger log and its archive."""

    is_archived: ClassVar[bool] = False
    """Whether the row is in the archive."""

    id: "models.AutoField[int, int]" = models.AutoField(primary_key=True)
    txid: "models.BigIntegerField[int | None, int | None]" = models.BigIntegerField(null=True, editable=False)
    created_at: "models.DateTimeField[datetime | None, datetime | None]" = models.DateTimeField(
        null=True, editable=False
    )
    updated_at: "models.DateTimeField[datetime | None, datetime | None]" = models.DateTimeField(
        null=True, editable=False
    )
    processed_at: "models.DateTimeField[datetime | None, datetime | None]" = models.DateTimeField(
        null=True, editable=False
    )
    table_name: "models.CharField[str, str]" = models.CharField(max_length=128, editable=False)
    record_id: "models.IntegerField[int, int]" = models.IntegerField(editable=False)
    sf_id: "models.CharField[str | None, str | None]" = models.CharField(
        "Salesforce id", max_length=18, null=True, db_column="sfid", editable=False
    )
    action: "models.CharField[str, str]" = models.CharField(
        max_length=7, choices=TriggerLogAction.choices, editable=False
    )
    state: "models.CharField[str, str]" = models.CharField(max_length=8, choices=TriggerLogState.choices)
    sf_message: "models.TextField[str | None, str | None]" = models.TextField(
        "Salesforce message", null=True, editable=False
    )
    values: "models.TextField[str | None, str | None]" = models.TextField(null=True, editable=False)
    old: "models.TextField[str | None, str | None]" = models.TextField(null=True, editable=False)

    objects: ClassVar[Any] = TriggerLogQuerySet.as_manager()

    class Meta:
        abstract = True
        managed = False
        ordering = ("id",)
        get_latest_by = "created_at"
        base_manager_name = "objects"  # for `dumpdata --all`

    def __str__(self) -> str:
        """Return action, record, state and time."""
        when = shown(self.created_at) if self.created_at else "no date"
        return f"#{self.pk} {self.action} {self.table_name} {self.record_id} [{self.state}] [{when}]"

    @property
    def values_as_dict(self) -> dict[str, str | None]:
        """The new values by column; for an update, the changed ones."""
        return hstore_text_to_dict(self.values)

    @property
    def old_as_dict(self) -> dict[str, str | None]:
        """The old values by column; empty for an insert."""
        return hstore_text_to_dict(self.old)

    def get_model(self) -> type[models.Model] | None:
        """Return the connected model of the table; None if the project has none."""
        return self._model_of(self.table_name)

    def related(self, exclude_self: bool = False) -> TriggerLogQuerySet[Self]:
        """Return the rows of the same table about the same record.

        Args:
            exclude_self: leave this row out.
        """
        logs: Any = type(self).objects
        found: TriggerLogQuerySet[Self] = logs.using(self._state.db).related_to(self)
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
            update_fields: names of the model fields to send.
            update_columns: columns to send beside them. If both are empty, the whole record is sent.
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
        """Send the change to Salesforce again.

        With ordered writes, an insert or update is captured again at the end of the queue, with the record's current
        values, and this row becomes REQUEUED. With merged writes, and for deletions, the row itself becomes NEW; an
        archived row is copied to the live log. A FAILED record becomes PENDING, so that ``sync_failed`` is sent again
        if Salesforce refuses again.

        Args:
            write_algorithm: how the connection sends the app's writes.

        Returns:
            the row that Heroku Connect will send: a new one, or this one.

        Raises:
            LookupError: the change has to be captured again, but no connected model has the table.
            Model.DoesNotExist: the record is gone, or Heroku Connect has archived this row.
        """
        with transaction.atomic(using=self._state.db):
            # Heroku Connect moves rows to the archive. Without the lock, saving a moved row could insert it again.
            type(self).objects.using(self._state.db).select_for_update().get(pk=self.pk)
            self._expect_answer()
            again = self._recapture() if write_algorithm == WriteAlgorithm.ORDERED_WRITES else None
            if again is None:
                return self._renew()
            self.set_state(TriggerLogState.REQUEUED)
            return again

    def _recapture(self) -> "TriggerLog | None":
        """Capture the change again and return the new row; None for a deletion, and for an update without columns."""
        columns = list(self.values_as_dict)
        if self.action == TriggerLogAction.INSERT:
            return self.capture_insert()[0]
        if self.action == TriggerLogAction.UPDATE and columns:
            return self.capture_update(update_columns=columns)[0]
        return None

    def _expect_answer(self) -> None:
        """Make a FAILED record PENDING, as a write of the app does, but with Heroku Connect's ``xmlbinary = hex``.

        If FAILED is written over FAILED, Heroku Connect's status trigger turns it into SYNCED. Then a second refusal
        would not be visible in the record, and ``sync_failed`` would not be sent.
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
            DatabaseError: Heroku Connect has archived or purged the row.
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
        """Return the columns of the fields in the table itself, not in that of a parent."""
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
            ids = [log_id for (log_id,) in rows(alias, sql, [table_name, columns, record_id])]
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

    id: "models.IntegerField[int, int]" = models.IntegerField(primary_key=True, editable=False)

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
    """Changes that wait for Salesforce, and those that it answered a moment ago."""

    if TYPE_CHECKING:
        objects: ClassVar["TriggerLogQuerySet[TriggerLog]"]

    class Meta(TriggerLogAbstract.Meta):
        app_label = "hc_signals"
        db_table = f'{get_schema()}"."_trigger_log'
        verbose_name = "trigger log entry"
        verbose_name_plural = "trigger log"


class TriggerLogArchive(_Archive):
    """Finished changes, which Heroku Connect keeps for some days or weeks."""

    if TYPE_CHECKING:
        objects: ClassVar["TriggerLogQuerySet[TriggerLogArchive]"]

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
        schema: schema of the connection's tables. ``HEROKU_CONNECT_SCHEMA`` has :class:`TriggerLog` and
            :class:`TriggerLogArchive`. The models of another schema are in no app, admin or migration.
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
