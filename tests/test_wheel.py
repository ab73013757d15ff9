"""The wheel works without the checkout: the SQL files travel in it."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).parent.parent
PAGES_OF_THE_ADMIN = ("hc_signals/static/hc_signals/admin.css", "hc_signals/templates/admin/hc_signals/page.html")

SETTINGS = """
from pathlib import Path
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "pgtrigger", "hc_signals"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": %r, "HOST": %r, "PORT": %r, "USER": %r}}
"""

MANAGE = """
import sys
import hc_signals
from django.core.management import execute_from_command_line
sys.stderr.write(hc_signals.__file__)
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


@pytest.mark.usefixtures("bare_database")
def test_an_installed_wheel_migrates(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        assert {*PAGES_OF_THE_ADMIN} <= {*files.namelist()}
    # Dependencies come from this environment; the package itself must come from the wheel.
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    (site,) = environment.glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    here = connection.settings_dict
    (tmp_path / "settings.py").write_text(
        SETTINGS % ("hc_signals_bare", here["HOST"], here["PORT"], here["USER"]), encoding="utf-8"
    )
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
