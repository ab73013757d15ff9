"""States and actions of Heroku Connect's trigger log."""

from enum import StrEnum

from django.db.models import TextChoices


class TriggerLogAction(TextChoices):
    """The app's write."""

    DELETE = "DELETE", "Delete"
    INSERT = "INSERT", "Insert"
    UPDATE = "UPDATE", "Update"


class TriggerLogState(TextChoices):
    """How far Heroku Connect has processed a change."""

    FAILED = "FAILED", "Failed"
    """Salesforce refused it; ``sf_message`` says why."""
    IGNORE = "IGNORE", "Ignore"
    """Captured, with nothing to send."""
    IGNORED = "IGNORED", "Ignored"
    """Finished without sending."""
    MERGED = "MERGED", "Merged"
    """Sent as part of another change of the same record."""
    NEW = "NEW", "New"
    """To be sent."""
    PENDING = "PENDING", "Pending"
    """Heroku Connect is sending it."""
    READONLY = "READONLY", "Read-only"
    """Written to a read-only mapping, so not sent."""
    REQUEUE = "REQUEUE", "Requeue"
    """To be captured again."""
    REQUEUED = "REQUEUED", "Requeued"
    """Captured again; a newer entry replaces it."""
    SUCCESS = "SUCCESS", "Success"
    """Salesforce accepted it."""


class WriteAlgorithm(StrEnum):
    """How a connection sends the app's writes; a setting of Heroku Connect."""

    ORDERED_WRITES = "ordered_writes"
    """One change after another, in the order of the log."""
    MERGE_WRITES = "merge_writes"
    """Changes of one record are merged into one."""
