"""Projects that use django-heroku-connect are moved by what docs/parity.md says, and by nothing else.

Their shapes are those of public projects: records of one app that look up records of another, address fields added in a
loop, read-only records in tests, an admin, a health check of their own, migrations that name the old package.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs_project import Project
from tests.pages import BLOCKS, ROOT, TEXT

PAGE = "parity.md"
(STEP,) = [block.code for block in BLOCKS if block.page == PAGE and block.marker.startswith("run by: ")]

BY_HAND = {
    "support/status/views.py": [
        ("from django.conf import settings\n", ""),
        (
            "from heroku_connect import utils\n",
            "\nfrom hc_signals.conf import heroku_app_name\n"
            "from hc_signals.heroku.api import ConnectionState, HerokuConnectAPI\n",
        ),
        (
            "utils.get_connections(settings.HEROKU_CONNECT_APP_NAME)",
            "HerokuConnectAPI(heroku_app_name()).connections()",
        ),
        ("utils.ConnectionStates", "ConnectionState"),
    ],
    "support/desk/tests.py": [("views.utils.get_connections", "views.HerokuConnectAPI.connections")],
}
"""What the step leaves, replaced as the table says."""

RELEASE = """
import os
import django
from django.core.management import call_command
from django.db import connection

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()
from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.worker.loop import Worker
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect

call_command("check")
call_command("makemigrations", check_changes=True)
call_command("hc_simulate", create_only=True)
for app in set(model._meta.app_label for model in connected_models()):
    call_command("migrate", app, verbosity=0)
with connection.cursor() as cursor:
    cursor.execute("INSERT INTO django_migrations (app, name, applied) SELECT 'heroku_connect', '0001_initial', now()")
call_command("migrate", verbosity=0)
call_command("hc_triggers", "install")

heroku = HerokuConnect()
def show(event, **kwargs):
    print("signal:", event.entity_name, event.change_type)
for model in connected_models():
    signals.record_changed.connect(show, sender=model)
    heroku.create(model)
Worker("default", Conf()).deliver_once()
"""
"""The page's commands, on a database whose migrations were applied before the move; then a record of each object."""


@pytest.fixture
def moved(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project, moved."""
    shape = request.param
    folder = tmp_path / shape
    shutil.copytree(ROOT / "tests" / "moving" / shape, folder, ignore=shutil.ignore_patterns("__pycache__"))
    left = subprocess.run(["bash", "-c", STEP], cwd=folder, capture_output=True, text=True, check=False)
    for name, edits in BY_HAND.items():
        if name.startswith(f"{shape}/"):
            file = tmp_path / name
            text = file.read_text(encoding="utf-8")
            for before, after in edits:
                assert before in text, before
                text = text.replace(before, after)
            file.write_text(text, encoding="utf-8")
    named = {
        line.split(":")[0].removeprefix("./") for line in left.stdout.splitlines() if "def heroku_connect" not in line
    }
    assert named <= {name.removeprefix(f"{shape}/") for name in BY_HAND} | {"urls.py"}, left.stdout
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "settings")
    monkeypatch.setenv("HEROKU_AUTH_TOKEN", "a-token")
    project = Project(folder, f"hc_signals_{shape}")
    request.addfinalizer(project.drop)
    return project


@pytest.mark.parametrize(
    ("moved", "objects", "runner"),
    [
        ("comments", ["Case", "User"], "django"),
        ("recommendations", ["Account", "Opportunity", "User"], "pytest"),
        ("support", ["Contact", "Ticket__c"], "django"),
    ],
    indirect=["moved"],
)
def test_project_of_a_public_shape_moves(moved: Project, objects: list[str], runner: str) -> None:
    """It is checked, its applied migrations stay good, its records are signalled, and its own tests pass."""
    printed = moved.run("-c", RELEASE)
    assert sorted(re.findall(r"signal: (\w+) CREATE", printed)) == objects, printed
    assert set(re.findall(r"\b\w+\.[WE]\d{3}\b", printed)) <= {"hc_signals.W010"}, printed
    assert "No changes detected" in printed
    if runner == "pytest":
        printed = moved.run("-m", "pytest", "-p", "no:cacheprovider", "--ds", "settings", "advice/tests.py")
    else:
        printed = moved.run("-m", "django", "test", "--settings", "settings")
    assert re.search(r"Ran \d+ tests in .*\n\nOK\n|=+ \d+ passed in", printed), printed


def test_page_names_what_replaces_the_rest() -> None:
    for edits in BY_HAND.values():
        for _, after in edits:
            for name in re.findall(r"\b(?:HerokuConnectAPI|ConnectionState|heroku_app_name)\b", after):
                assert re.search(rf"`hc_signals\.[\w.]+\.{name}`", TEXT[PAGE])
