"""``manage.py hc_inspect``: writes connected models from the mapped tables, or compares models with the tables."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from hc_signals.heroku.inspection import differences, live_source, mapped_source, models_code
from hc_signals.management.command import OwnCommand
from hc_signals.tables import connected_models, get_schema, models_of_schema


class Command(OwnCommand):
    help = "Write connected models from the mapped tables or an exported mapping, or compare models with the tables."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("objects", nargs="*", metavar="OBJECT", help="tables or object names (default: all)")
        parser.add_argument("--database", default="default", help="database alias (default: default)")
        parser.add_argument(
            "--schema",
            help="schema of the connection's tables (default: HEROKU_CONNECT_SCHEMA; with --check: all schemas)",
        )
        parser.add_argument("--mapping", metavar="FILE", help="read an exported mapping instead of the database")
        parser.add_argument(
            "--check",
            action="store_true",
            help="compare the models with the tables; exit 1 if a model cannot be read",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["check"]:
            self._check(options)
        else:
            self.stdout.write(_code(options), ending="")

    def _check(self, options: dict[str, Any]) -> None:
        models = models_of_schema(options["schema"]) if options["schema"] else connected_models()
        found = [each for model in models for each in differences(model, options["database"])]
        for difference in found:
            self.stdout.write(str(difference))
        failures = sum(difference.is_failure for difference in found)
        if failures:
            raise CommandError(f"{failures} difference(s) between models and tables.")
        self.stdout.write("Every model can be read." if found else "Models and tables agree.")


def _code(options: dict[str, Any]) -> str:
    schema = options["schema"] or get_schema()
    if options["mapping"]:
        source, place = mapped_source(_load(options["mapping"])), options["mapping"]
    else:
        source, place = live_source(options["database"], schema), f"the schema {schema!r}"
    known = [table.object_name.lower() for table in source.tables]
    if not known:
        left_out = "".join(f" Left out: {name!r}: {reason}" for name, reason in source.left_out.items())
        raise CommandError(f"There are no mapped tables in {place}.{left_out}")
    for name in (each.lower() for each in options["objects"]):
        if name in source.left_out:
            raise CommandError(f"{name!r} in {place} cannot be a model: {source.left_out[name]}")
        if name not in known:
            raise CommandError(f"There is no {name!r} in {place}; expected some of: {', '.join(known)}.")
    return models_code(source, schema, options["objects"])


def _load(path: str) -> dict[str, Any]:
    try:
        mapping = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        if isinstance(mapping, dict) and all(_is_entry(entry) for entry in mapping["mappings"]):
            return mapping
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise CommandError(f"{path} is no exported mapping; expected JSON as `heroku connect:export` gives it.")


def _is_entry(entry: Any) -> bool:
    return isinstance(entry["object_name"], str) and bool(entry["object_name"]) and "fields" in entry["config"]
