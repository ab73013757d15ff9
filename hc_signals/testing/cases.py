"""For unittest: test cases with a simulated Heroku Connect, and the runner that creates their test databases."""

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
    """A base class beside Django's ``TestCase`` or ``TransactionTestCase``.

    If you override ``setUpClass()`` or ``setUp()``, call ``super()``'s. Every database in ``databases`` is prepared.
    The tables are empty when ``setUpTestData()`` begins.
    """

    databases: Any
    heroku_connect: HerokuConnect
    """Writes to ``default``, or to the first database of the test if ``default`` is not among them."""

    @classmethod
    def setUpClass(cls) -> None:
        """Prepare and empty the databases, before Django opens the transaction of the class."""
        for using in cls._played():
            if not connections[using].in_atomic_block:
                prepare(using)
                clear(using)
        super().setUpClass()  # type: ignore[misc]

    def setUp(self) -> None:
        """Prepare and empty the databases, and make ``heroku_connect``."""
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
        """See :func:`hc_signals.testing.deliver_changes`; ``using`` is by default that of ``heroku_connect``."""
        return deliver_changes(using or self.heroku_connect.using, **conf)


class HerokuConnectTestCase(HerokuConnectMixin, TestCase):
    """Runs each test in a transaction that is rolled back, which is fast."""


class HerokuConnectTransactionTestCase(HerokuConnectMixin, TransactionTestCase):
    """Commits, and empties the tables after each test: for ``on_commit`` and threads."""


class _WorkerRunner(RemoteTestRunner):
    """Runs the tests of one process of ``--parallel``."""

    def run(self, test: Any) -> Any:
        """Empty our tables after a flush in this process too; a spawned one has no receivers of its parent."""
        clearing_after_flush()
        return super().run(test)


class HerokuConnectRunnerMixin:
    """A base class beside a test runner of your own."""

    def parallel_test_suite(self, *args: Any, **kwargs: Any) -> Any:
        """Make the suite of a parallel run, whose processes also empty our tables after a flush."""
        suite = super().parallel_test_suite(*args, **kwargs)  # type: ignore[misc]
        if suite.runner_class is RemoteTestRunner:
            suite.runner_class = _WorkerRunner
        return suite

    def setup_databases(self, **kwargs: Any) -> Any:
        """Create test databases with Heroku Connect's tables and capture; from now on every flush empties these too."""
        with connected_databases():
            made = super().setup_databases(**kwargs)  # type: ignore[misc]
        clearing_after_flush()
        return made


class HerokuConnectRunner(HerokuConnectRunnerMixin, DiscoverRunner):  # type: ignore[misc]
    """Django's test runner, for ``TEST_RUNNER = "hc_signals.testing.cases.HerokuConnectRunner"``."""
