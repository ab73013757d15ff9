"""Creates the functions and the view that read images with a layout, by its file of migrations_sql/."""

from django.db import migrations

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
    ]
