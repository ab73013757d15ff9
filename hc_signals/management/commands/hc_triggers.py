"""``manage.py hc_triggers``: installs, inspects and removes the capture triggers."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections, models
from django.utils.connection import ConnectionDoesNotExist

from hc_signals import orphans, pausing, triggers
from hc_signals.exceptions import ConfigurationError
from hc_signals.management.choice import connected_model
from hc_signals.tables import connected_models, table_label


class Command(BaseCommand):
    help = "Install, inspect, pause or remove the capture triggers on Heroku Connect's tables."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["install", "status", "pause", "resume", "uninstall", "sql"])
        parser.add_argument("models", nargs="*", metavar="app.Model", help="default: all connected models")
        parser.add_argument("--database", default="default", help="database alias (default: default)")
        parser.add_argument("--check", action="store_true", help="with status: exit 1 on drift or pause")
        parser.add_argument("--all", action="store_true", help="with uninstall: whatever is ours, orphans as well")
        parser.add_argument("--orphans", action="store_true", help="with uninstall: what no model accounts for, only")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["models"] and (options["all"] or options["orphans"] or options["action"] in ("pause", "resume")):
            raise CommandError("Name no models here: this concerns all tables.", returncode=2)
        chosen = [connected_model(label) for label in options["models"]] or connected_models()
        self.using, self.options = options["database"], options
        try:
            getattr(self, f"_{options['action']}")(chosen)
        except (ConnectionDoesNotExist, ConfigurationError) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database answered: {str(error).splitlines()[0]}") from error

    def _install(self, chosen: list[type[models.Model]]) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute("SELECT to_regclass('public.hc_signals_change') IS NULL")
            if cursor.fetchone()[0]:
                raise CommandError("The change log does not exist; run `manage.py migrate hc_signals` first.")
        self._each(chosen, lambda model: triggers.install(model, self.using), "installed")

    def _each(
        self, chosen: list[type[models.Model]], act: Callable[[type[models.Model]], triggers.TableStatus], done: str
    ) -> None:
        """Do it table by table; one that is locked for long does not keep it from the others."""
        failed = []
        for model in chosen:
            try:
                self._print(act(model))
            except DatabaseError as error:
                failed.append(model._meta.label)
                self.stderr.write(f"{model._meta.label}: not {done}: {str(error).splitlines()[0]}")
        if failed:
            raise CommandError(f"Not {done}: {', '.join(failed)}. Nothing was half-done; run the command again.")

    def _status(self, chosen: list[type[models.Model]]) -> None:
        found = [triggers.status(model, self.using) for model in chosen]
        if not self.options["models"]:
            found += orphans.find(chosen, self.using)
        for status in found:
            self._print(status)
        off, owed = pausing.paused_since(self.using)
        if off:
            self.stdout.write(f"Paused since {off:%Y-%m-%d %H:%M:%S %Z}: nothing is captured; `hc_triggers resume`.")
        if owed:
            self.stdout.write(f"The gap since {owed:%Y-%m-%d %H:%M:%S %Z} is not written; `hc_triggers resume` again.")
        if self.options["check"] and any(status.state not in ("installed", "absent") for status in found):
            raise CommandError("Triggers have drifted; run `manage.py hc_triggers install`.")
        if self.options["check"] and (off or owed):
            raise CommandError("Capture is paused; run `manage.py hc_triggers resume`.")

    def _pause(self, chosen: list[type[models.Model]]) -> None:
        since = pausing.pause(self.using)
        self.stdout.write(f"Paused since {since:%Y-%m-%d %H:%M:%S %Z}. What changes now will be told as a gap.")

    def _resume(self, chosen: list[type[models.Model]]) -> None:
        if not any(pausing.paused_since(self.using)):
            self.stdout.write("Capture is not paused.")
            return
        tables = [s.table for s in (triggers.status(model, self.using) for model in chosen) if s.state != "absent"]
        since = pausing.resume(self.using, tables)
        if since:
            self.stdout.write(f"Capture is on; a gap since {since:%Y-%m-%d %H:%M:%S %Z} is in the log.")

    def _uninstall(self, chosen: list[type[models.Model]]) -> None:
        if self.options["all"] or self.options["orphans"]:
            for status in orphans.remove([] if self.options["all"] else chosen, self.using):
                self.stdout.write(f"{status.table}: removed")
            return

        def act(model: type[models.Model]) -> triggers.TableStatus:
            triggers.uninstall(model, self.using)
            return triggers.status(model, self.using)

        self._each(chosen, act, "uninstalled")

    def _sql(self, chosen: list[type[models.Model]]) -> None:
        for model in chosen:
            statements = ["BEGIN", *triggers.install_sql(model, triggers.next_layout(model, self.using)), "COMMIT"]
            self.stdout.write(f"-- {table_label(model)}\n" + "".join(f"{each};\n" for each in statements))

    def _print(self, status: triggers.TableStatus) -> None:
        self.stdout.write(f"{status.table}: {status.state}" + (f" ({status.detail})" if status.detail else ""))
