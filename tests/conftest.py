"""Fixtures: Heroku Connect's tables exist in the test database, with or without capture."""

from typing import Any

import pytest
from django.db import connection, transaction
from example.crm.models import Account, Contact, Project, SFObjectModel

from hc_signals import triggers

CONNECTED = [Account, Contact, Project, SFObjectModel]


def as_heroku_connect(sql: str, params: list[Any] | None = None) -> None:
    """Run one statement as Heroku Connect does: its own transaction, under xmlbinary = hex."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        cursor.execute(sql, params)


@pytest.fixture
def tables(transactional_db: None) -> None:
    """Fresh connected tables and an empty change log."""
    with connection.cursor() as cursor:
        cursor.execute('DROP SCHEMA IF EXISTS "salesforce" CASCADE; CREATE SCHEMA "salesforce"')
        cursor.execute("TRUNCATE public.hc_signals_change, public.hc_signals_position, public.hc_signals_delivery")
    with connection.schema_editor() as editor:
        for model in CONNECTED:
            editor.create_model(model)


@pytest.fixture
def captured(tables: None) -> None:
    """The same, with capture triggers on every table."""
    for model in CONNECTED:
        assert triggers.install(model, "default").state == "installed"
