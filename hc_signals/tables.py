"""Connected models and the names of their tables."""

import os

from django.apps import apps
from django.conf import settings
from django.db import models


def heroku_connect_schema() -> str:
    """Return the mapped schema: the setting HEROKU_CONNECT_SCHEMA, else the environment's, else ``salesforce``."""
    default = os.environ.get("HEROKU_CONNECT_SCHEMA", "salesforce")
    return str(getattr(settings, "HEROKU_CONNECT_SCHEMA", default))


def connected_models() -> list[type[models.Model]]:
    """Return the connected models, by their ``sf_object_name``: those of django-heroku-connect count as well."""
    return [
        model
        for model in apps.get_models()
        if getattr(model, "sf_object_name", "")
        and not model._meta.managed
        and not model._meta.proxy
        and not model._meta.abstract
    ]


def table_parts(model: type[models.Model]) -> tuple[str, str]:
    """Return ``(schema, table)``; a db_table without a schema lies in ``public``."""
    schema, _, table = model._meta.db_table.replace('"', "").rpartition(".")
    return schema or "public", table


def table_label(model: type[models.Model]) -> str:
    """Return ``schema.table``, the name under which the log keeps a table."""
    return ".".join(table_parts(model))


def quote(name: str) -> str:
    """Quote one SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote one SQL string."""
    return "'" + text.replace("'", "''") + "'"


def quoted_table(model: type[models.Model]) -> str:
    """Return the table as SQL, schema and name each quoted."""
    return ".".join(map(quote, table_parts(model)))
