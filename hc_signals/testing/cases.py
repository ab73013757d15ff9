"""For unittest: test cases that act as Heroku Connect, and the runner that makes their test databases."""

from typing import Any

from django.db import connections
from django.test import TestCase, TransactionTestCase
from django.test.runner import DiscoverRunner, RemoteTestRunner

from hc_signals.testing.databases import (
    clear,
    clearing_after_flush,
    connected_databases,
    empty,
    played_databases,
    prepare,
)
from hc_signals.testing.delivering import deliver_changes
from hc_signals.testing.heroku_connect import HerokuConnect


class HerokuConnectMixin:
    """Beside Django's ``TestCase`` or ``TransactionTestCase``.

    Call ``super().setUpClass()`` and ``super().setUp()`` where you have your own. Every database in ``databases`` is
    prepared; tables are empty when ``setUpTestData`` begins, whatever other tests have left in them.
    """

    databases: Any
    heroku_connect: HerokuConnect
    """Plays on ``default``; where the test has no such database, on its first one."""

    @classmethod
    def setUpClass(cls) -> None:
        """Make what is missing and empty the tables, before Django opens the transaction of the class."""
        for using in cls._played():
            if not connections[using].in_atomic_block:
                prepare(using)
                clear(using)
        super().setUpClass()  # type: ignore[misc]

    def setUp(self) -> None:
        """Make what is missing, play Heroku Connect."""
        super().setUp()  # type: ignore[misc]
        played = self._played()
        for using in played:
            prepare(using)
            if not connections[using].in_atomic_block:
                clear(using)
                self.addCleanup(empty, using)  # type: ignore[attr-defined]
        self.heroku_connect = HerokuConnect("default" if "default" in played or not played else played[0])

    @classmethod
    def _played(cls) -> list[str]:
        return played_databases(connections if cls.databases == "__all__" else cls.databases)

    def deliver_changes(self, using: str | None = None, **conf: Any) -> int:
        """See :func:`hc_signals.testing.deliver_changes`; ``using`` is by default where Heroku Connect is played."""
        return deliver_changes(using or self.heroku_connect.using, **conf)


class HerokuConnectTestCase(HerokuConnectMixin, TestCase):
    """Everything happens in one transaction that is rolled back: fast."""


class HerokuConnectTransactionTestCase(HerokuConnectMixin, TransactionTestCase):
    """Everything is committed, and emptied afterwards: for ``on_commit`` and threads."""


class _WorkerRunner(RemoteTestRunner):
    """Runs tests in a process of ``--parallel``."""

    def run(self, test: Any) -> Any:
        """Empty our tables after a flush in this process too: one that was spawned knows nothing of its parent."""
        clearing_after_flush()
        return super().run(test)


class HerokuConnectRunnerMixin:
    """Beside a test runner of your own."""

    def parallel_test_suite(self, *args: Any, **kwargs: Any) -> Any:
        """Make the suite of a parallel run; its processes empty our tables after a flush as well."""
        suite = super().parallel_test_suite(*args, **kwargs)  # type: ignore[misc]
        if suite.runner_class is RemoteTestRunner:
            suite.runner_class = _WorkerRunner
        return suite

    def setup_databases(self, **kwargs: Any) -> Any:
        """Make test databases with Heroku Connect's tables and capture; every flush empties these too from now on."""
        with connected_databases():
            made = super().setup_databases(**kwargs)  # type: ignore[misc]
        clearing_after_flush()
        return made


class HerokuConnectRunner(HerokuConnectRunnerMixin, DiscoverRunner):  # type: ignore[misc]  # there it is a class
    """``TEST_RUNNER = "hc_signals.testing.cases.HerokuConnectRunner"``."""
