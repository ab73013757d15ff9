"""Schemas as orgs have them: inspect, check, install, deliver, without a correction by hand; two in one database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from hc_signals.capture import orphans
from hc_signals.tables import connected_models, quote
from hc_signals.testing import HerokuConnect
from tests import shapes
from tests.project import Project
from tests.test_inspect import inspect

SCHEMA = "shapes"

ALL_IS_WELL = """
call_command("check", databases=["default"])
call_command("hc_inspect", check=True)
call_command("hc_triggers", "install", verbosity=0)
call_command("hc_triggers", "status", check=True, verbosity=0)
"""


@pytest.fixture
def org(heroku: HerokuConnect) -> Iterator[None]:
    """Tables in many shapes, in a schema of their own."""
    shapes.make(SCHEMA)
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA {quote(SCHEMA)} CASCADE")
    orphans.remove(connected_models(), "default")


@pytest.mark.usefixtures("org")
def test_written_models_work_without_a_correction(tmp_path: Path) -> None:
    project = Project(tmp_path, {"org": inspect(schema=SCHEMA)})
    output = project.run(ALL_IS_WELL + "import tests.deliver_written")
    count = len(shapes.READ_ONLY) + len(shapes.READ_WRITE)
    assert "Every model can be read.\n" in output
    assert output.splitlines()[-1].startswith(f"{count} models, {count} delivered, ")
