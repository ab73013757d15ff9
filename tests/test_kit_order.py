"""The order of a project's tests does not matter: the kit removes the rows that a test left in connected tables."""

import re
from pathlib import Path

import pytest

from tests import kit_project

MODELS = """
class Lead(hc_models.HerokuConnectModel):
    sf_object_name = "Lead"
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    company = hc_models.Text(sf_field_name="Company", max_length=255)
"""

SETTINGS = """
TEST_RUNNER = "runner.InOrder"
"""

RUNNER = """
from hc_signals.testing.cases import HerokuConnectRunner


class InOrder(HerokuConnectRunner):
    reorder_by = ()
"""

TESTS = '''
from crm.models import Account, Lead
from django.db import connections
from django.test import TestCase, TransactionTestCase
from hc_signals.testing import HerokuConnect
from hc_signals.testing.cases import HerokuConnectTestCase, HerokuConnectTransactionTestCase

BOTH = {"default", "other"}


class Leaves(TransactionTestCase):
    """A user's own test case without the kit; Django flushes after it."""

    databases = BOTH

    def test_leaves(self):
        for using in BOTH:
            Lead.objects.using(using).create(company="left")


class T1Ordinary(Leaves):
    pass


class T2Ordinary(TestCase):
    databases = BOTH

    def test_empty(self):
        for using in BOTH:
            self.assertFalse(Lead.objects.using(using).exists())


class LeavesAll(Leaves):
    """Django inhibits its signals after such a flush."""

    available_apps = ["django.contrib.contenttypes", "django.contrib.auth", "hc_signals", "crm"]


class T3Inhibited(LeavesAll):
    pass


class T4Ours(HerokuConnectTestCase):
    databases = BOTH

    @classmethod
    def setUpTestData(cls):
        HerokuConnect("other").insert(Account, name="of the class")

    def test_a(self):
        self.assertFalse(Lead.objects.exists() or Lead.objects.using("other").exists())
        self.assertEqual(self.deliver_changes(), 0)
        self.assertEqual(self.deliver_changes("other"), 1)
        HerokuConnect("other").create(Lead, 2)
        self.heroku_connect.create(Lead)
        self.assertEqual((self.deliver_changes(), self.deliver_changes("other")), (1, 2))

    def test_b(self):
        self.assertEqual(Account.objects.using("other").get().name, "of the class")
        self.assertEqual(Lead.objects.using("other").count(), 0)


class T5Inhibited(LeavesAll):
    pass


class T6Ours(HerokuConnectTransactionTestCase):
    databases = {"other"}

    def test_other(self):
        self.assertEqual(self.heroku_connect.using, "other")
        self.heroku_connect.create(Lead, 2)
        self.assertEqual(self.deliver_changes(), 2)


class T7Ours(T6Ours):
    def tearDown(self):
        with connections["other"].cursor() as cursor:
            cursor.execute("DROP TABLE salesforce.lead")


class T8Ours(T6Ours):
    pass


del Leaves, LeavesAll
'''

PYTEST_INI = """
[pytest]
DJANGO_SETTINGS_MODULE = shop.settings
python_files = test_*.py
"""

CONFTEST = """
import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.name)
"""

FUNCTIONS = """
import pytest
from crm.models import Lead
from hc_signals.testing import HerokuConnect

BOTH = ["default", "other"]


@pytest.fixture
def lead(db):
    return Lead.objects.create(company="made before the kit is asked for")


@pytest.mark.django_db(transaction=True, databases=BOTH)
def test_1_leaves():
    for using in BOTH:
        Lead.objects.using(using).create(company="left")


@pytest.mark.django_db(databases=BOTH)
def test_2_ordinary():
    assert not Lead.objects.exists() and not Lead.objects.using("other").exists()


@pytest.mark.django_db(transaction=True, available_apps=["hc_signals", "crm"])
def test_3_leaves_all():
    Lead.objects.create(company="left")


def test_4_ours(lead, heroku_connect, deliver_changes):
    heroku_connect.create(Lead, 2)
    assert (deliver_changes(), Lead.objects.count()) == (2, 3)


@pytest.mark.django_db(databases=["other"])
def test_5_other(heroku_connect, deliver_changes):
    heroku_connect.create(Lead, 2)
    assert deliver_changes("other") == 2


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_6_both(heroku_connect, deliver_changes):
    heroku_connect.create(Lead)
    HerokuConnect("other").create(Lead, 2)
    assert (deliver_changes(), deliver_changes("other")) == (1, 2)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two databases and a read-write model."""
    files = {"crm/models.py": MODELS, "shop/settings.py": SETTINGS, "runner.py": RUNNER}
    kit_project.make(tmp_path, files, databases=("default", "other"))
    (tmp_path / "crm" / "tests.py").unlink()
    return tmp_path


def test_unittest_finds_tables_empty_in_any_order(project: Path) -> None:
    (project / "test_order.py").write_text(TESTS, encoding="utf-8")
    printed = kit_project.run(project, "manage.py", "test")
    assert re.search(r"Ran 9 tests in .*\n\nOK\n", printed), printed


def test_pytest_finds_tables_empty_in_any_order(project: Path) -> None:
    (project / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    (project / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (project / "test_order.py").write_text(FUNCTIONS, encoding="utf-8")
    printed = kit_project.run(project, "-m", "pytest", "-q")
    assert re.search(r"\b6 passed in", printed), printed
