"""The project of docs/start.md, whose tests run on the server of this test run."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import django
from django.conf import settings

from tests.docs_project import write_start
from tests.pages import ROOT
from tests.server import own

FORKING = """
import multiprocessing

from manage import main

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
"""
_OWN = ("PYTEST", "COV", "DJANGO_SETTINGS_MODULE", "PYTHONPATH")


def make(directory: Path, files: Mapping[str, str], *, databases: tuple[str, ...] = ("default",)) -> None:
    """Write the project of the ten-minute start, and other files.

    Args:
        directory: an empty directory.
        files: texts by path; each one is appended to its file.
        databases: aliases; each one gets its own test database on the server of this test run.
    """
    server = {key: settings.DATABASES["default"][key] for key in ("ENGINE", "HOST", "PORT", "USER", "PASSWORD")}
    chosen = {
        alias: {**server, "NAME": f"kit_{alias}", "TEST": {"NAME": own(f"hc_signals_{alias}")}} for alias in databases
    }
    write_start(directory, chosen)
    for name, text in files.items():
        with (directory / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}")


def manage_parallel(directory: Path) -> str:
    """Return the program that runs tests in parallel; docs/testing.md says why it may have to choose how to fork."""
    if sys.version_info < (3, 14) or django.VERSION >= (6, 0):
        return "manage.py"
    (directory / "forking.py").write_text(FORKING, encoding="utf-8")
    return "forking.py"


def run(directory: Path, *command: str, settings_module: str = "") -> str:
    """Run a Python module in the project; return its output.

    Args:
        settings_module: DJANGO_SETTINGS_MODULE of the process; empty: the project sets it.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_OWN)}
    environment |= {"PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)])}
    environment |= {"DJANGO_SETTINGS_MODULE": settings_module} if settings_module else {}
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr
