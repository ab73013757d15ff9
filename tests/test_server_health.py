"""Settings of the server that hc_status reports, and their effects: temp_file_limit, publications."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from example.crm.models import Account

from hc_signals.capture import pausing
from hc_signals.capture.install import uninstall_capture
from hc_signals.observability.findings import Finding
from hc_signals.observability.judge.server import server
from hc_signals.testing import HerokuConnect
from tests.conftest import as_the_app
from tests.server import own

ROWS = 10_000
"""The new rows alone take more than a megabyte."""


def problems() -> dict[str, Finding]:
    """Return the problems of the server by their keys."""
    with transaction.atomic():
        return {finding.problem: finding for finding in server("default") if finding.problem}


@contextmanager
def made(create: str, drop: str) -> Iterator[None]:
    as_the_app(create)
    try:
        yield
    finally:
        as_the_app(drop)


def update_all() -> None:
    """Update every row as Heroku Connect does, in a session whose temporary files may take one megabyte."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'; SET LOCAL temp_file_limit = '1MB'; SET LOCAL work_mem = '64kB'")
        cursor.execute("UPDATE salesforce.account SET name = repeat('x', 200)")


@pytest.mark.fault(
    "the old and new rows of a large statement exceed `temp_file_limit`, or the disk of the temporary files is full",
    outcome="Heroku Connect's statement fails, while capture is paused as well; without our triggers it succeeds",
)
def test_transition_tables_fail_the_writer_at_the_limit(captured: HerokuConnect) -> None:
    """PostgreSQL keeps the rows for the trigger before any code of ours runs: no guard of ours can help."""
    for trigger in ("hc_account_status_trigger", "hc_account_logtrigger"):  # without them the test is much faster
        as_the_app(f"ALTER TABLE salesforce.account DISABLE TRIGGER {trigger}")
    as_the_app(f"INSERT INTO salesforce.account (name) SELECT 'old' FROM generate_series(1, {ROWS})")
    with pytest.raises(OperationalError, match="temp_file_limit"):
        update_all()
    pausing.pause("default")
    try:
        with pytest.raises(OperationalError, match="temp_file_limit"):
            update_all()
    finally:
        pausing.resume("default", [])
    as_the_app("ALTER TABLE salesforce.account DISABLE TRIGGER USER")
    with pytest.raises(OperationalError, match="temp_file_limit"):
        update_all()
    uninstall_capture(Account, "default")
    update_all()
    assert set(Account.objects.values_list("name", flat=True)) == {"x" * 200}


def test_status_names_a_temp_file_limit(captured: HerokuConnect) -> None:
    assert "server-temp-files" not in problems()
    limited = own("hc_writer_limited")
    here = f'ALTER ROLE {limited} IN DATABASE "{connection.settings_dict["NAME"]}"'
    with (
        made(f"CREATE ROLE {limited}", f"DROP ROLE {limited}"),
        made(f"{here} SET temp_file_limit = '3GB'", f"{here} RESET ALL"),
        connection.cursor() as cursor,
    ):
        assert problems()["server-temp-files"].text == f"temp_file_limit is 3GB for role {limited}"
        cursor.execute("SET temp_file_limit = '1GB'")
        try:
            found = problems()["server-temp-files"]
        finally:
            cursor.execute("RESET temp_file_limit")
    assert found.text == f"temp_file_limit is 3GB for role {limited}, 1GB for this session"
    assert found.remedy.startswith("Raise it for Heroku Connect's role")


PUBLICATION = "the publication 'hc_signals_test' covers tables of hc_signals"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("FOR ALL TABLES", PUBLICATION),
        ("FOR ALL TABLES WITH (publish_via_partition_root = true)", PUBLICATION),
        ("FOR TABLE public.hc_signals_delivery", PUBLICATION),
        (
            "FOR TABLE public.hc_signals_change (id, bucket) WITH (publish_via_partition_root = true)",
            PUBLICATION + "; a nested change becomes a gap, because PostgreSQL refuses to move its row",
        ),
        ("FOR TABLE salesforce.account", None),
    ],
)
def test_status_names_a_publication_of_ours(captured: HerokuConnect, what: str, text: str | None) -> None:
    if "(id" in what and connection.pg_version < 150000:
        pytest.skip("lists of columns came with PostgreSQL 15")
    with made(f"CREATE PUBLICATION hc_signals_test {what}", "DROP PUBLICATION hc_signals_test"):
        found: Any = problems().get("log-published")
    assert (found and found.text) == text
