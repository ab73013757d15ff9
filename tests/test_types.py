"""Types as users see them: `make types` checks a project with mypy and pyright, and here it runs."""

import shutil
from pathlib import Path

from django.conf import settings

from hc_signals.db import models as hc_models
from tests import kit_project
from tests.pages import ROOT
from tests.server import own

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
