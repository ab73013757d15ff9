"""States and actions of Heroku Connect's trigger log, and a parser of its records."""

import re
from enum import StrEnum

from django.db.models import TextChoices

_STRING = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_PAIR = re.compile(rf"\s*{_STRING}\s*=>\s*(?:{_STRING}|(NULL))\s*(,|\Z)", re.DOTALL | re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


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


def hstore_text_to_dict(text: str | None) -> dict[str, str | None]:
    r"""Parse the text of an hstore, such as ``values`` and ``old``.

    Args:
        text: such as ``"name"=>"Ada \"A\"", "email"=>NULL``; empty text and None are an empty record.

    Raises:
        ValueError: the text is not an hstore as PostgreSQL prints it. The message names the position.
    """
    pairs: dict[str, str | None] = {}
    position, comma = 0, ""
    rest = (text or "").rstrip()
    while position < len(rest) or comma:
        match = _PAIR.match(rest, position)
        if match is None:
            near = rest[position : position + 40]
            raise ValueError(f'No "key"=>"value" of an hstore at character {position}: {near!r}.')
        key, value, null, comma = match.groups()
        pairs[_unescape(key)] = None if null else _unescape(value)
        position = match.end()
    return pairs


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
