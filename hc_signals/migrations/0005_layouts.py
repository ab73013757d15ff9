"""Adds images without the names of their columns by its file of migrations_sql/, which locks the log for a moment."""

from django.db import migrations

from hc_signals.log.schema import install_sql, remove_sql
from hc_signals.migrations._script import RunScript

FILES = ("06_layouts.sql",)


class Migration(migrations.Migration):
    dependencies = [
        ("hc_signals", "0004_calls"),
    ]

    operations = [RunScript(install_sql(FILES), remove_sql(FILES))]
