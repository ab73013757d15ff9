"""Runs the files of migrations_sql/ in a migration."""

from typing import Any

from django.db import migrations

from hc_signals.postgres.query import unprepared_cursor


class RunScript(migrations.RunSQL):
    """Many statements in one message, which the server cannot prepare."""

    def database_forwards(self, app_label: Any, schema_editor: Any, *states: Any) -> None:
        with unprepared_cursor(schema_editor.connection):
            super().database_forwards(app_label, schema_editor, *states)

    def database_backwards(self, app_label: Any, schema_editor: Any, *states: Any) -> None:
        with unprepared_cursor(schema_editor.connection):
            super().database_backwards(app_label, schema_editor, *states)
