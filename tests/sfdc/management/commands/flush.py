"""A flush for the end of each test. It empties the tables that were written to, and sends no migrate signals."""

from typing import Any

from django.core.management import BaseCommand
from django.db import DEFAULT_DB_ALIAS, connections

from hc_signals.testing import databases

KEPT = {"django_content_type", "auth_permission"}
"""Tables that the migrations fill and no test changes."""


class Command(BaseCommand):
    """Replaces Django's command in the test suite."""

    stealth_options = ("allow_cascade", "inhibit_post_migrate", "interactive", "reset_sequences")

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS)

    def handle(self, *args: Any, database: str, **options: Any) -> None:
        connection = connections[database]
        tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - KEPT
        databases.truncate(database, [connection.ops.quote_name(table) for table in tables])
