"""Other habits of projects and their tests: each one works with the test kit, or gets an error with advice."""

import re
from pathlib import Path

import pytest

from tests import kit_project

MODELS = """
from django.contrib.auth.models import AbstractUser


class Site(hc_models.HerokuConnectModel):
    sf_object_name = "Site__c"
    sf_access = hc_models.READ_WRITE

    external_id = hc_models.ExternalID(sf_field_name="External_ID__c")
    opened_at = hc_models.DateTime(sf_field_name="Opened_At__c")


class User(AbstractUser):
    account = models.ForeignKey(
        Account, models.SET_NULL, to_field="sf_id", db_constraint=False, null=True, blank=True
    )
"""

BASE = """
import sys

INSTALLED_APPS += ["stats"]
AUTH_USER_MODEL = "crm.User"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
DATABASE_ROUTERS = ["shop.routers.StatsRouter", *DATABASE_ROUTERS]
TEST_RUNNER = "hc_signals.testing.cases.HerokuConnectRunner"
sys.path.insert(0, str(BASE_DIR / "src"))
"""

ROUTER = """
class StatsRouter:
    def db_for_read(self, model, **hints):
        return "other" if model._meta.app_label == "stats" else None

    db_for_write = db_for_read

    def allow_relation(self, one, another, **hints):
        return True

    def allow_migrate(self, db, app_label, **hints):
        return (db == "other") == (app_label == "stats")
"""

SPAWNING = """
import multiprocessing
import sys

from manage import main

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
"""

CASES = """
import datetime

from crm.models import Account, Site, User
from django.test import TestCase, TransactionTestCase
from hc_signals.exceptions import ConfigurationError
from hc_signals.testing import HerokuConnect, deliver_changes
from hc_signals.testing.cases import HerokuConnectTestCase
from stats.models import Hit


class KitTests(HerokuConnectTestCase):
    databases = "__all__"

    def test_both_databases(self):
        self.heroku_connect.create(Account, 2)
        self.assertEqual(self.deliver_changes(), 2)
        Hit.objects.create()
        with self.assertRaisesMessage(ConfigurationError, "The database 'other' has no change log"):
            self.deliver_changes("other")


class PlainTests(TestCase):
    def test_custom_user_model(self):
        (sfid,) = HerokuConnect().create(Account)
        User.objects.create_user("ada", account_id=sfid)
        self.assertEqual(User.objects.get(account__sf_id=sfid).account, Account.objects.get())
        self.assertEqual(deliver_changes(), 1)

    def test_times_without_zones(self):
        site = Site.objects.create(opened_at=datetime.datetime(2026, 7, 1, 12))
        site.refresh_from_db()
        self.assertEqual(site.opened_at.replace(tzinfo=None), datetime.datetime(2026, 7, 1, 12))


class LeavingTests(TransactionTestCase):
    def leave(self):
        self.assertFalse(Site.objects.exists())
        Site.objects.create()

    test_a = test_b = test_c = leave
"""

MAKE_MIGRATIONS = ("-W", "ignore", "manage.py", "makemigrations")
"""Django warns about missing databases, because the project has its test databases alone."""

RUNS = {
    "spawned processes, as on macOS": ("spawning.py", "--parallel", "2"),
    "kept database": ("manage.py", "--keepdb"),
    "kept databases in parallel": ("manage.py", "--keepdb", "--parallel", "2"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its own user model and router, two databases, an app in src/, and settings in a package."""
    folder = tmp_path_factory.mktemp("habits")
    files = {"crm/models.py": MODELS, "shop/settings.py": BASE, "shop/routers.py": ROUTER, "spawning.py": SPAWNING}
    kit_project.make(folder, files, databases=("default", "other"))
    (folder / "shop" / "settings").mkdir()
    settings = (folder / "shop" / "settings.py").read_text(encoding="utf-8").replace("parent.parent", "parents[2]")
    (folder / "shop" / "settings" / "base.py").write_text(settings, encoding="utf-8")
    (folder / "shop" / "settings" / "__init__.py").write_text("from shop.settings.base import *\n", encoding="utf-8")
    (folder / "shop" / "settings.py").unlink()
    models = folder / "crm" / "models.py"
    models.write_text(f"from django.db import models\n\n{models.read_text(encoding='utf-8')}", encoding="utf-8")
    (folder / "crm" / "tests.py").write_text(CASES, encoding="utf-8")
    (folder / "src").mkdir()
    (folder / "crm").rename(folder / "src" / "crm")
    (folder / "src" / "stats" / "migrations").mkdir(parents=True)
    for name in ("", "migrations/"):
        (folder / "src" / "stats" / name / "__init__.py").touch()
    hit = "from django.db import models\n\n\nclass Hit(models.Model):\n    pass\n"
    (folder / "src" / "stats" / "models.py").write_text(hit, encoding="utf-8")
    assert "Create model Site" in kit_project.run(folder, *MAKE_MIGRATIONS)
    assert "No changes detected" in kit_project.run(folder, *MAKE_MIGRATIONS, "--check")
    return folder


@pytest.mark.parametrize("habit", RUNS)
def test_habit_works_with_djangos_runner(project: Path, habit: str) -> None:
    program, *options = RUNS[habit]
    if program == "manage.py" and "--parallel" in options:
        program = kit_project.manage_parallel(project)
    printed = kit_project.run(project, program, "test", "src", "--noinput", *options)
    assert re.search(r"Ran 6 tests in .*\n\nOK\n", printed), printed


@pytest.mark.parametrize("options", [["--create-db"], ["--reuse-db", "-n", "2"]], ids=" ".join)
def test_habits_work_with_pytest(project: Path, options: list[str]) -> None:
    pytest_ini = "[pytest]\nDJANGO_SETTINGS_MODULE = shop.settings\npythonpath = . src\npython_files = tests.py\n"
    (project / "pytest.ini").write_text(pytest_ini, encoding="utf-8")
    printed = kit_project.run(project, "-m", "pytest", "-q", "src", *options)
    assert re.search(r"^6 passed in", printed, re.M), printed
