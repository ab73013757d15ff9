"""Creates the table of minutes by its file of migrations_sql/; its model is unmanaged and follows it."""

from django.db import migrations, models

import hc_signals.models
from hc_signals.log.schema import install_sql, remove_sql
from hc_signals.migrations._script import RunScript

FILES = ("04_minutes.sql",)


class Migration(migrations.Migration):
    dependencies = [
        ("hc_signals", "0002_trigger_log"),
    ]

    operations = [
        RunScript(install_sql(FILES), remove_sql(FILES)),
        migrations.CreateModel(
            name="Minute",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("minute", models.DateTimeField()),
                ("consumer", models.TextField()),
                ("figures", hc_signals.models.ImageField()),
            ],
            options={
                "verbose_name": "overview",
                "verbose_name_plural": "overview",
                "db_table": 'public"."hc_signals_minute',
                "default_permissions": ("view",),
                "ordering": ("minute", "id"),
                "managed": False,
            },
        ),
    ]
