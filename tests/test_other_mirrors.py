"""docs/other-mirrors.md, followed literally: another tool fills a table without Heroku Connect's columns."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.docs_project import Project
from tests.pages import BLOCKS, ROOT, write_file
from tests.test_worker_process import wait_until

PAGE = [block for block in BLOCKS if block.page == "other-mirrors.md"]
CREATE, ADD_KEY = (block.code for block in PAGE if block.language == "sql")
(PRINTED,) = [block.code for block in PAGE if block.language == "text" and block.code.startswith("CREATE Roof")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("mirrors"), "hc_signals_mirrors")
    project.start()
    with psycopg.connect(project.url, autocommit=True) as database:
        database.execute(CREATE)
    for block in PAGE:
        if block.language == "python" and block.file:
            write_file(project.folder, block.code)
    project.run("manage.py", "hc_triggers", "install")
    yield project
    project.drop()


def mirror(project: Project, *rows: str) -> None:
    """Run the page's script."""
    file = project.folder / "rows.csv"
    file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    project.run(str(ROOT / "tests" / "mirror_script.py"), project.url, str(file))


@contextmanager
def running(project: Project, log: Path, *arguments: str) -> Iterator[Any]:
    """Run a command in the background; the log has its output."""
    command = [sys.executable, "-P", "manage.py", *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=project.environment, cwd=project.folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_hc_listen_delivers_what_a_mirror_writes(project: Project, tmp_path: Path) -> None:
    """The script copies into a temporary table, then INSERT ... ON CONFLICT and DELETE; the app's writes are silent."""
    log = tmp_path / "listen"
    with running(project, log, "hc_listen"), psycopg.connect(project.url, autocommit=True) as app:
        mirror(project, "a,Roof", "b,Door")
        mirror(project, "a,Roof", "b,Door")
        app.execute("INSERT INTO mirror.opportunity VALUES ('c', 'by the app')")
        mirror(project, "a,New roof", "c,by the app")
        wait_until(lambda: PRINTED.splitlines(keepends=True)[-1] in log.read_text())
        printed = [line for line in log.read_text().splitlines() if "acme-mirror" in line]
    assert "\n".join(printed) + "\n" == PRINTED


def test_backfill_reads_a_table_with_a_text_key(project: Project) -> None:
    mirror(project, *(f"{letter},Job {letter}" for letter in "abcdefg"))
    project.run("manage.py", "hc_listen", "--once")
    project.run("manage.py", "hc_backfill", "crm.Opportunity", "--receiver", "crm.receivers.on_opportunity")
    printed: Any = project.run("manage.py", "hc_listen", "--once")
    printed = [line for line in printed.splitlines() if "Job" in line]
    assert printed == [f"SNAPSHOT Job {each} backfill" for each in "abcdefg"]


def test_commands_know_a_table_without_salesforces_columns(project: Project) -> None:
    """The missing columns are no problem to status and checks."""
    assert "mirror.opportunity: installed" in project.run("manage.py", "hc_triggers", "status", "--check")
    assert "mirror.opportunity" not in project.run("manage.py", "check", "--database", "default")
    command = [sys.executable, "-P", "manage.py", "hc_status", "--json"]
    done = subprocess.run(
        command, env=project.environment, cwd=project.folder, capture_output=True, text=True, check=False
    )
    findings = json.loads(done.stdout)["findings"]
    about_it = [finding for finding in findings if "mirror" in finding["text"]]
    assert about_it, findings
    assert {finding["problem"] for finding in about_it} <= {"", "capture-absent"}, about_it


@pytest.mark.parametrize("kind", ["uuid DEFAULT gen_random_uuid()", "int GENERATED ALWAYS AS IDENTITY"])
def test_generated_column_is_added_to_another_key(project: Project, kind: str) -> None:
    with psycopg.connect(project.url) as database:
        database.execute(f"CREATE TABLE mirror.site (site_key {kind} PRIMARY KEY, name text)")
        database.execute("INSERT INTO mirror.site (name) VALUES ('x')")
        database.execute(ADD_KEY)
        assert database.execute("SELECT id = site_key::text FROM mirror.site").fetchone() == (True,)
        database.rollback()
