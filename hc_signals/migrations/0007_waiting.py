"""Replaces the function that an idle worker calls, by its file of migrations_sql/."""

from django.db import migrations

from hc_signals.log.schema import install_sql, remove_sql
from hc_signals.migrations._script import RunScript

FILES = ("08_waiting.sql",)


class Migration(migrations.Migration):
    dependencies = [
        ("hc_signals", "0006_images"),
    ]

    operations = [RunScript(install_sql(FILES), remove_sql(FILES))]
