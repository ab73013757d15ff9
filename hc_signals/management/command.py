"""What our commands have in common."""

from contextlib import nullcontext
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections

from hc_signals.postgres import wrappers


class OwnCommand(BaseCommand):
    """A command whose statements pass the project's ``execute_wrappers`` by, around `manage.py` for example.

    Receivers that it calls get them back: see :mod:`hc_signals.postgres.wrappers`.
    """

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command."""
        using = options.get("database")
        with wrappers.set_aside(using) if using in connections.settings else nullcontext():
            return super().execute(*args, **options)
