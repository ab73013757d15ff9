"""``manage.py hc_triggers``: installs, inspects and removes the capture triggers."""

from argparse import ArgumentParser
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections, models
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.capture import known, orphans, pausing, triggers
from hc_signals.exceptions import ConfigurationError
from hc_signals.management.choice import connected_model
from hc_signals.postgres.errors import one_line
from hc_signals.tables import connected_models, table_label


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S %Z}"


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
            raise CommandError(f"The database answered: {one_line(error)}") from error

    def _install(self, chosen: list[type[models.Model]]) -> None:
        with connections[self.using].cursor() as cursor:
            cursor.execute("SELECT to_regclass('public.hc_signals_change') IS NULL")
            if cursor.fetchone()[0]:
                raise CommandError("The change log does not exist; run `manage.py migrate hc_signals` first.")
        known.note_installed(self.using, map(table_label, chosen))
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
                self.stderr.write(f"{model._meta.label}: not {done}: {one_line(error)}")
        if failed:
            raise CommandError(f"Not {done}: {', '.join(failed)}. Nothing was half-done; run the command again.")

    def _status(self, chosen: list[type[models.Model]]) -> None:
        found = triggers.statuses(chosen, self.using)
        if not self.options["models"]:
            found += orphans.find(chosen, self.using)
        of_tables = known.read(self.using)
        for status in found:
            self._print(status)
            if status.table in of_tables:
                self._print_known(of_tables[status.table])
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
        done = pausing.resume(self.using, chosen)
        if done is None:
            return
        self.stdout.write(f"Capture is on; a gap since {_moment(done.since)} is in the log.")
        if done.reread:
            self.stdout.write(f"hc_listen reads again what Salesforce changed since, in {len(done.reread)} table(s).")
        if done.unread:
            self.stdout.write(f"Not in {', '.join(done.unread)}, without systemmodstamp: `manage.py hc_backfill` does.")

    def _uninstall(self, chosen: list[type[models.Model]]) -> None:
        if not self.options["orphans"]:  # before anything is gone: hc_listen would put it back
            known.note_uninstalled(self.using, map(table_label, chosen))
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

    def _print_known(self, table: known.Known) -> None:
        if table.uninstalled_at:
            self.stdout.write(f"  removed by `hc_triggers uninstall` on {_moment(table.uninstalled_at)}")
        if table.good_at:
            self.stdout.write(f"  captured without a gap until {_moment(table.good_at)} at least")
        if table.cause:
            self.stdout.write(f"  {table.cause}: told as a gap when hc_listen sees that capture is right again")
        if table.reread_since:
            after = f", now at id {table.reread_after}" if table.reread_after is not None else ""
            self.stdout.write(f"  what changed since {_moment(table.reread_since)} is being read again{after}")

    def _print(self, status: triggers.TableStatus) -> None:
        self.stdout.write(f"{status.table}: {status.state}" + (f" ({status.detail})" if status.detail else ""))
