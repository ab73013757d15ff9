"""A project of its own, for models that hc_inspect has written: its commands run in another process."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from django.db import connection

ROOT = Path(__file__).parent.parent

SETTINGS = """
from tests.worker_settings import *

INSTALLED_APPS = ["django.contrib.postgres", "pgtrigger", "hc_signals", {apps}]
ROOT_URLCONF = None
MIDDLEWARE = []
TEMPLATES = []
{more}
"""
BEGIN = """
import django
from django.core.management import call_command
django.setup()
"""


class Project:
    """One app for each text of models, on the test database.

    Args:
        folder: an empty one.
        apps: the code of the models by the app's name.
        settings: more lines of settings.
    """

    def __init__(self, folder: Path, apps: dict[str, str], settings: str = "") -> None:
        self.folder = folder
        names = ", ".join(map(repr, apps))
        (folder / "project_settings.py").write_text(SETTINGS.format(apps=names, more=settings), encoding="utf-8")
        for name, code in apps.items():
            (folder / name).mkdir()
            (folder / name / "__init__.py").touch()
            (folder / name / "models.py").write_text(code, encoding="utf-8")

    def run(self, script: str, fails: bool = False) -> str:
        """Run Python in the project, after Django's setup; return what it printed on either stream."""
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + dedent(script)],
            cwd=self.folder,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "project_settings",
                "PYTHONPATH": os.pathsep.join(map(str, (self.folder, ROOT, ROOT / "example"))),
                "TEST_DATABASE": connection.settings_dict["NAME"],
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout
        return done.stdout
