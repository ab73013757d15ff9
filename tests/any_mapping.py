"""`make any-mapping`: whatever is mapped, hc_inspect's models are delivered as the ORM reads them.

For each seed, on a database of its own: random objects with random fields are mapped, and hc_inspect writes models.
In a new process the simulator plays changes on them; each is delivered at once, its instance held against the ORM's.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).parent.parent
APP = "org"

OBJECTS = (
    "Account",
    "Contact",
    "Order",
    "User",
    "RecordType",
    "Invoice__c",
    "Line_Item__c",
    "XYZ123__c",
    "Très_Long__c",
)
NOISE = ("system_mod_stamp", "_hc_lastop", "_hc_err")
LENGTHS = (1, 2, 4, 18, 32, 80, 255, 1300, 4099)


def field(chance: random.Random, name: str) -> tuple[str, dict[str, Any]]:
    """Return a field class and its arguments."""
    simple = ("AnyType", "Checkbox", "Date", "DateTime", "Time", "Email", "Phone", "TextArea", "TextAreaLong", "URL")
    kinds: dict[str, Any] = {kind: {} for kind in (*simple, "Integer", "FormulaText", "MultiPicklist", "Geolocation")}
    kinds |= {kind: {"max_length": chance.choice(LENGTHS)} for kind in ("Text", "EncryptedString")}
    kinds |= {kind: {"max_digits": 18, "decimal_places": chance.choice((0, 2))} for kind in ("Number", "Currency")}
    kinds["Percent"] = {"max_digits": 5, "decimal_places": 2}
    kinds["Picklist"] = {"choices": [(value, value) for value in ("Hot", "Cold", 'O\'Brien; \\ "x"')]}
    kinds["ID"] = {"unique": False}
    kind = chance.choice(sorted(kinds))
    return kind, {"sf_field_name": name, **kinds[kind]}


def mapped_models(seed: int) -> list[Any]:
    """Return models that stand for what is mapped in Salesforce."""
    from django.test.utils import isolate_apps

    from hc_signals.db import models as hc_models

    chance = random.Random(seed)
    names = chance.sample(OBJECTS, chance.randint(2, 4))
    made = []
    with isolate_apps("hc_signals"):
        for number, name in enumerate(names):
            attrs: dict[str, Any] = {"__module__": "hc_signals.models", "sf_object_name": name}
            for place in range(chance.randint(0, 10)):
                kind, arguments = field(chance, chance.choice(("F{}__c", "My_Field_{}__c", "Standard{}")).format(place))
                attrs[f"field_{place}"] = getattr(hc_models, kind)(**arguments)
            if chance.random() < 0.5:
                attrs["sf_access"] = "read_write"
                unique = [hc_models.ExternalID(sf_field_name="Key__c")]
                unique += [
                    hc_models.Text(sf_field_name="Key__c", max_length=length, upsert=True) for length in (4, 255)
                ]
                attrs["key"] = chance.choice(unique)
            for other in chance.sample(names, 2) if chance.random() < 0.7 else ():
                if not other.endswith("__c"):
                    attrs[f"to_{other}"] = hc_models.ID(sf_field_name=f"{other}Id", unique=False)  # a lookup's column
            made.append(type(f"Mapped{number}", (hc_models.HerokuConnectModel,), attrs))
    return made


def inspect(seed: int, folder: Path) -> None:
    """Map random objects and have the models written: from the tables, or every second time from the export."""
    import django

    django.setup()
    from django.core.management import call_command

    from hc_signals.testing import HerokuConnect

    models = mapped_models(seed)
    options: dict[str, Any] = {}
    if seed % 2:
        export = folder / "mapping.json"
        mapping = {"version": 1, "mappings": [model.get_heroku_connect_mapping() for model in models]}
        export.write_text(json.dumps(mapping), encoding="utf-8")
        options["mapping"] = str(export)
    else:
        HerokuConnect(models=models).create_tables()
    (folder / APP).mkdir()
    (folder / APP / "__init__.py").touch()
    with (folder / APP / "models.py").open("w", encoding="utf-8") as code:
        call_command("hc_inspect", stdout=code, **options)


def play(seed: int, changes: int) -> None:
    """Play that many changes and compare; print what was done."""
    import django

    django.setup()
    from django.core.management import call_command

    from hc_signals import signals
    from hc_signals.conf import Conf
    from hc_signals.tables import connected_models
    from hc_signals.testing import HerokuConnect
    from hc_signals.worker.loop import Worker

    call_command("check", fail_level="ERROR", verbosity=0)
    call_command("migrate", verbosity=0)
    heroku = HerokuConnect(seed=seed)
    heroku.create_tables()
    call_command("hc_triggers", "install", stdout=io.StringIO())
    held = Held()
    for signal in (signals.record_created, signals.record_updated, signals.record_deleted):
        signal.connect(held.compare)
    for _ in heroku.play(poll_size=40):
        worker = Worker("default", Conf(MAX_ATTEMPTS=1))
        worker.deliver_once()
        if held.errors or heroku.changes >= changes:
            break
    fields = sum(len(model._meta.concrete_fields) for model in connected_models())
    print(
        f"seed {seed}: {len(connected_models())} models with {fields} fields, {heroku.changes} changes, "
        f"{held.compared} instances compared, {len(held.errors)} differ"
    )
    for error in held.errors:
        print(error)
    call_command("hc_inspect", "--check", stdout=io.StringIO())
    sys.exit(bool(held.errors) or held.compared != heroku.changes)


class Held:
    """Holds every instance against what the ORM reads, a deleted one against the last that was delivered."""

    def __init__(self) -> None:
        self.compared = 0
        self.errors: list[str] = []
        self._last: dict[Any, dict[str, str]] = {}

    def compare(self, sender: Any, instance: Any, event: Any, **kwargs: Any) -> None:
        """Be the receiver."""
        key, found = (sender, instance.pk), state(instance)
        if event.change_type == "DELETE":
            expected = self._last.pop(key, {})  # made by the app and never changed since: nothing was delivered
        else:
            expected = self._last[key] = state(sender._base_manager.get(pk=instance.pk))
        for name, value in expected.items():
            is_kept = event.change_type != "DELETE" or name not in NOISE  # of which no signal tells
            if found.get(name) != value and is_kept:
                self.errors.append(f"{event.change_type} {sender.__name__}.{name}: {found.get(name)}, ORM: {value}")
        self.compared += 1


def state(instance: Any) -> dict[str, str]:
    """Return what the instance holds, without a query, as type and text."""
    loaded = instance.__dict__
    return {
        f.attname: f"{type(loaded[f.attname]).__name__} {loaded[f.attname]!r}" for f in instance._meta.concrete_fields
    }


def try_seed(seed: int, changes: int, url: str) -> str:
    """Try one seed on a new database of the server; return what was printed.

    Raises:
        AssertionError: something differs, or a command failed.
    """
    name = f"hc_signals_any_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as server, tempfile.TemporaryDirectory() as directory:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {name}")
        try:
            printed = ""
            for step in ("inspect", "play"):
                printed = _run(step, seed, changes, Path(directory), name)
            return printed
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _run(step: str, seed: int, changes: int, folder: Path, database: str) -> str:
    apps = ["django.contrib.postgres", "pgtrigger", "hc_signals", *([APP] if step == "play" else [])]
    (folder / "any_settings.py").write_text(
        f"from tests.worker_settings import *\nINSTALLED_APPS = {apps}\nROOT_URLCONF = None\nMIDDLEWARE = []\n"
        "TEMPLATES = []\n",
        encoding="utf-8",
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    environment |= {
        "DJANGO_SETTINGS_MODULE": "any_settings",
        "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT, ROOT / "example"))),
        "TEST_DATABASE": database,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "tests.any_mapping", f"--{step}", str(folder), "--seeds", str(seed)]
    done = subprocess.run(
        [*command, "--changes", str(changes)], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"seed {seed}, {step}:\n{done.stdout}{done.stderr}\n{_code(folder)}"
    return done.stdout


def _code(folder: Path) -> str:
    models = folder / APP / "models.py"
    return models.read_text(encoding="utf-8") if models.exists() else ""


def main() -> None:
    """Try each seed in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1-10", help="first and last seed (default: 1-10)")
    parser.add_argument("--changes", type=int, default=2000, help="changes for each seed (default: 2000)")
    parser.add_argument("--inspect", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--play", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    if options.inspect:
        return inspect(int(first), options.inspect)
    if options.play:
        return play(int(first), options.changes)
    from tests import settings  # starts a server, unless DATABASE_URL names one

    del settings
    for seed in range(int(first), int(last or first) + 1):
        print(try_seed(seed, options.changes, os.environ["DATABASE_URL"]), end="", flush=True)
    return None


if __name__ == "__main__":
    main()
