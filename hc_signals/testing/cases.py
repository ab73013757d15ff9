"""For unittest: test cases that act as Heroku Connect, and the runner that makes their test databases."""

from typing import Any

from django.db import connections
from django.test import TestCase, TransactionTestCase
from django.test.runner import DiscoverRunner

from hc_signals.testing.databases import connected_databases, empty, prepare
from hc_signals.testing.delivering import deliver_changes
from hc_signals.testing.heroku_connect import HerokuConnect


class HerokuConnectMixin:
    """Beside Django's ``TestCase`` or ``TransactionTestCase``; call ``super().setUp()`` where you have your own."""

    heroku_connect: HerokuConnect

    def setUp(self) -> None:
        """Make what is missing, play Heroku Connect on the database ``default``."""
        super().setUp()  # type: ignore[misc]
        prepare()
        self.heroku_connect = HerokuConnect()
        if not connections["default"].in_atomic_block:
            self.addCleanup(empty)  # type: ignore[attr-defined]

    def deliver_changes(self, **conf: Any) -> int:
        """See :func:`hc_signals.testing.deliver_changes`."""
        return deliver_changes(**conf)


class HerokuConnectTestCase(HerokuConnectMixin, TestCase):
    """Everything happens in one transaction that is rolled back: fast."""


class HerokuConnectTransactionTestCase(HerokuConnectMixin, TransactionTestCase):
    """Everything is committed, and emptied afterwards: for ``on_commit`` and threads."""


class HerokuConnectRunnerMixin:
    """Beside a test runner of your own."""

    def setup_databases(self, **kwargs: Any) -> Any:
        """Make test databases with Heroku Connect's tables and capture."""
        with connected_databases():
            return super().setup_databases(**kwargs)  # type: ignore[misc]


class HerokuConnectRunner(HerokuConnectRunnerMixin, DiscoverRunner):
    """``TEST_RUNNER = "hc_signals.testing.cases.HerokuConnectRunner"``."""
