"""A project for models that hc_inspect wrote; its commands run in another process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from django.db import connection

ROOT = Path(__file__).parent.parent

SETTINGS = """
from tests.worker_settings import *

INSTALLED_APPS = [{apps}]
ROOT_URLCONF = "tests.admin_urls"
{more}
"""
BEGIN = """
import django
from django.core.management import call_command
django.setup()
"""
_APPS = (
    *("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "django.contrib.messages"),
    *("django.contrib.admin", "django.contrib.staticfiles", "django.contrib.postgres", "pgtrigger", "hc_signals"),
)


class Project:
    """A project with one app for each module of models.

    Args:
        folder: folder of the project; files of an older project in it are replaced.
        apps: code of the models, by name of the app.
        settings: more lines of settings.
        database: name of a database on the server of this process; default: the test database.
    """

    def __init__(self, folder: Path, apps: Mapping[str, str], settings: str = "", database: str = "") -> None:
        self.folder, self.database = folder, database
        names = ", ".join(map(repr, (*_APPS, *apps)))
        (folder / "project_settings.py").write_text(SETTINGS.format(apps=names, more=settings), encoding="utf-8")
        for name, code in apps.items():
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "__init__.py").touch()
            (folder / name / "models.py").write_text(code, encoding="utf-8")

    def run(self, script: str, fails: bool = False) -> str:
        """Run Python in the project, after Django's setup; return the output of both streams."""
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + dedent(script)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout
        return done.stdout

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start Python with arguments; one pipe gets the output of both streams."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of the project's processes."""
        foreign = ("PYTEST", "COV", "DJANGO_SETTINGS_MODULE")
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "DJANGO_SETTINGS_MODULE": "project_settings",
            "PYTHONPATH": os.pathsep.join(map(str, (self.folder, ROOT, ROOT / "example"))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TEST_DATABASE": self.database or str(connection.settings_dict["NAME"]),
        }
