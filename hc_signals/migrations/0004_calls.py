"""Creates the index of records and the table of calls by their file of migrations_sql/."""

from django.db import migrations

from hc_signals.log.schema import install_sql, remove_sql
from hc_signals.migrations._script import RunScript

FILES = ("05_calls.sql",)


class Migration(migrations.Migration):
    dependencies = [
        ("hc_signals", "0003_minutes"),
    ]

    operations = [
        RunScript(install_sql(FILES), remove_sql(FILES)),
        migrations.AlterModelOptions(
            name="change",
            options={
                "default_permissions": ("view",),
                "managed": False,
                "ordering": ("id",),
                "permissions": (("redeliver_change", "Can deliver a change again"),),
            },
        ),
    ]
