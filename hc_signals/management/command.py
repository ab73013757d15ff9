"""The base of our commands: the option ``--database``, errors in one sentence, the check for the change log."""

from argparse import ArgumentParser
from contextlib import nullcontext
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connections
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.exceptions import HCSignalsError
from hc_signals.log.schema import exists
from hc_signals.postgres import wrappers
from hc_signals.postgres.errors import ReadOnlyError, one_line


def answered(using: str, error: Error) -> str:
    """Return the sentence for an error of the database, without its full stop.

    Args:
        using: database alias.
    """
    return f"The database {using!r} answered: {one_line(error)}"


class OwnCommand(BaseCommand):
    """A command whose errors, ours and the database's, end it with one sentence and exit code 1.

    Its statements bypass the project's ``execute_wrappers``, which `manage.py` may have around the whole command.
    Receivers that it calls get them back: see :mod:`hc_signals.postgres.wrappers`.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--database``."""
        parser.add_argument("--database", default="default", help="database alias (default: default)")

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command.

        Raises:
            CommandError: an error of the user, of hc_signals or of the database; this is the one place that makes it.
        """
        using: Any = options.get("database")
        try:
            with wrappers.set_aside(using) if using in connections.settings else nullcontext():
                return super().execute(*args, **options)
        except (HCSignalsError, ReadOnlyError, ConnectionDoesNotExist) as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(answered(using, error)) from error

    def require_log(self, using: str) -> None:
        """Refuse a database without the change log.

        Args:
            using: database alias.

        Raises:
            CommandError: the database has no change log.
        """
        if not exists(using):
            raise CommandError("The change log does not exist; run `manage.py migrate hc_signals` first.")
