"""The wheel works without the checkout; test_ten_minutes.py installs it in an empty folder."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from django.db import connection

from hc_signals import __version__
from tests import released
from tests.conftest import BARE

ROOT = Path(__file__).parent.parent
PAGES_OF_THE_ADMIN = ("hc_signals/static/hc_signals/admin.css", "hc_signals/templates/admin/hc_signals/page.html")

SETTINGS = """
from pathlib import Path
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.postgres", "pgtrigger", "hc_signals"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": %r, "HOST": %r, "PORT": %r, "USER": %r}}
"""

MANAGE = """
import sys
import hc_signals
from django.core.management import execute_from_command_line
sys.stderr.write(hc_signals.__file__)
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def test_twine_accepts_the_distributions(distributions: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_version_has_one_place_and_wheel_has_types(distributions: Path) -> None:
    (wheel,), (sdist,) = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    assert wheel.name == f"hc_signals-{__version__}-py3-none-any.whl"
    assert sdist.name == f"hc_signals-{__version__}.tar.gz"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"hc_signals/py.typed", "hc_signals/operations.md", *PAGES_OF_THE_ADMIN} <= names
    assert {f"hc_signals/migrations_sql/{path.name}" for path in (ROOT / "migrations_sql").glob("*.sql")} <= names
    assert {name.split("/")[0] for name in names} == {"hc_signals", f"hc_signals-{__version__}.dist-info"}


def test_classifiers_match_the_docs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")
    for kind, name in (("Framework :: Django", "Django"), ("Programming Language :: Python", "Python")):
        versions = [text.rsplit(" ", 1)[1] for text in project["classifiers"] if re.match(rf"{kind} :: \d\.\d", text)]
        assert f"| {name} | {', '.join(versions)} |" in rows


def test_changelog_keeps_its_form() -> None:
    assert list(released.changelog_problems()) == []


def test_pages_say_whether_a_version_is_released() -> None:
    """The release check refuses the same pages in the other state."""
    now = released.is_released()
    assert list(released.page_problems(released=now)) == []
    found = [problem.split()[0] for problem in released.page_problems(released=not now)]
    assert found == list(released.HINTED)


def test_release_needs_its_tag_and_a_date() -> None:
    (problem, *_) = released.problems("v9.9.9")
    assert problem.startswith(f"the tag is v9.9.9, the version of hc_signals/__init__.py is {__version__}")
    has_no_date = f" - {released.NOT_YET}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert any(text.endswith("write the date") for text in released.problems(f"v{__version__}")) is has_no_date


def test_distributions_have_no_file_of_others(distributions: Path) -> None:
    """Such a file has a notice of its licence, which would belong beside ours."""
    (sdist,) = distributions.glob("*.tar.gz")  # has all that the wheel has
    notice = re.compile(rb"copyright (?:\(c\)|\xc2\xa9|\d{4})|(?:@|SPDX-)licen[cs]e", re.I)
    with tarfile.open(sdist) as archive:
        files = [member for member in archive if member.isfile() and not member.name.endswith("/LICENSE")]
        found = [member.name for member in files if notice.search(archive.extractfile(member).read())]  # type: ignore[union-attr]
    assert len(files) > 100
    assert found == []


@pytest.mark.usefixtures("bare_database")
def test_installed_wheel_migrates(tmp_path: Path, distributions: Path) -> None:
    """The wheel was built from the sdist, so the sdist has all that is needed."""
    (wheel,) = distributions.glob("*.whl")
    # Dependencies come from this environment; the package itself must come from the wheel.
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    (site,) = environment.glob("lib/python*/site-packages")
    # pip itself warns of what it will change, and warnings are errors here.
    pip = [sys.executable, "-W", "ignore", "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*pip, str(site), str(wheel)], check=True)
    here = connection.settings_dict
    (tmp_path / "settings.py").write_text(SETTINGS % (BARE, here["HOST"], here["PORT"], here["USER"]), encoding="utf-8")
    dependencies = next(path for path in sys.path if path.endswith("site-packages"))
    for command in (["migrate", "--verbosity", "0"], ["hc_triggers", "status"], ["hc_simulate", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", MANAGE, *command],
            cwd=tmp_path,
            env={
                **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
                "PYTHONPATH": f"{site}:{tmp_path}:{dependencies}",
                "DJANGO_SETTINGS_MODULE": "settings",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert str(site) in done.stderr, "not the wheel was tested"
