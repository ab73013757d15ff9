"""Models of the log's tables, for admin and commands, and of the trigger log.

Table names include the schema, because the search_path of a role or database may lack ``public``.
"""

from datetime import datetime
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models

from hc_signals.heroku.trigger_log.models import TriggerLog, TriggerLogArchive, TriggerLogQuerySet, trigger_log_of
from hc_signals.heroku.trigger_log.words import TriggerLogAction, TriggerLogState
from hc_signals.tables import model_label

__all__ = (
    "TRIGGER_LOG_ACTION",
    "TRIGGER_LOG_ACTION_CHOICES",
    "TRIGGER_LOG_STATE",
    "TRIGGER_LOG_STATE_CHOICES",
    "Change",
    "ConnectedTable",
    "Delivery",
    "ImageField",
    "Minute",
    "Position",
    "TriggerLog",
    "TriggerLogArchive",
    "TriggerLogQuerySet",
    "trigger_log_of",
)

TRIGGER_LOG_ACTION = TriggerLogAction
TRIGGER_LOG_ACTION_CHOICES = sorted(TriggerLogAction.choices)
TRIGGER_LOG_STATE = TriggerLogState
TRIGGER_LOG_STATE_CHOICES = sorted(TriggerLogState.choices)


class ImageField(models.JSONField):
    """A ``json`` column. psycopg parses its values; those of ``jsonb`` Django parses itself."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value if not isinstance(value, str) else super().from_db_value(value, expression, connection)

    def db_type(self, connection: Any) -> str:
        return "json"


class Change(models.Model):
    """One change of one record, as its capture trigger wrote it."""

    id: "models.BigIntegerField[int, int]" = models.BigIntegerField(primary_key=True)
    captured_at: "models.DateTimeField[datetime, datetime]" = models.DateTimeField()
    table_name: "models.TextField[str, str]" = models.TextField()
    operation: "models.TextField[str, str]" = models.TextField()
    origin: "models.TextField[str, str]" = models.TextField()
    record_key: "models.TextField[str | None, str | None]" = models.TextField(null=True)
    record_id: "models.TextField[str | None, str | None]" = models.TextField(null=True)
    changed = ArrayField(models.TextField(), null=True)
    old = ImageField(null=True)
    new = ImageField(null=True)
    note = ImageField(null=True)
    depth: "models.SmallIntegerField[int, int]" = models.SmallIntegerField()
    bucket: "models.SmallIntegerField[int, int]" = models.SmallIntegerField()
    layout: "models.BigIntegerField[int | None, int | None]" = models.BigIntegerField(null=True)
    image = ArrayField(models.TextField(null=True), null=True)

    class Meta:
        managed = False
        db_table = 'public"."hc_signals_log'
        default_permissions = ("view",)
        permissions = (("redeliver_change", "Can deliver a change again"),)
        ordering = ("id",)

    def __str__(self) -> str:
        return f"Change {self.id} of {model_label(self.table_name)}"


class Position(models.Model):
    """How far a consumer is in one shard; the newest row counts."""

    id: "models.BigIntegerField[int, int]" = models.BigIntegerField(primary_key=True)
    consumer: "models.TextField[str, str]" = models.TextField()
    shard: "models.SmallIntegerField[int, int]" = models.SmallIntegerField()
    shards: "models.SmallIntegerField[int, int]" = models.SmallIntegerField()
    last_id: "models.BigIntegerField[int | None, int | None]" = models.BigIntegerField(null=True)
    created_at: "models.DateTimeField[datetime, datetime]" = models.DateTimeField()

    class Meta:
        managed = False
        db_table = 'public"."hc_signals_position'
        ordering = ("id",)
        default_permissions = ("view",)
        verbose_name_plural = "consumers and shards"


class Delivery(models.Model):
    """A failed delivery of one event to one receiver: due for a retry, parked behind an earlier one, or dead."""

    class State(models.TextChoices):
        RETRY = "retry"
        PARKED = "parked"
        DEAD = "dead"

    id: "models.BigAutoField[int, int]" = models.BigAutoField(primary_key=True)
    consumer: "models.TextField[str, str]" = models.TextField()
    receiver: "models.TextField[str, str]" = models.TextField()
    signal: "models.TextField[str, str]" = models.TextField()
    sender: "models.TextField[str, str]" = models.TextField()
    state: "models.TextField[str, str]" = models.TextField(choices=State.choices)
    attempt: "models.IntegerField[int, int]" = models.IntegerField()
    next_attempt_at: "models.DateTimeField[datetime | None, datetime | None]" = models.DateTimeField(null=True)
    error: "models.TextField[str, str]" = models.TextField()
    created_at: "models.DateTimeField[datetime, datetime]" = models.DateTimeField(auto_now_add=True)
    change_id: "models.BigIntegerField[int, int]" = models.BigIntegerField()
    captured_at: "models.DateTimeField[datetime, datetime]" = models.DateTimeField()
    table_name: "models.TextField[str, str]" = models.TextField()
    operation: "models.TextField[str, str]" = models.TextField()
    origin: "models.TextField[str, str]" = models.TextField()
    record_key: "models.TextField[str | None, str | None]" = models.TextField(null=True)
    record_id: "models.TextField[str | None, str | None]" = models.TextField(null=True)
    changed = ArrayField(models.TextField(), null=True)
    old = ImageField(null=True)
    new = ImageField(null=True)
    note = ImageField(null=True)

    class Meta:
        managed = False
        db_table = 'public"."hc_signals_delivery'
        default_permissions = ("change", "delete", "view")
        ordering = ("id",)
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"Delivery {self.id} of {model_label(self.table_name)} to {self.receiver}"


class Minute(models.Model):
    """What one worker process did in one minute; gives the overview of the admin its place and its permission."""

    id: "models.BigIntegerField[int, int]" = models.BigIntegerField(primary_key=True)
    minute: "models.DateTimeField[datetime, datetime]" = models.DateTimeField()
    consumer: "models.TextField[str, str]" = models.TextField()
    figures = ImageField()

    class Meta:
        managed = False
        db_table = 'public"."hc_signals_minute'
        default_permissions = ("view",)
        ordering = ("minute", "id")
        verbose_name = verbose_name_plural = "overview"


class ConnectedTable(Change):
    """Gives the admin's page of capture triggers its place and its permissions; it has no rows of its own.

    It is a proxy, because ``dumpdata`` fails on a model without a table.
    """

    class Meta:
        proxy = True
        default_permissions = ("view",)
        permissions = (("install_connectedtable", "Can install capture triggers"),)
        verbose_name = "capture trigger"
