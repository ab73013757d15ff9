"""Types as users see them: `make types` checks a project with mypy and pyright, and here it runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from hc_signals.db import models as hc_models
from tests import kit_project
from tests.pages import BLOCKS, ROOT, TEXT, write_file
from tests.server import own

BIN = Path(sys.executable).parent
PROJECT = ROOT / "tests" / "typed_project"


def test_typed_project_passes_its_tests(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    server = {key: settings.DATABASES["default"][key] for key in ("ENGINE", "HOST", "PORT", "USER", "PASSWORD")}
    chosen = {"default": {**server, "NAME": "typed", "TEST": {"NAME": own("hc_signals_typed")}}}
    with (folder / "settings.py").open("a", encoding="utf-8") as file:
        file.write(f"\nDATABASES = {chosen!r}\n")
    printed = kit_project.run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".", settings_module="settings")
    assert "5 passed" in printed, printed


def test_types_of_a_field_may_be_named_at_run_time() -> None:
    class Shout(hc_models.Text[str, str]):
        """A field class of a project, with the types that it sets and gets."""

    assert hc_models.Lookup["Account", "Account"] is hc_models.Lookup
    assert Shout.__mro__[1] is hc_models.Text
    assert Shout(sf_field_name="Name", max_length=3).max_length == 3


# -- docs/types.md -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of the ten-minute start with the files of the page."""
    folder = tmp_path_factory.mktemp("page")
    kit_project.make(folder, {"pyrightconfig.json": '{"typeCheckingMode": "strict"}'})
    for block in BLOCKS:
        if block.page == "types.md" and block.file:
            write_file(folder, block.code)
    return folder


FILES = {block.file for block in BLOCKS if block.page == "types.md" and block.file.endswith(".py")}


def errors(folder: Path, *command: str) -> list[str]:
    """Run a type checker; return the errors in the page's files. The page of the start has no annotations."""
    # As in an activated environment: pyright takes the packages of the first Python in the PATH.
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = (line.strip().removeprefix(f"{folder}/") for line in done.stdout.splitlines())
    return [line for line in lines if line.partition(":")[0] in FILES and "error" in line]


def test_mypy_finds_the_mistake_of_the_page(page_project: Path) -> None:
    (error,) = errors(page_project, str(BIN / "mypy"), "crm")
    shown = " ".join(TEXT["types.md"].split("\ncrm/mistakes.py")[1].split("; ...")[0].split())
    sentence = shown.partition(' "def ')[0]  # older versions of mypy write the type of the function in another way
    assert error.startswith(f"crm/mistakes.py{sentence}")
    assert "Contact" in error


def test_pyright_finds_the_mistake_of_the_page(page_project: Path) -> None:
    (error,) = errors(page_project, str(BIN / "basedpyright"), "crm")
    assert error.startswith("crm/mistakes.py:8:2 - error")


def test_tests_of_the_page_pass(page_project: Path) -> None:
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "crm/test_typed.py")
    printed = kit_project.run(page_project, *command, settings_module="shop.settings")
    assert "1 passed" in printed, printed
