"""Runs migrations_sql/0001_change_log.sql; the models of the log are unmanaged and follow it."""

from django.db import migrations

from hc_signals.sql import read_sql


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.RunSQL(read_sql("0001_change_log.sql"), read_sql("0001_change_log.down.sql")),
    ]
