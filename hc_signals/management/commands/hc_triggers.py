"""``manage.py hc_triggers``: installs, inspects and removes the capture triggers."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections, models
from django.utils.connection import ConnectionDoesNotExist

from hc_signals import triggers
from hc_signals.management.choice import connected_model
from hc_signals.tables import connected_models


class Command(BaseCommand):
    help = "Install, inspect or remove the capture triggers on Heroku Connect's tables."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["install", "status", "uninstall", "sql"])
        parser.add_argument("models", nargs="*", metavar="app.Model", help="default: all connected models")
        parser.add_argument("--database", default="default", help="database alias (default: default)")
        parser.add_argument("--check", action="store_true", help="with status: exit 1 on drift")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = [connected_model(label) for label in options["models"]] or connected_models()
        try:
            getattr(self, f"_{options['action']}")(chosen, options["database"], options["check"])
        except ConnectionDoesNotExist as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database answered: {str(error).splitlines()[0]}") from error

    def _install(self, chosen: list[type[models.Model]], using: str, check: bool) -> None:
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT to_regclass('public.hc_signals_change') IS NULL")
            if cursor.fetchone()[0]:
                raise CommandError("The change log does not exist; run `manage.py migrate hc_signals` first.")
        failed = []
        for model in chosen:
            try:
                self._print(triggers.install(model, using))
            except DatabaseError as error:
                failed.append(model._meta.label)
                self.stderr.write(f"{model._meta.label}: not installed: {str(error).splitlines()[0]}")
        if failed:
            raise CommandError(f"Not installed: {', '.join(failed)}. Nothing was half-done; run the command again.")

    def _status(self, chosen: list[type[models.Model]], using: str, check: bool) -> None:
        found = [triggers.status(model, using) for model in chosen]
        for status in found:
            self._print(status)
        if check and any(status.state not in ("installed", "absent") for status in found):
            raise CommandError("Triggers have drifted; run `manage.py hc_triggers install`.")

    def _uninstall(self, chosen: list[type[models.Model]], using: str, check: bool) -> None:
        for model in chosen:
            triggers.uninstall(model, using)
            self._print(triggers.status(model, using))

    def _sql(self, chosen: list[type[models.Model]], using: str, check: bool) -> None:
        for model in chosen:
            for statement in triggers.install_sql(model):
                self.stdout.write(statement + ";\n")

    def _print(self, status: triggers.TableStatus) -> None:
        self.stdout.write(f"{status.table}: {status.state}" + (f" ({status.detail})" if status.detail else ""))
