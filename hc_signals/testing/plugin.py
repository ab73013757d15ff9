"""The pytest plugin: test databases with Heroku Connect's tables, the fixtures heroku_connect and deliver_changes.

pytest loads it in every project of the environment, before Django is set up: so everything else is imported late.
"""

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hc_signals.testing import HerokuConnect


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    """Make the test databases with Heroku Connect's tables, also where a project has its own django_db_setup."""
    if fixturedef.argname != "django_db_setup":
        return (yield)
    from hc_signals.testing.databases import connected_databases

    with connected_databases():
        return (yield)


@pytest.fixture
def heroku_connect(db: None) -> Iterator["HerokuConnect"]:
    """A Heroku Connect on empty tables with capture, with ``db`` and ``transactional_db`` alike."""
    from django.db import connection

    from hc_signals.testing import HerokuConnect
    from hc_signals.testing.databases import empty, prepare

    prepare()
    yield HerokuConnect()
    if not connection.in_atomic_block:
        empty()


@pytest.fixture
def deliver_changes(db: None) -> Callable[..., int]:
    """The function ``hc_signals.testing.deliver_changes``."""
    from hc_signals.testing import deliver_changes

    return deliver_changes
