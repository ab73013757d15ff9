"""Runs the tests on the rows of tests/matrix.py, each in an environment of its own: `make matrix`."""

import nox

from tests.matrix import DIRECTORY, ROWS, Row
from tests.server import found, major_version

nox.options.default_venv_backend = "uv"  # can take the lowest versions
nox.options.download_python = "never"
nox.options.envdir = "build/nox"
nox.options.error_on_missing_interpreters = False  # the table says that the row was not run


def add(row: Row) -> None:
    """Add a session for one row. pytest's arguments replace `-n auto`: make matrix MATRIX="-s ROW -- -n1 -x"."""

    @nox.session(name=row.name, python=row.python, venv_params=["--seed"])  # tests install with pip
    def run(session: nox.Session) -> None:
        programs = {major_version(each): each for each in found()}
        if row.postgres not in programs:
            session.skip(f"no PostgreSQL {row.postgres} is found; `make servers` installs it")
        resolution = "lowest-direct" if row.lowest else "highest"
        session.install("--resolution", resolution, "-e", ".[dev]", *row.requirements)
        # A plain environment: the server of this row. Subprocesses of tests get Python's warnings as errors as well.
        environment = {"PG_BIN": str(programs[row.postgres]), "DATABASE_URL": None}
        answer = session.run("python", "-m", "tests.matrix", "versions", env=environment, silent=True)
        (DIRECTORY / f"{row.name}.txt").write_text(str(answer))
        results = f"--junit-xml={DIRECTORY / row.name}.xml"
        arguments = session.posargs or ["-n", "auto", "--dist", "worksteal"]
        session.run("python", "-m", "pytest", "-q", results, *arguments, env=environment)


for _row in ROWS:
    add(_row)
