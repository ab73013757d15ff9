"""Creates the functions and the view that read images with a layout, by its file of migrations_sql/."""

import django.contrib.postgres.fields
from django.db import migrations, models

from hc_signals.log.schema import install_sql, remove_sql
from hc_signals.migrations._script import RunScript

FILES = ("07_images.sql",)


class Migration(migrations.Migration):
    dependencies = [
        ("hc_signals", "0005_layouts"),
    ]

    operations = [
        RunScript(install_sql(FILES), remove_sql(FILES)),
        migrations.AlterModelTable(name="change", table='public"."hc_signals_log'),
        migrations.AddField(model_name="change", name="layout", field=models.BigIntegerField(null=True)),
        migrations.AddField(
            model_name="change",
            name="image",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.TextField(null=True), null=True, size=None
            ),
        ),
    ]
