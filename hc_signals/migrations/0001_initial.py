"""Creates the change log by the files of migrations_sql/; its models are unmanaged and follow them."""

import django.contrib.postgres.fields
from django.db import migrations, models

import hc_signals.models
from hc_signals.log.schema import install_sql, remove_sql
from hc_signals.migrations._script import RunScript

FILES = ("01_tables.sql", "02_capture.sql", "03_reading.sql")


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        RunScript(install_sql(FILES), remove_sql(FILES)),
        migrations.CreateModel(
            name="Change",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("captured_at", models.DateTimeField()),
                ("table_name", models.TextField()),
                ("operation", models.TextField()),
                ("origin", models.TextField()),
                ("record_key", models.TextField(null=True)),
                ("record_id", models.TextField(null=True)),
                (
                    "changed",
                    django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), null=True, size=None),
                ),
                ("old", hc_signals.models.ImageField(null=True)),
                ("new", hc_signals.models.ImageField(null=True)),
                ("note", hc_signals.models.ImageField(null=True)),
                ("depth", models.SmallIntegerField()),
                ("bucket", models.SmallIntegerField()),
            ],
            options={
                "db_table": 'public"."hc_signals_change',
                "default_permissions": ("view",),
                "ordering": ("id",),
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("consumer", models.TextField()),
                ("receiver", models.TextField()),
                ("signal", models.TextField()),
                ("sender", models.TextField()),
                (
                    "state",
                    models.TextField(choices=[("retry", "Retry"), ("parked", "Parked"), ("dead", "Dead")]),
                ),
                ("attempt", models.IntegerField()),
                ("next_attempt_at", models.DateTimeField(null=True)),
                ("error", models.TextField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("change_id", models.BigIntegerField()),
                ("captured_at", models.DateTimeField()),
                ("table_name", models.TextField()),
                ("operation", models.TextField()),
                ("origin", models.TextField()),
                ("record_key", models.TextField(null=True)),
                ("record_id", models.TextField(null=True)),
                (
                    "changed",
                    django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), null=True, size=None),
                ),
                ("old", hc_signals.models.ImageField(null=True)),
                ("new", hc_signals.models.ImageField(null=True)),
                ("note", hc_signals.models.ImageField(null=True)),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "db_table": 'public"."hc_signals_delivery',
                "default_permissions": ("change", "delete", "view"),
                "ordering": ("id",),
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="Position",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("consumer", models.TextField()),
                ("shard", models.SmallIntegerField()),
                ("shards", models.SmallIntegerField()),
                ("last_id", models.BigIntegerField(null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": 'public"."hc_signals_position',
                "default_permissions": ("view",),
                "verbose_name_plural": "consumers and shards",
                "ordering": ("id",),
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="ConnectedTable",
            fields=[],
            options={
                "verbose_name": "capture trigger",
                "permissions": (("install_connectedtable", "Can install capture triggers"),),
                "proxy": True,
                "default_permissions": ("view",),
                "indexes": [],
                "constraints": [],
            },
            bases=("hc_signals.change",),
        ),
    ]
