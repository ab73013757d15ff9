"""The docs name what exists: every dotted name, command, option and setting in them is real."""

import json
import re
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_permission_codename
from django.dispatch import Signal
from django.utils.module_loading import import_string

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.events import ChangeEvent
from hc_signals.log.schema import Cause
from tests.pages import BLOCKS, ROOT, TEXT

CODE = "".join(
    f"{path}\n{path.read_text(encoding='utf-8')}"
    for folder in ("hc_signals", "migrations_sql", "example", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".sql", ".json")
)


def resolve(name: str) -> Any:
    """Return the module or object of a dotted name, also attributes of classes."""
    with suppress(ModuleNotFoundError):
        return import_module(name)
    try:
        return import_string(name)
    except ImportError:
        owner, _, attribute = name.rpartition(".")
        return getattr(import_string(owner), attribute)


@pytest.mark.parametrize("page", TEXT)
def test_dotted_names_exist(page: str) -> None:
    for name in set(re.findall(r"`(hc_signals(?:\.\w+)+)`", TEXT[page])):
        if not re.fullmatch(r"hc_signals\.[EW]\d{3}", name):  # ids of checks: test_project_checks.py has them
            resolve(name)


def test_parity_table_names_what_exists() -> None:
    table = TEXT["parity.md"].split("| django-heroku-connect 6.0 | here |", 1)[1].split("\n\n", 1)[0]
    rows = table.splitlines()[2:]
    assert len(rows) >= 15
    for row in rows:
        ours = row.split("|")[2]
        assert re.search(r"`hc_signals\.|`manage.py hc_", ours), row


def table_of(page: str, heading: str) -> list[str]:
    """Return the first cells of the table below a heading cell, in backticks each."""
    rows = TEXT[page].split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_settings_page_has_every_key_and_default() -> None:
    assert sorted(table_of("settings.md", "key")) == sorted(field.name for field in fields(Conf))
    for field in fields(Conf):
        default = f"{field.default:g}" if isinstance(field.default, int | float) else json.dumps(field.default)
        default = str(field.default) if isinstance(field.default, bool) else default
        assert re.search(rf"\| `{field.name}` \| `?{re.escape(default)}`? \|", TEXT["settings.md"]), field.name


def test_commands_page_has_every_command() -> None:
    commands = {path.stem for path in (ROOT / "hc_signals" / "management" / "commands").glob("hc_*.py")}
    listed = {name.split(" ")[0] for name in table_of("commands.md", "command")}
    assert {name for name in listed if name.startswith("hc_")} == commands


def test_signals_page_has_every_signal() -> None:
    known = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(table_of("signals.md", "signal")) == known


def test_signals_page_has_every_event_field() -> None:
    assert table_of("signals.md", "field") == [field.name for field in fields(ChangeEvent)]


def test_signals_page_has_every_cause_of_a_gap() -> None:
    of_capture = set(re.findall(r" \| `(\w+)` \| \w+ \|$", TEXT["drift.md"], re.MULTILINE))
    assert "uninstalled" in of_capture
    assert of_capture <= set(Cause)
    assert set(table_of("signals.md", "`event.cause`")) == set(Cause)


@pytest.mark.parametrize("page", [page for page in TEXT if page not in ("ecosystem.md", "parity.md", "metrics.md")])
def test_names_in_code_type_exist_in_the_code(page: str) -> None:
    """A page must not use the old name of a renamed setting, signal, table, column or option.

    The pages of the move and of other packages have others' names too; that of the metrics has a test of its own.
    """
    permissions = {
        get_permission_codename(how, m._meta) for m in apps.get_models() for how in m._meta.default_permissions
    }
    shown = "".join(block.code for block in BLOCKS if block.page == page and block.language == "python")  # which runs
    for name in set(re.findall(r"`(?:HC_SIGNALS\[\")?(\w+_\w+)", TEXT[page])):
        is_metric = f"| `{name}` |" in TEXT["metrics.md"]
        assert name in CODE or name in permissions or name in shown or is_metric, name


@pytest.mark.parametrize("page", [page for page in TEXT if page != "README.md"])
def test_contents_list_every_page(page: str) -> None:
    assert page == "index.md" or f"\n{page.removesuffix('.md')}\n" in TEXT["index.md"]


def documented() -> set[str]:
    """Return the dotted names that docs/api.md documents."""
    found: set[str] = set()
    entries = re.findall(r"^\.\. auto(\w+):: (\S+)(?:\n   :members:(.*))?", TEXT["api.md"], re.M)
    for kind, name, members in entries:
        if kind == "module":
            module = import_module(name)
            own = [each for each, value in vars(module).items() if getattr(value, "__module__", name) == name]
            own += [each for each, value in vars(module).items() if isinstance(value, Signal)]
            found |= {f"{name}.{each}" for each in members.replace(",", " ").split() or own}
        found.add(name)
    return found


def test_api_page_documents_names_that_exist() -> None:
    for name in documented():
        resolve(name)


def test_api_page_documents_every_public_name() -> None:
    """Public are the names that pages import, signals, errors, models with their fields, and the test kit."""
    public = {"hc_signals.db.models"}
    for block in BLOCKS:
        if block.language == "python":
            for module, names in re.findall(r"^from (hc_signals[\w.]*) import ([\w, ]+)", block.code, re.M):
                public |= {f"{module}.{name.split(' as ')[0].strip()}" for name in names.split(",")}
    for module in ("hc_signals.db.models", "hc_signals.exceptions", "hc_signals.signals", "hc_signals.testing"):
        names = getattr(import_module(module), "__all__", None) or vars(import_module(module))
        public |= {f"{module}.{name}" for name in names if is_public(getattr(import_module(module), name))}
    modules = {name.rpartition(".")[0] for name in documented()}
    assert public - documented() - modules == set()


def is_public(value: Any) -> bool:
    """True for a class, function or signal of hc_signals."""
    return isinstance(value, Signal) or str(getattr(value, "__module__", "")).startswith("hc_signals")
