"""Each rule has one home: tables, the current bucket, causes of gaps and lock keys are written there and nowhere else.

EXCEPTIONS may only shrink. An entry that is not needed fails.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.db import connection

from hc_signals.log.schema import BUCKETS, Cause, buckets_between
from tests.conftest import ROOT

LOG, CAPTURE, DELIVERY = "hc_signals/log/", "hc_signals/capture/", "hc_signals/delivery/"
HOMES = {
    "change": LOG,
    "log": LOG,
    "layout": f"{CAPTURE}function.py",
    "change_id_seq": LOG,
    "position": LOG,
    "newest_position": LOG,
    "control": LOG,
    "passed": LOG,
    "minute": f"{LOG}minutes.py",
    "heard": LOG,
    "calls_of": f"{LOG}heard.py",
    "of_record": f"{LOG}record.py",
    "summarize": f"{LOG}record.py",
    "lost_seq": LOG,
    "bucket": LOG,
    "ring": LOG,
    "table": f"{CAPTURE}table_state.py",
    "unlogged": f"{CAPTURE}table_state.py",
    "cleared": CAPTURE,
    "reload": CAPTURE,
    "refill": CAPTURE,
    "run": f"{DELIVERY}fatal_calls.py",
    "call": f"{DELIVERY}fatal_calls.py",
    "delivery": f"{DELIVERY}failures.py",
}
"""Tables and functions ``public.hc_signals_NAME``, and the path under which Python's SQL may name them."""

EXCEPTIONS = {
    ("hc_signals/log/restoring.py", "table"): "forgets the old server's object ids in the transaction that takes over",
    ("hc_signals/log/consumers.py", "run"): "removing a consumer removes all of it, and delivery is above",
    ("hc_signals/log/consumers.py", "call"): "removing a consumer removes all of it, and delivery is above",
    ("hc_signals/log/images.py", "delivery"): "reads the image of a failed delivery as it reads those of the log",
    ("hc_signals/capture/function.py", "ring"): "SQL of the generated capture function",
    ("hc_signals/capture/function_reload.py", "ring"): "SQL of the generated capture function",
    ("hc_signals/capture/function_reload.py", "change"): "SQL of the generated capture function",
    ("hc_signals/capture/drift.py", "change"): "one query compares tables, their state and the log, in one snapshot",
    ("hc_signals/capture/drift.py", "control"): "one query compares tables, their state and the log, in one snapshot",
    ("hc_signals/capture/drift.py", "passed"): "one query compares tables, their state and the log, in one snapshot",
    ("hc_signals/capture/drift.py", "table"): "one query compares tables, their state and the log, in one snapshot",
    ("hc_signals/capture/table_state.py", "control"): "an uninstalled table is incomplete since the pause before it",
    ("hc_signals/capture/pausing.py", "control"): "owns the columns of the pause",
    ("hc_signals/delivery/failures.py", "log"): "copies the images of a change into its failed delivery",
    ("hc_signals/delivery/waiting.py", "delivery"): "joins and shortens deliveries that wait for a settled value",
    ("hc_signals/delivery/gaps.py", "change_id_seq"): "draws ids for gaps that have no row in the log",
    ("hc_signals/delivery/gaps.py", "control"): "draws ids for gaps that have no row in the log",
    ("hc_signals/testing/delivering.py", "change"): "reads uncommitted changes, which no snapshot shows",
}
"""Files outside of a name's home that name it all the same, each with a reason."""

_NAME = re.compile(r"public\.hc_signals_([a-z_]+?)(?:_\d|_\{\w+\}|_')?(?![a-z_])")


def sources() -> Iterator[tuple[str, str]]:
    """Yield each module of the package as path and text."""
    for path in sorted((ROOT / "hc_signals").rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_only_its_home_names_a_table() -> None:
    """The exceptions are exactly EXCEPTIONS."""
    named = {(path, name) for path, text in sources() for name in _NAME.findall(text) if name in HOMES}
    assert {name for _, name in named} == HOMES.keys(), "a home without its table"
    elsewhere = {(path, name) for path, name in named if not path.startswith(HOMES[name])}
    assert elsewhere == EXCEPTIONS.keys()


def test_every_table_has_a_home() -> None:
    sql = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "migrations_sql").glob("*.sql"))
    created = re.findall(r"CREATE (?:UNLOGGED )?(?:TABLE|VIEW|SEQUENCE) public\.hc_signals_(\w+)", sql)
    tables = set(created) - {"change_", "heard_"}  # the partitions
    assert len(tables) > 10
    assert tables <= HOMES.keys()


def test_only_schema_names_the_causes_of_gaps() -> None:
    """Causes with an underscore: the others are common words."""
    pattern = re.compile(f"[\"']({'|'.join(cause for cause in Cause if '_' in cause)})[\"']")
    assert {path for path, text in sources() if pattern.search(text)} == {f"{LOG}schema.py"}


def test_only_a_claim_appends_positions() -> None:
    pattern = re.compile(r"positions\.append\(|log\.positions import .*\bappend\b")
    assert {path for path, text in sources() if pattern.search(text)} == {f"{LOG}claims.py"}


def test_only_locks_has_keys_of_advisory_locks() -> None:
    found = {path for path, text in sources() if re.search(r"\b12123728\d\d\b", text)}
    assert found == {"hc_signals/postgres/locks.py"}


def test_only_schema_has_the_length_of_a_bucket() -> None:
    """In SQL only the function of the current bucket has it."""
    assert {path for path, text in sources() if re.search(r"\b43_?200\b", text)} == {f"{LOG}schema.py"}
    sql = [path.read_text(encoding="utf-8") for path in (ROOT / "migrations_sql").glob("*.sql")]
    assert sum(text.count("43200") for text in sql) == 1


@pytest.mark.django_db
def test_python_and_sql_agree_on_the_bucket() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT public.hc_signals_bucket(), extract(epoch FROM clock_timestamp())::float8, "
            "(SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.hc_signals_change'::regclass)"
        )
        bucket, seconds, buckets = cursor.fetchone()
    now = datetime.fromtimestamp(seconds, UTC)
    assert buckets_between(now, now) == [bucket]
    assert buckets == BUCKETS
