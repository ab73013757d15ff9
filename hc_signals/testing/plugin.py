"""The pytest plugin: test databases with Heroku Connect's tables, the fixtures heroku_connect and deliver_changes.

pytest loads it in every project of the environment, before Django is set up. So the functions import the rest.
"""

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hc_signals.testing import DeliverChanges, HerokuConnect

_BLOCKER = pytest.StashKey[Any]()
"""pytest-django's blocker of databases; missing until the test databases exist."""


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Create the test databases with Heroku Connect's tables, even if a project has its own django_db_setup."""
    if fixturedef.argname != "django_db_setup":
        return (yield)
    from hc_signals.testing.databases import clearing_after_flush, connected_databases

    with connected_databases():
        made = yield
    clearing_after_flush()
    request.config.stash[_BLOCKER] = request.getfixturevalue("django_db_blocker")
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Empty the tables for a test with heroku_connect, before its fixtures open a transaction or write."""
    blocker = item.config.stash.get(_BLOCKER, None)
    if blocker is None or "heroku_connect" not in getattr(item, "fixturenames", ()):
        return
    from django.db import connections

    from hc_signals.testing.databases import clear

    with blocker.unblock():
        for using in _databases(item):
            if not connections[using].in_atomic_block:  # else a transaction of the class or module, whose records stay
                clear(using)


@pytest.fixture
def heroku_connect(request: pytest.FixtureRequest, db: None) -> Iterator["HerokuConnect"]:
    """A Heroku Connect on empty tables with capture, for ``db`` and ``transactional_db``."""
    from django.db import connections

    from hc_signals.testing import HerokuConnect
    from hc_signals.testing.databases import empty, prepare

    played = _databases(request.node)
    for using in played:
        prepare(using)
    yield HerokuConnect("default" if "default" in played or not played else played[0])
    for using in played:
        if not connections[using].in_atomic_block:
            empty(using)


@pytest.fixture
def deliver_changes(db: None) -> "DeliverChanges":
    """The function ``hc_signals.testing.deliver_changes``."""
    from hc_signals.testing import deliver_changes

    return deliver_changes


def _databases(item: pytest.Item) -> list[str]:
    """Return the databases of the test that have Heroku Connect's tables."""
    from django.db import connections

    from hc_signals.testing.databases import played_databases

    marker = item.get_closest_marker("django_db")
    named = _named(*marker.args, **marker.kwargs) if marker else None
    return played_databases(connections if named == "__all__" else named or ["default"])


def _named(
    transaction: bool = False,
    reset_sequences: bool = False,
    databases: Iterable[str] | None = None,
    *args: Any,
    **more: Any,
) -> Iterable[str] | None:
    """Return ``databases`` from the arguments of ``pytest.mark.django_db``."""
    return databases
