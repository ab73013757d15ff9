"""Words of Heroku Connect's trigger log, and the parser of the records in it."""

import re
from enum import StrEnum

from django.db.models import TextChoices

_STRING = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_PAIR = re.compile(rf"\s*{_STRING}\s*=>\s*(?:{_STRING}|(NULL))\s*(,|\Z)", re.DOTALL | re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class TriggerLogAction(TextChoices):
    """What the app did to the record."""

    DELETE = "DELETE", "Delete"
    INSERT = "INSERT", "Insert"
    UPDATE = "UPDATE", "Update"


class TriggerLogState(TextChoices):
    """How far Heroku Connect has come with a change."""

    FAILED = "FAILED", "Failed"
    """Salesforce refused it; ``sf_message`` says why."""
    IGNORE = "IGNORE", "Ignore"
    """Captured, but nothing in it is to be sent."""
    IGNORED = "IGNORED", "Ignored"
    """Done with, unsent."""
    MERGED = "MERGED", "Merged"
    """Sent as part of another change of the same record."""
    NEW = "NEW", "New"
    """To be sent."""
    PENDING = "PENDING", "Pending"
    """Taken, being sent."""
    READONLY = "READONLY", "Read-only"
    """Made on a read-only mapping: never sent."""
    REQUEUE = "REQUEUE", "Requeue"
    """To be captured again."""
    REQUEUED = "REQUEUED", "Requeued"
    """Captured again: a newer entry took its place."""
    SUCCESS = "SUCCESS", "Success"
    """Salesforce has it."""


class WriteAlgorithm(StrEnum):
    """How a connection sends what the app wrote; chosen in Heroku Connect's own settings."""

    ORDERED_WRITES = "ordered_writes"
    """One change after another, in the order of the log."""
    MERGE_WRITES = "merge_writes"
    """Changes of one record are condensed into one."""


def hstore_text_to_dict(text: str | None) -> dict[str, str | None]:
    r"""Parse the text of an hstore, as it stands in ``values`` and ``old``.

    Args:
        text: such as ``"name"=>"Ada \"A\"", "email"=>NULL``; empty text and None are an empty record.

    Raises:
        ValueError: the text is not what PostgreSQL prints for an hstore; the place is named.
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
