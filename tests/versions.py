"""Older versions of hc_signals, run in processes of their own: for tests of upgrades.

Their code comes from the history of this repository. The schema of one is what its own `migrate` makes, so a test needs
no copy of a database, whose transaction ids would be those of another server.

For a new release, add its tag to VERSIONS. If a version cannot work beside this one, list it in CANNOT_OVERLAP.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import psycopg
import pytest

ROOT = Path(__file__).parent.parent

VERSIONS = {
    "0.1.0.dev1": "608c0c4",  # without the table of calls
    "0.1.0.dev2": "750bfbb",
}
"""Commits or tags, by version."""
KNOWN = {"Django": (6, 0), "Python": (3, 13)}
"""The newest versions that all of them know; with others their tests are skipped."""
CANNOT_OVERLAP = {"0.1.0.dev1", "0.1.0.dev2"}
"""Versions whose workers must stop before the migration to this one: docs/upgrading.md must say so."""

NEW = ROOT
"""The code of this version."""

_FILES = {
    "settings.py": """
        import json, os
        SECRET_KEY = "x"
        INSTALLED_APPS = [
            "django.contrib.contenttypes", "django.contrib.postgres", "pgtrigger", "hc_signals", "shop.apps.ShopConfig"
        ]
        DATABASES = {"default": json.loads(os.environ["DATABASE_JSON"])}
        DATABASE_ROUTERS = ["hc_signals.db.router.HerokuConnectRouter"]
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        HC_SIGNALS = {
            "BATCH_SIZE": 3, "CONSUMER": os.environ.get("CONSUMER", "default"),
            "RETRY_SECONDS": 0.2, "RETRY_MAX_SECONDS": 1, "WATCH_SECONDS": 1,
        }
        """,
    "shop/__init__.py": "",
    "shop/apps.py": """
        from django.apps import AppConfig

        class ShopConfig(AppConfig):
            name = "shop"

            def ready(self):
                from shop import receivers
        """,
    "shop/models.py": """
        from django.db import models
        from hc_signals.db import models as hc_models

        class Account(hc_models.HerokuConnectModel):
            sf_object_name = "Account"
            name = hc_models.Text(sf_field_name="Name", max_length=255)
            description = hc_models.TextAreaLong(sf_field_name="Description")

        class Heard(models.Model):
            consumer = models.TextField()
            receiver = models.TextField()
            record = models.TextField()
            change = models.TextField()
            code = models.TextField()
        """,
    "shop/receivers.py": """
        import os
        from pathlib import Path
        from django.dispatch import receiver
        import hc_signals
        from hc_signals.signals import gap_detected, record_changed
        from shop.models import Account, Heard

        def write(name, record, change, using):
            Heard.objects.using(using).create(
                consumer=os.environ.get("CONSUMER", "default"), receiver=name, record=record, change=change,
                code=Path(hc_signals.__file__).parent.parent,
            )

        def words(event, instance):
            return f"{event.change_type} {instance.name} {instance.description}"

        @receiver(record_changed, sender=Account)
        def ledger(event, instance, using, **kwargs):
            if instance.name == os.environ.get("DIE_AT"):
                os._exit(9)
            write("ledger", event.record_id, words(event, instance), using)

        @receiver(record_changed, sender=Account)
        def flaky(event, instance, using, **kwargs):
            if instance.name == os.environ.get("FAIL_AT"):
                raise ValueError("not now")
            write("flaky", event.record_id, words(event, instance), using)

        @receiver(gap_detected, sender=Account)
        def gap(event, using, **kwargs):
            write("gap", "", event.cause, using)
        """,
}
_MANAGE = """
import sys
import hc_signals
assert hc_signals.__file__.startswith(sys.argv[1]), hc_signals.__file__
from django.core.management import execute_from_command_line
for command in sys.argv[2:]:
    execute_from_command_line(["manage.py", *command.split()])
"""


def code_of(version: str, folder: Path) -> Path:
    """Return a directory with the code of an older version; skip the test if the repository does not have it."""
    for name, here in (("Django", django.VERSION[:2]), ("Python", sys.version_info[:2])):
        if here > KNOWN[name]:
            pytest.skip(f"{version} does not know {name} {here[0]}.{here[1]}")
    parts = ["hc_signals", "migrations_sql", "docs/operations.md"]
    done = subprocess.run(["git", "-C", ROOT, "archive", VERSIONS[version], *parts], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the code of {version} needs a clone with history, where git finds {VERSIONS[version]}")
    code = folder / version
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(code, filter="data")
    return code


def newest_migration(code: Path) -> str:
    """Return the name of the last migration of a version."""
    return max(path.stem for path in (code / "hc_signals" / "migrations").glob("0*.py"))


class Site:
    """A project on a database of its own. Each command says which version's code it runs.

    Args:
        folder: where its files go.
        database: Django's settings of an empty database.
    """

    def __init__(self, folder: Path, database: dict[str, Any]) -> None:
        self.folder, self.database = folder, database
        for name, text in _FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            lines = text.strip("\n").splitlines()
            (folder / name).write_text("\n".join(line[8:] for line in lines) + "\n", encoding="utf-8")

    def start(self, code: Path, *commands: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a process that runs management commands, one after the other; its output goes to a file."""
        # Without bytecode each process would compile the package again.
        foreign = ("PYTEST", "COV", "DJANGO_SETTINGS_MODULE", "DATABASE_URL", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        with (self.folder / "output").open("a") as output:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", _MANAGE, str(code), *commands],
                cwd=self.folder,
                env=kept
                | {
                    "DJANGO_SETTINGS_MODULE": "settings",
                    "PYTHONPATH": os.pathsep.join(map(str, (code, self.folder))),
                    "DATABASE_JSON": json.dumps(self.database),
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What all commands have printed."""
        return (self.folder / "output").read_text(encoding="utf-8")

    def run(self, code: Path, *commands: str, exits: int = 0, **environment: str) -> None:
        """Run management commands in one process to its end."""
        assert self.start(code, *commands, **environment).wait(120) == exits, f"{commands}\n{self.output}"

    def create(self, code: Path) -> None:
        """Make everything as an app does that begins with this version."""
        self.run(code, "migrate --run-syncdb --verbosity 0", "hc_simulate --create-only", "hc_triggers install")

    def wait_until(self, condition: Callable[[], bool], seconds: float = 90) -> None:
        """Wait until the condition is met."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.output
            time.sleep(0.2)


class Salesforce:
    """Changes records as Heroku Connect does, and remembers what the receivers are to hear of each one."""

    RECORDS = 4

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection
        connection.autocommit = True
        connection.execute("SET xmlbinary = 'hex'")
        self.changes: dict[str, list[str]] = {}
        self._number = 0

    def write(self, count: int) -> list[str]:
        """Make changes, one record after the other; return the names that the records get."""
        return [self._change() for _ in range(count)]

    def delete(self) -> None:
        """Delete the first record."""
        record = next(iter(self.changes))
        self._connection.execute("DELETE FROM salesforce.account WHERE sfid = %s", [record])
        _, values = self.changes[record][-1].split(" ", 1)
        self.changes[record].append(f"DELETE {values}")

    def _change(self) -> str:
        record, name = f"001{self._number % self.RECORDS:015}", f"name {self._number}"
        self._number += 1
        is_new = self.changes.get(record, ["DELETE"])[-1].startswith("DELETE")
        # The text that stays is in the new image alone.
        sql = (
            "INSERT INTO salesforce.account (name, sfid, description) VALUES (%s, %s, 'stays')"
            if is_new
            else "UPDATE salesforce.account SET name = %s WHERE sfid = %s"
        )
        self._connection.execute(sql, [name, record])
        kind = "CREATE" if is_new else "UPDATE"
        self.changes.setdefault(record, []).append(f"{kind} {name} stays")
        return name

    def heard(self, consumer: str, receiver: str) -> dict[str, list[str]]:
        """Return what a receiver has heard of each record, in its order."""
        found = self._connection.execute(
            "SELECT record, change FROM shop_heard WHERE consumer = %s AND receiver = %s ORDER BY id",
            [consumer, receiver],
        )
        heard: dict[str, list[str]] = {}
        for record, change in found:
            heard.setdefault(record, []).append(change)
        return heard

    def is_all_heard(self, consumer: str) -> bool:
        """Return whether both receivers have heard as many changes as there are, or more."""
        expected = sum(map(len, self.changes.values()))
        return all(sum(map(len, self.heard(consumer, name).values())) >= expected for name in ("ledger", "flaky"))

    def count(self, sql: str) -> int:
        """Return the number that a statement selects."""
        row = self._connection.execute(sql).fetchone()  # type: ignore[call-overload]
        return int(row[0])
