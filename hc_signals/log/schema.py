"""The shape of the log in the database: its files of SQL, its buckets, and the causes of gaps."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from hc_signals.exceptions import ConfigurationError
from hc_signals.postgres.query import relation_exists

INSTALL = (
    "01_tables.sql",
    "02_capture.sql",
    "03_reading.sql",
    "04_minutes.sql",
    "05_calls.sql",
    "06_layouts.sql",
    "07_images.sql",
    "08_waiting.sql",
)
"""Files of ``migrations_sql/`` that create the log, in this order. Beside each, a ``.down.sql`` removes it."""

BUCKETS = 8
"""Partitions of the log."""
BUCKET_SECONDS = 43_200
"""Seconds of changes that one bucket holds, as in hc_signals_bucket()."""

_CAPTURED = "table_name, operation, origin, record_key, record_id, changed, old"
INSERT_CAPTURED = f"INSERT INTO public.hc_signals_change ({_CAPTURED}, layout, image)"
"""How a capture function begins the statement that appends what it captured, as images that have a layout."""
INSERT_AS_JSON = f"INSERT INTO public.hc_signals_change ({_CAPTURED}, new)"
"""The same with both images as JSON."""


class Cause(StrEnum):
    """Why changes may have been missed: ``event.cause`` of ``gap_detected``."""

    TRUNCATE = "truncate"
    PAUSED = "paused"
    UNINSTALLED = "uninstalled"
    MODEL_MISSING = "model_missing"
    TABLE_RECREATED = "table_recreated"
    TABLE_RENAMED = "table_renamed"
    TRIGGER_MISSING = "trigger_missing"
    TRIGGER_DISABLED = "trigger_disabled"
    FUNCTION_ALTERED = "function_altered"
    COLUMNS_MISSING = "columns_missing"
    ORIGINS_MISSING = "origins_missing"
    TABLE_REWRITTEN = "table_rewritten"
    UNLOGGED_EMPTIED = "unlogged_emptied"
    CAPTURE_FAILED = "capture_failed"
    RESTORED = "restored"
    FAILED_OVER = "failed_over"
    EMPTIED = "emptied"
    BACKLOG_DROPPED = "backlog_dropped"


def bucket_table(bucket: int) -> str:
    """Return the name of a bucket's table."""
    return f"public.hc_signals_change_{bucket}"


def buckets_between(since: datetime | None, until: datetime) -> list[int]:
    """Return the buckets that can hold changes captured in between; ``since=None``: from the oldest change on."""
    if since is None:
        return list(range(BUCKETS))
    first, last = (int(time.timestamp() // BUCKET_SECONDS) for time in (since, until))
    return sorted({slot % BUCKETS for slot in range(max(first, last - BUCKETS), last + 1)})


def exists(using: str) -> bool:
    """Return whether the database has a change log."""
    return relation_exists(using, "public.hc_signals_change")


def is_current(using: str) -> bool:
    """Return whether the database has all that this version needs: it has not until migration 0006 has run."""
    return exists(using) and relation_exists(using, "public.hc_signals_log")


def require_current(using: str) -> None:
    """Raise ConfigurationError if the database has no change log, or one of an older version."""
    if not is_current(using):
        found = "is of an older version" if exists(using) else "does not exist"
        raise ConfigurationError(f"The change log {found}; run `manage.py migrate hc_signals` first.")


def install_sql(names: Sequence[str] = INSTALL) -> str:
    """Return the statements of these files, by default of all; FileNotFoundError if the installation lacks one."""
    return _read(names)


def remove_sql(names: Sequence[str] = INSTALL) -> str:
    """Return the statements that remove what these files create; it raises as :func:`install_sql` does."""
    return _read(name.replace(".sql", ".down.sql") for name in reversed(names))


def _read(names: Iterable[str]) -> str:
    package = Path(__file__).parents[1]
    is_wheel = (package / "migrations_sql").is_dir()  # in a checkout the files are beside the package
    folder = (package if is_wheel else package.parent) / "migrations_sql"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
