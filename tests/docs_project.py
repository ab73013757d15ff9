"""The project that docs/start.md builds, with its own folder and database."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.management import call_command

from tests.pages import BLOCKS, ROOT, Block, write_file
from tests.server import own

_SERVER = {key: settings.DATABASES["default"].get(key, "") for key in ("ENGINE", "USER", "PASSWORD", "HOST", "PORT")}


def on_the_server(statement: str) -> None:
    """Run one statement in the database ``postgres`` of the tests' server."""
    with psycopg.connect(
        host=_SERVER["HOST"] or None,
        port=int(_SERVER["PORT"] or 5432),
        user=_SERVER["USER"] or None,
        password=_SERVER["PASSWORD"] or None,
        dbname="postgres",
        autocommit=True,
    ) as server:
        server.execute(statement)


def write_start(folder: Path, databases: Mapping[str, Any]) -> None:
    """Write the files of docs/start.md into an empty folder.

    Args:
        folder: folder of the project.
        databases: ``DATABASES``, instead of the page's embedded server.
    """
    call_command("startproject", "shop", str(folder))
    add_app(folder, "crm")
    for block in BLOCKS:
        if block.page == "start.md" and block.language == "python":
            assert block.file, block
            write_file(folder, block.code)
    file = folder / "shop" / "settings.py"
    text, count = re.subn(
        r"^DATABASES = .*embedded.*$", f"DATABASES = {databases!r}", file.read_text("utf-8"), flags=re.M
    )
    assert count == 1, "the page's embedded server"
    file.write_text(text, encoding="utf-8")


def add_app(folder: Path, name: str) -> None:
    """Run startapp."""
    (folder / name).mkdir()
    call_command("startapp", name, str(folder / name))


class Project:
    """A Django project in a folder.

    Args:
        folder: its directory.
        database: begin of the name of its database, which is created and dropped here.
        template: name of the database to copy; empty without one.
    """

    def __init__(self, folder: Path, database: str, template: str = "") -> None:
        self.folder, self.database = folder, own(database)
        on_the_server(f'DROP DATABASE IF EXISTS "{self.database}" WITH (FORCE)')
        on_the_server(f'CREATE DATABASE "{self.database}"' + (f' TEMPLATE "{template}"' if template else ""))

    @property
    def url(self) -> str:
        """Return the database's URL, as Heroku would give it."""
        server = {key: str(value).replace("/", "%2F") for key, value in _SERVER.items()}
        port = f":{server['PORT']}" if server["PORT"] else ""
        return f"postgres://{server['USER']}:{server['PASSWORD']}@{server['HOST']}{port}/{self.database}"

    @property
    def database_settings(self) -> dict[str, Any]:
        """Return Django's settings of the database."""
        return _SERVER | {"NAME": self.database}

    def start(self) -> None:
        """Follow docs/start.md up to its triggers."""
        write_start(self.folder, {"default": self.database_settings})
        self.play([])

    def add_app(self, name: str) -> None:
        """Run startapp."""
        add_app(self.folder, name)

    def copy(self, folder: Path, database: str) -> "Project":
        """Return the same project in another folder, with its own copy of the database."""
        copied = Project(folder, database, self.database)
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        file = folder / "shop" / "settings.py"
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(f"'NAME': '{self.database}'", f"'NAME': '{copied.database}'"), encoding="utf-8")
        return copied

    def play(self, shown: list[Block], after: str = "") -> str:
        """Write a page's files, install capture, run the page's other Python, write changes; return the output.

        Args:
            shown: the page's blocks, in their order. Of the shell's commands it runs ``startapp``.
            after: Python to run at the end.
        """
        for block in shown:
            if block.language == "python" and block.file:
                write_file(self.folder, block.code)
            for app in re.findall(r"^python manage.py startapp (\w+)", block.code, re.M):
                self.add_app(app)
        shown = [block for block in shown if block.language == "python"]
        files = [block.file for block in shown if block.file]
        modules = [file.removesuffix(".py").replace("/", ".") for file in files if not file.startswith("shop/")]
        todo = {
            "modules": modules,
            "code": [block.code for block in shown if not block.file],
            "play": bool(shown),
            "after": after,
        }
        return self.run(str(ROOT / "tests" / "play_page.py"), json.dumps(todo))

    def run(self, *arguments: str) -> str:
        """Run Python in the folder; return its output.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            [sys.executable, "-P", "-W", "error", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the project's processes."""
        foreign = ("PYTEST", "COV", "DJANGO_SETTINGS_MODULE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        environment |= {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATABASE_URL": self.url,
            "DATABASE_CONNECTION_POOL_URL": self.url,
            "CELERY_BROKER_URL": "memory://",
        }
        return environment

    def drop(self) -> None:
        """Drop the database."""
        on_the_server(f'DROP DATABASE "{self.database}" WITH (FORCE)')
