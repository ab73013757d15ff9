"""Adds Heroku Connect's trigger log to Django's state. Heroku Connect owns the tables, so nothing is created here."""

from django.db import migrations, models

from hc_signals.tables import get_schema


class Migration(migrations.Migration):
    # The schema is read from the settings, so another one there is no change of the model.
    dependencies = [
        ("hc_signals", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="TriggerLog",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("txid", models.BigIntegerField(editable=False, null=True)),
                ("created_at", models.DateTimeField(editable=False, null=True)),
                ("updated_at", models.DateTimeField(editable=False, null=True)),
                ("processed_at", models.DateTimeField(editable=False, null=True)),
                ("table_name", models.CharField(editable=False, max_length=128)),
                ("record_id", models.IntegerField(editable=False)),
                (
                    "sf_id",
                    models.CharField(
                        db_column="sfid", editable=False, max_length=18, null=True, verbose_name="Salesforce id"
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[("DELETE", "Delete"), ("INSERT", "Insert"), ("UPDATE", "Update")],
                        editable=False,
                        max_length=7,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("FAILED", "Failed"),
                            ("IGNORE", "Ignore"),
                            ("IGNORED", "Ignored"),
                            ("MERGED", "Merged"),
                            ("NEW", "New"),
                            ("PENDING", "Pending"),
                            ("READONLY", "Read-only"),
                            ("REQUEUE", "Requeue"),
                            ("REQUEUED", "Requeued"),
                            ("SUCCESS", "Success"),
                        ],
                        max_length=8,
                    ),
                ),
                ("sf_message", models.TextField(editable=False, null=True, verbose_name="Salesforce message")),
                ("values", models.TextField(editable=False, null=True)),
                ("old", models.TextField(editable=False, null=True)),
            ],
            options={
                "verbose_name": "trigger log entry",
                "verbose_name_plural": "trigger log",
                "db_table": f'{get_schema()}"."_trigger_log',
                "ordering": ("id",),
                "get_latest_by": "created_at",
                "base_manager_name": "objects",
                "abstract": False,
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="TriggerLogArchive",
            fields=[
                ("txid", models.BigIntegerField(editable=False, null=True)),
                ("created_at", models.DateTimeField(editable=False, null=True)),
                ("updated_at", models.DateTimeField(editable=False, null=True)),
                ("processed_at", models.DateTimeField(editable=False, null=True)),
                ("table_name", models.CharField(editable=False, max_length=128)),
                ("record_id", models.IntegerField(editable=False)),
                (
                    "sf_id",
                    models.CharField(
                        db_column="sfid", editable=False, max_length=18, null=True, verbose_name="Salesforce id"
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[("DELETE", "Delete"), ("INSERT", "Insert"), ("UPDATE", "Update")],
                        editable=False,
                        max_length=7,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("FAILED", "Failed"),
                            ("IGNORE", "Ignore"),
                            ("IGNORED", "Ignored"),
                            ("MERGED", "Merged"),
                            ("NEW", "New"),
                            ("PENDING", "Pending"),
                            ("READONLY", "Read-only"),
                            ("REQUEUE", "Requeue"),
                            ("REQUEUED", "Requeued"),
                            ("SUCCESS", "Success"),
                        ],
                        max_length=8,
                    ),
                ),
                ("sf_message", models.TextField(editable=False, null=True, verbose_name="Salesforce message")),
                ("values", models.TextField(editable=False, null=True)),
                ("old", models.TextField(editable=False, null=True)),
                ("id", models.IntegerField(editable=False, primary_key=True, serialize=False)),
            ],
            options={
                "verbose_name": "archived trigger log entry",
                "verbose_name_plural": "trigger log archive",
                "db_table": f'{get_schema()}"."_trigger_log_archive',
                "ordering": ("id",),
                "get_latest_by": "created_at",
                "base_manager_name": "objects",
                "abstract": False,
                "managed": False,
            },
        ),
    ]
