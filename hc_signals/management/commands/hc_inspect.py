"""``manage.py hc_inspect``: writes connected models from what Heroku Connect has mapped, or holds them against it."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.heroku.inspection import Table, differences, live_tables, mapped_tables, models_code
from hc_signals.management.base import OwnCommand
from hc_signals.postgres.errors import one_line
from hc_signals.tables import connected_models, get_schema


class Command(OwnCommand):
    help = "Write connected models from the live tables or from an exported mapping; --check holds models against them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("objects", nargs="*", metavar="OBJECT", help="tables or object names (default: all)")
        parser.add_argument("--database", default="default", help="database alias (default: default)")
        parser.add_argument("--schema", help="schema of the tables (default: HEROKU_CONNECT_SCHEMA)")
        parser.add_argument("--mapping", metavar="FILE", help="read an exported mapping instead of the database")
        parser.add_argument("--check", action="store_true", help="hold the models against the live tables; exit 1")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["check"]:
                self._check(options["database"])
            else:
                self.stdout.write(models_code(_chosen(options)), ending="")
        except ConnectionDoesNotExist as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database answered: {one_line(error)}") from error

    def _check(self, using: str) -> None:
        lines = [line for model in connected_models() for line in differences(model, using)]
        for line in lines:
            self.stdout.write(line)
        if lines:
            raise CommandError(f"{len(lines)} difference(s) between models and tables.")
        self.stdout.write("Models and tables agree.")


def _chosen(options: dict[str, Any]) -> list[Table]:
    if options["mapping"]:
        tables, source = mapped_tables(_load(options["mapping"])), options["mapping"]
    else:
        schema = options["schema"] or get_schema()
        tables, source = live_tables(options["database"], schema), f"the schema {schema!r}"
    by_name = {table.object_name.lower(): table for table in tables}
    wanted = [name.lower() for name in options["objects"]] or list(by_name)
    if not by_name:
        raise CommandError(f"There are no mapped tables in {source}.")
    for name in wanted:
        if name not in by_name:
            raise CommandError(f"There is no {name!r} in {source}; there are: {', '.join(by_name)}.")
    return [by_name[name] for name in wanted]


def _load(path: str) -> dict[str, Any]:
    try:
        mapping = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(mapping, dict) and all("fields" in entry["config"] for entry in mapping["mappings"]):
            return mapping
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError):
        pass
    raise CommandError(f"{path} is no exported mapping; expected JSON as `heroku connect:export` gives it.")
