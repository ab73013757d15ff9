"""``manage.py hc_mappings``: exports Heroku Connect's configuration, compares one with the models, imports one."""

import json
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from hc_signals.conf import heroku_app_name
from hc_signals.heroku.api import ConnectionState, HerokuConnectAPI
from hc_signals.heroku.mappings import compare, get_mapping, load
from hc_signals.management.arguments import at_least
from hc_signals.management.command import OwnCommand
from hc_signals.tables import connected_models, models_of_schema, table_parts


class Command(OwnCommand):
    help = "Export the models as Heroku Connect's configuration, compare an exported one with them, or import one."

    MAX_WAIT_SECONDS = 3600.0
    """Most seconds that ``import --wait`` waits. Heroku Connect goes on importing after it."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="export | check | import")
        export = actions.add_parser("export", help="print the configuration that the models need")
        export.add_argument("-o", "--output", metavar="FILE", help="write to this file instead")
        check = actions.add_parser(
            "check", help="compare an exported configuration with the models; exit 1 if they differ"
        )
        check.add_argument("file", metavar="FILE")
        imports = actions.add_parser("import", help="send a configuration to Heroku Connect")
        imports.add_argument("file", metavar="FILE", nargs="?", help="default: the configuration that the models need")
        imports.add_argument("--app", help="name of the Heroku app (default: HEROKU_CONNECT_APP_NAME)")
        imports.add_argument("--connection", metavar="ID", help="default: the only connection of the app")
        imports.add_argument("--wait", action="store_true", help="wait until Heroku Connect has applied it")
        for parser_of_action in (export, check, imports):
            parser_of_action.add_argument(
                "--schema", default="", help="schema of the connection's tables (default: the only one that has models)"
            )
        imports.add_argument(
            "--wait-interval",
            metavar="SECONDS",
            type=at_least(0.0),
            default=10.0,
            help="seconds between two checks of the state (default: 10)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, f"_{options['action']}")(options)

    def _export(self, options: dict[str, Any]) -> None:
        text = json.dumps(get_mapping(schema=options["schema"]), indent=2)
        path = options["output"]
        if path is None:
            self.stdout.write(text)
            return
        try:
            Path(path).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{path!r} cannot be written: {error.strerror}.") from error

    def _check(self, options: dict[str, Any]) -> None:
        found = compare(load(options["file"]), models_of_schema(options["schema"]))
        for difference in found:
            self.stdout.write(str(difference))
        failures = sum(difference.is_failure for difference in found)
        if failures:
            raise CommandError(
                f"{failures} difference{'s' * (failures != 1)} between the models and {options['file']!r}."
            )
        self.stdout.write(f"{options['file']!r} maps all that the models need.")

    def _import(self, options: dict[str, Any]) -> None:
        app = options["app"] or heroku_app_name()
        if not app and not options["connection"]:
            raise CommandError("No app was named; pass --app or --connection, or set HEROKU_CONNECT_APP_NAME.")
        schema = options["schema"]
        mapping = load(options["file"]) if options["file"] else get_mapping(app_name=app, schema=schema)
        api = HerokuConnectAPI(app)
        connection_id = options["connection"] or self._find_connection(api, schema or _only_schema())
        api.import_mapping(connection_id, mapping)
        self.stdout.write(f"Sent {len(mapping['mappings'])} mappings to the connection {connection_id}.")
        if options["wait"]:
            self._wait(api, connection_id, options["wait_interval"])

    def _find_connection(self, api: HerokuConnectAPI, schema: str) -> str:
        """Return the id of the app's connection that writes to the schema, if there is one alone."""
        found = api.connections()
        if not found:
            self.stdout.write(f"{api.app_name!r} shows no connection; linking this Heroku account to it.")
            api.link_account()
            found = api.connections()
        if not found:
            raise CommandError(f"{api.app_name!r} has no connection; set up the Heroku Connect add-on first.")
        # A connection without a configuration has no schema yet.
        fitting = [each for each in found if not schema or each.get("schema_name") in (None, "", schema)]
        if len(fitting) == 1:
            return str(fitting[0]["id"])
        names = ", ".join(f"{each['id']} ({each.get('name')})" for each in found)
        which = f"{len(fitting)} of them may write" if fitting else "none of them writes"
        writes = f"; {which} to the schema {schema!r}" if schema else ""
        raise CommandError(
            f"{api.app_name!r} has {len(found)} connections{writes}; choose one by --connection: {names}."
        )

    def _wait(self, api: HerokuConnectAPI, connection_id: str, interval: float) -> None:
        deadline = time.monotonic() + self.MAX_WAIT_SECONDS
        while (state := str(api.connection(connection_id).get("state"))) == ConnectionState.IMPORT_CONFIGURATION:
            self.stdout.write("Heroku Connect is importing the configuration.")
            if time.monotonic() > deadline:
                raise CommandError(f"Still importing after {self.MAX_WAIT_SECONDS:.0f} seconds; see the dashboard.")
            time.sleep(interval)
        if state not in ConnectionState.OK_STATES:
            raise CommandError(f"The connection {connection_id} is now in the state {state}.")
        self.stdout.write(f"Imported; the connection is now in the state {state}.")


def _only_schema() -> str:
    """Return the schema of all models; empty if they have several."""
    schemas = {table_parts(model)[0] for model in connected_models()}
    return schemas.pop() if len(schemas) == 1 else ""
