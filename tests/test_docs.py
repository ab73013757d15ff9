"""The docs name what exists: every dotted name, command, option and setting in them is real."""

import re
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.utils.module_loading import import_string

from hc_signals.conf import Conf

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {path.name: path.read_text(encoding="utf-8") for path in PAGES}


def resolve(name: str) -> Any:
    """Return the module or object; attributes of classes are reached as well."""
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


def test_every_row_of_the_parity_table_names_something_that_is_there() -> None:
    rows = [line for line in TEXT["parity.md"].splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 15
    for row in rows:
        ours = row.split("|")[2]
        assert re.search(r"`hc_signals\.|`manage.py hc_", ours), row


@pytest.mark.parametrize("page", TEXT)
def test_commands_and_their_arguments_exist(page: str) -> None:
    for line in re.findall(r"manage\.py (hc_\w+[^`\n#|]*)", TEXT[page]):
        command, *arguments = re.sub(r"\s+", " ", line).strip().rstrip(".").split(" ")
        parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
        known = {option for action in parser._actions for option in action.option_strings}
        subparsers = [action for action in parser._actions if hasattr(action, "_name_parser_map")]
        for sub in subparsers:
            for each in sub._name_parser_map.values():  # type: ignore[attr-defined]
                known |= {option for action in each._actions for option in action.option_strings}
        for argument in arguments:
            if argument.startswith("--"):
                assert argument.split("=")[0] in known, (page, line)


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    for field in fields(Conf):
        default = f'"{field.default}"' if isinstance(field.default, str) else f"{field.default:g}"
        default = str(field.default) if isinstance(field.default, bool) else default
        assert re.search(rf"\| `{field.name}` \| `?{re.escape(default)}`? \|", TEXT["README.md"]), field.name


def test_every_command_is_in_the_readme() -> None:
    for path in (ROOT / "hc_signals" / "management" / "commands").glob("hc_*.py"):
        assert f"`{path.stem}" in TEXT["README.md"], path.stem
