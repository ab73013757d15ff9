"""The base of our commands: the option ``--database``, errors in one sentence, the check for the change log."""

import os
import shlex
from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connections
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.exceptions import HCSignalsError
from hc_signals.log.schema import require_current
from hc_signals.postgres import wrappers
from hc_signals.postgres.errors import ReadOnlyError, one_line


def answered(using: str, error: Error) -> str:
    """Return the sentence for an error of the database ``using``, without its full stop."""
    return f"The database {using!r} answered: {one_line(error)}"


def continuation(words: list[str], options: Mapping[str, Any], **defaults: Any) -> str:
    """Return the command line that continues a command: the words, then its options that differ from these defaults."""
    for name, default in defaults.items():
        if (value := options[name]) != default:
            words.append("--" + name.replace("_", "-"))
            words += value if isinstance(value, list) else [] if value is True else [str(value)]
    return shlex.join(["python", "manage.py", *words])


def _colours(options: Mapping[str, Any]) -> dict[str, bool]:
    """Return Django's options of colour as the environment has them, unless the command line has one.

    See https://no-color.org and https://force-color.org.
    """
    if options.get("no_color") or options.get("force_color"):
        return {}
    no_color = bool(os.environ.get("NO_COLOR"))
    return {"no_color": no_color, "force_color": bool(os.environ.get("FORCE_COLOR")) and not no_color}


class OwnCommand(BaseCommand):
    """A command whose errors, ours and the database's, end it with one sentence and exit code 1.

    Its statements bypass the project's ``execute_wrappers``, which `manage.py` may have around the whole command.
    Receivers that it calls get them back: see :mod:`hc_signals.postgres.wrappers`.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--database``."""
        parser.add_argument("--database", default="default", help="database alias (default: default)")

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command; make each error of the user, of hc_signals or of the database a CommandError."""
        using: Any = options.get("database")
        options |= _colours(options)
        try:
            with wrappers.set_aside(using) if using in connections.settings else nullcontext():
                return super().execute(*args, **options)
        except (HCSignalsError, ReadOnlyError, ConnectionDoesNotExist) as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(answered(using, error)) from error

    def require_log(self, using: str) -> None:
        """Raise ConfigurationError if the database ``using`` has no change log, or one of an older version."""
        require_current(using)
