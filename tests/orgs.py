"""`make orgs`: writes models of an org, delivers changes with them, and compares each instance with the ORM's.

A source is an exported mapping (.json) or the tables of Heroku Connect (.sql). Each source gets its own database.
hc_inspect writes models, Django checks them, capture is installed, the simulator writes changes. Each change is
delivered before the next one, and its instance is compared with the ORM's. The admin shows a record of each model.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from hc_signals.testing.tables import create_hstore

ROOT = Path(__file__).parent.parent
STEPS = ("inspect", "check", "install", "simulate", "deliver", "compare")
COUNTS = ("tables", "models", "columns", "simulated", "delivered", "equal")

_ABOVE = (above / "shared" / "data" / "mappings" for above in Path(__file__).resolve().parents[1:])
SHARED_MAPPINGS = next((folder for folder in _ABOVE if folder.is_dir()), Path("no exported mappings"))
"""Exported mappings beside the checkout, which are not part of it."""

Show = Callable[[str], None]

_SCHEMAS = """
SELECT DISTINCT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%'
AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'sfid')
ORDER BY 1
"""
_TABLES = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
AND c.relname NOT LIKE '\\_%%'
"""


@dataclass
class Outcome:
    """The result of a source."""

    name: str
    codes: dict[str, int] = field(default_factory=dict)
    """Exit codes by step; the steps after a failed one are missing."""
    counts: dict[str, int] = field(default_factory=dict)
    printed: str = ""
    """Output of the last step; in the end, the differences."""
    models: str = ""
    """The code that hc_inspect wrote."""

    def __str__(self) -> str:
        return f"{self.codes} {self.counts}\n{self.printed}\n{self.models}"

    @property
    def is_well(self) -> bool:
        """Whether every step succeeded."""
        return list(self.codes.values()) == [0] * len(STEPS)


def try_out(
    sources: Sequence[Path],
    url: str,
    folder: Path,
    *,
    changes: int,
    seed: int = 0,
    name: str = "",
    show: Show = lambda line: None,
) -> Outcome:
    """Do all steps in one project, with an app for each source.

    Args:
        sources: files.
        url: URL of a database on the server; the function creates another one there.
        folder: an empty folder for the project.
        changes: least number of changes to write.
        seed: seed of the random changes.
        name: name in the table; default: the name of the first source.
        show: called with each line of progress.
    """
    outcome = Outcome(name or sources[0].name)
    database = f"hc_signals_org_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {database}")
        try:
            with psycopg.connect(url, dbname=database, autocommit=True) as connection:
                _Way(outcome, sources, connection, folder, database, show).go(changes, seed)
        finally:
            server.execute(f"DROP DATABASE {database} WITH (FORCE)")
    return outcome


@dataclass
class _Way:
    """The steps of one project."""

    outcome: Outcome
    sources: Sequence[Path]
    connection: "psycopg.Connection[Any]"
    folder: Path
    database: str
    show: Show
    schemas: list[str] = field(default_factory=list)
    mappings: dict[str, Path] = field(default_factory=dict)
    """Exported mappings by schema."""
    apps: dict[str, str] = field(default_factory=dict)

    def go(self, changes: int, seed: int) -> None:
        self._find()
        if self._inspect() and self._run("check", "check", "--fail-level", "ERROR") and self._install():
            self._play(changes, seed)

    def _find(self) -> None:
        create_hstore(self.connection.cursor())
        for source in self.sources:
            if source.suffix == ".sql":
                self.connection.execute(source.read_bytes())
                self.connection.execute("RESET ALL")
            else:
                self.mappings[f"org_{len(self.mappings)}" if len(self.sources) > 1 else "salesforce"] = source
        live = [schema for (schema,) in self.connection.execute(_SCHEMAS)]
        for schema in live:  # from a dump of a real schema; let the simulator write to it
            found = self.connection.execute("SELECT to_regclass(%s) IS NOT NULL", [f'"{schema}"._hcmeta']).fetchone()
            if found == (True,):
                self.connection.execute(
                    f'TRUNCATE "{schema}"._hcmeta; '  # type: ignore[arg-type]
                    f"INSERT INTO \"{schema}\"._hcmeta (hcver, org_id, details) VALUES (1, 'simulated', '')"
                )
        self.schemas = [*live, *self.mappings]

    def _inspect(self) -> bool:
        self._make_project()
        for number, schema in enumerate(self.schemas):
            options = ["--mapping", str(self.mappings[schema])] if schema in self.mappings else []
            if not self._run("inspect", "hc_inspect", "--schema", schema, *options):
                return False
            self.apps[f"org{number}"] = self.outcome.printed
        self._make_project()
        self.outcome.models = "\n\n".join(self.apps.values())
        return True

    def _make_project(self) -> None:
        from tests.project import Project

        self.project = Project(self.folder, self.apps, database=self.database)

    def _install(self) -> bool:
        commands = [
            ("migrate", "-v0"),
            ("hc_simulate", "--create-only"),
            ("hc_triggers", "install"),
            ("hc_triggers", "status", "--check"),
            ("check", "--database", "default", "--fail-level", "ERROR"),
            ("hc_inspect", "--check"),
            *(("hc_mappings", "check", str(path), "--schema", each) for each, path in self.mappings.items()),
        ]
        return self._processes("install", [["-c", f"{_MANAGE}\nmain({commands!r})"]])

    def _play(self, changes: int, seed: int) -> None:
        self._processes("simulate", [["-m", "tests.play_org", "--seed", str(seed), "--changes", str(changes)]])
        if self.outcome.codes["simulate"]:
            return
        found = json.loads(self.outcome.printed.strip().rpartition("\n")[2])
        counted = self.connection.execute(_TABLES, [self.schemas]).fetchone()
        left_out = sum(len(re.findall(r"^# Left out: ", code, re.M)) for code in self.apps.values())
        tables = (counted or (0,))[0] - left_out
        counts = {"tables": tables, "equal": found["delivered"] - found["differing"]} | found
        self.outcome.counts = {name: counts[name] for name in COUNTS}
        all_delivered = found["delivered"] == found["simulated"] and not found["silent"] and not found["failed"]
        all_equal = not found["differing"] and not found["admin"] and tables == found["models"]
        self.outcome.codes |= {"deliver": int(not all_delivered), "compare": int(not all_equal)}
        problems = [*found["problems"], *found["failed"], *found["admin"], *(f"silent: {m}" for m in found["silent"])]
        self.outcome.printed = "\n".join(problems)

    def _run(self, step: str, *command: str) -> bool:
        return self._processes(step, [["-m", "django", *command]])

    def _processes(self, step: str, commands: Iterable[list[str]]) -> bool:
        """Run Python processes until one fails; store the output of the last one."""
        self.show(f"{self.outcome.name}: {step}")
        for command in commands:
            lines = []
            with self.project.start(*command) as process:
                for line in process.stdout or ():
                    if line.startswith("progress: "):
                        self.show(f"{self.outcome.name}: {line.removeprefix('progress: ').strip()}")
                    else:
                        lines.append(line)
            self.outcome.codes[step] = process.returncode
            self.outcome.printed = "".join(lines)
            if process.returncode:
                return False
        return True


_MANAGE = """
import django
from django.core.management import call_command
django.setup()
def main(commands):
    for command in commands:
        print(*command, flush=True)
        call_command(*command)
"""


def row(cells: Sequence[object], width: int) -> str:
    """Return a line of the table: the name, the exit codes, the counts.

    Args:
        cells: cells of the line.
        width: width of the first cell.
    """
    name, *rest = (str(cell) for cell in cells)
    return name.ljust(width) + "".join(cell.rjust(10) for cell in rest)


def line_of(outcome: Outcome, width: int) -> str:
    """Return an outcome as a line of the table, with ``-`` for steps that did not run."""
    codes = [outcome.codes.get(step, "-") for step in STEPS]
    return row([outcome.name, *codes, *(outcome.counts.get(name, "-") for name in COUNTS)], width)


def server_url() -> str:
    """Return DATABASE_URL, or the URL of a server that is started for this process."""
    from tests import settings  # starts it

    del settings
    return os.environ["DATABASE_URL"]


def main() -> None:
    """Try each source and print the table; exit 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", type=Path, help="default: shared/data/mappings beside the checkout")
    parser.add_argument("--changes", type=int, default=500, help="least number of changes for each (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random changes (default: 0)")
    options = parser.parse_args()
    sources = options.sources or sorted(SHARED_MAPPINGS.rglob("*.json"))
    if not sources:
        print("orgs: not run: there is no folder shared/data/mappings beside the checkout, and no file was named")
        return
    names = [f"{source.parent.name}/{source.name}" for source in sources]
    width = max(map(len, names)) + 1
    url = server_url()
    print(row(["", *STEPS, *COUNTS], width), flush=True)
    failed = []
    for source, name in zip(sources, names, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_out(
                [source.resolve()],
                url,
                Path(folder),
                changes=options.changes,
                seed=options.seed,
                name=name,
                show=lambda line: print(line, file=sys.stderr, flush=True),
            )
        print(line_of(outcome, width), flush=True)
        failed += [] if outcome.is_well else [outcome]
    for outcome in failed:
        print(f"\n{outcome.name}:\n{outcome}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
