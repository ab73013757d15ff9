"""A database of an older version is upgraded and downgraded with everything in it, and while workers of both run.

The older version's own code makes the database, captures, delivers, and is killed in a page; see tests/versions.py.
"""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.conftest import BARE
from tests.versions import CANNOT_OVERLAP, NEW, VERSIONS, Salesforce, Site, code_of, newest_migration

CONSUMERS = ("default", "search")


@pytest.fixture(scope="session", params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of an older version; one directory for all tests, which share its bytecode."""
    return code_of(request.param, tmp_path_factory.mktemp("versions"))


@pytest.fixture
def site(tmp_path: Path, bare_database: Any) -> Site:
    """A project on an empty database."""
    here = connection.settings_dict
    parts = {key: str(here[key] or "") for key in ("ENGINE", "HOST", "PORT", "USER", "PASSWORD")}
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder, {**parts, "ENGINE": "django.db.backends.postgresql", "NAME": BARE})


@pytest.fixture
def salesforce(bare_database: Any) -> Salesforce:
    """Who changes records, in the database of the project."""
    return Salesforce(bare_database)


@pytest.fixture
def running() -> Iterator[list[Any]]:
    """Processes that are killed after the test."""
    processes: list[Any] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def leave_everything(site: Site, code: Path, salesforce: Salesforce) -> None:
    """Leave failed deliveries, a killed worker's half-read window, two positions, and unread changes."""
    (failing, *_) = salesforce.write(9)
    site.run(code, "hc_listen --once", CONSUMER="search")
    names = salesforce.write(9)
    site.run(code, "hc_listen --once", exits=9, DIE_AT=names[7], FAIL_AT=failing)
    assert salesforce.count("SELECT count(*) FROM hc_signals_delivery WHERE state = 'retry'") == 1
    assert salesforce.count("SELECT count(*) FROM hc_signals_delivery WHERE state = 'parked'") >= 1
    assert salesforce.count("SELECT count(*) FROM hc_signals_newest_position WHERE target IS NOT NULL") == 1
    salesforce.write(5)


def deliver_all(site: Site, code: Path, salesforce: Salesforce, running: list[Any]) -> None:
    """Run a worker of each consumer until the receivers have heard everything; then compare."""
    workers = [site.start(code, "hc_listen", CONSUMER=consumer) for consumer in CONSUMERS]
    running += workers
    for consumer in CONSUMERS:
        site.wait_until(lambda: salesforce.is_all_heard(consumer))  # noqa: B023
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    for consumer in CONSUMERS:
        assert_exact(salesforce, consumer)


def assert_exact(salesforce: Salesforce, consumer: str) -> None:
    """Nothing is lost, nothing is there twice, the order of each record is kept; no gap was reported."""
    for name in ("ledger", "flaky"):
        assert salesforce.heard(consumer, name) == salesforce.changes, (consumer, name)
    assert salesforce.heard(consumer, "gap") == {}


def test_upgrade_and_downgrade_deliver_what_was_left(
    old: Path, site: Site, salesforce: Salesforce, running: list[Any]
) -> None:
    """One database goes both ways, since most of this test's time is the start of processes."""
    site.create(old)
    leave_everything(site, old, salesforce)
    site.run(NEW, "migrate --verbosity 0")
    salesforce.write(3)  # by the old capture functions, on the new tables
    site.run(NEW, "hc_triggers install")
    salesforce.write(3)
    salesforce.delete()
    deliver_all(site, NEW, salesforce, running)

    leave_everything(site, NEW, salesforce)
    site.run(old, "hc_triggers install")
    salesforce.write(3)  # by the old capture functions, on the new tables
    site.run(NEW, f"migrate hc_signals {newest_migration(old)} --verbosity 0")
    salesforce.write(3)
    salesforce.delete()
    deliver_all(site, old, salesforce, running)


def test_workers_of_both_versions_run_at_once(
    old: Path, site: Site, salesforce: Salesforce, running: list[Any]
) -> None:
    """As on Heroku: the release phase migrates while the old processes run, and Heroku Connect goes on."""
    if old.name in CANNOT_OVERLAP:
        pytest.skip(f"workers of {old.name} are stopped before the upgrade: docs/upgrading.md")
    site.create(old)
    stopping = threading.Event()

    def change() -> None:
        while not stopping.wait(0.02):
            salesforce.write(1)

    def heard_from(code: Path) -> int:
        return salesforce.count(f"SELECT count(*) FROM shop_heard WHERE code = '{code}'")

    old_worker = site.start(old, "hc_listen")
    running.append(old_worker)
    writer = threading.Thread(target=change)
    writer.start()
    try:
        site.wait_until(lambda: heard_from(old) > 0)
        site.run(NEW, "migrate --verbosity 0", "hc_triggers install")
        before = heard_from(old)
        site.wait_until(lambda: heard_from(old) > before + 20)  # on the new tables, from the new functions
        new_worker = site.start(NEW, "hc_listen")
        running.append(new_worker)
        site.wait_until(lambda: site.output.count("listening") == 2)
        assert old_worker.poll() is None, site.output
        old_worker.send_signal(signal.SIGTERM)
        assert old_worker.wait(10) == 0
        site.wait_until(lambda: heard_from(NEW) > 20)
    finally:
        stopping.set()
        writer.join()
    site.wait_until(lambda: salesforce.is_all_heard("default"))
    new_worker.send_signal(signal.SIGTERM)
    assert new_worker.wait(10) == 0
    assert_exact(salesforce, "default")
    site.run(NEW, "hc_triggers status")  # exits 1 if the old worker has put its own functions back
