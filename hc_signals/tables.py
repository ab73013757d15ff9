"""Connected models and the names of their tables."""

import os

from django.apps import apps
from django.conf import settings
from django.db import models

from hc_signals.exceptions import ConfigurationError

_WITHOUT_IS_DELETED = frozenset({"user", "recordtype", "group", "profile", "emailtemplate"})

SYSTEM_COLUMNS = {
    "sfid": "sf_id",
    "systemmodstamp": "system_mod_stamp",
    "isdeleted": "is_deleted",
    "_hc_lastop": "_hc_lastop",
    "_hc_err": "_hc_err",
}
"""Columns that every connected model reads, with the names of the fields, unless its class sets the name to None."""

NOISE_COLUMNS = ("_hc_lastop", "_hc_err", "systemmodstamp", "lastmodifieddate", "lastmodifiedbyid", "sfid")
"""Heroku Connect's bookkeeping: alone they are no change (sfid: only when it goes from NULL to its value)."""


def get_schema() -> str:
    """Return HEROKU_CONNECT_SCHEMA: the setting, else the environment variable, else ``salesforce``."""
    return str(getattr(settings, "HEROKU_CONNECT_SCHEMA", os.environ.get("HEROKU_CONNECT_SCHEMA", "salesforce")))


def has_no_is_deleted(object_name: str) -> bool:
    """Tell whether Salesforce's object has no IsDeleted field; its name in any case."""
    return object_name.lower() in _WITHOUT_IS_DELETED


def connected_models() -> list[type[models.Model]]:
    """Return the connected models of the project."""
    return [model for model in apps.get_models() if is_connected(model)]


def models_of_schema(schema: str = "") -> list[type[models.Model]]:
    """Return the connected models of one connection of Heroku Connect: those whose tables are in its schema.

    Args:
        schema: default: the only one that has models.

    Raises:
        ConfigurationError: no model has a table there; or several schemas have models, and none was named.
    """
    by_schema: dict[str, list[type[models.Model]]] = {}
    for model in connected_models():
        by_schema.setdefault(table_parts(model)[0], []).append(model)
    names = ", ".join(map(repr, sorted(by_schema))) or "none"
    if schema and schema not in by_schema:
        raise ConfigurationError(f"No connected model has its table in the schema {schema!r}; schemas: {names}.")
    if not schema and len(by_schema) > 1:
        raise ConfigurationError(
            f"The models belong to {len(by_schema)} connections; choose one by its schema: {names}."
        )
    return by_schema[schema] if schema else connected_models()


def is_connected(model: type[models.Model]) -> bool:
    """Tell whether Heroku Connect owns the model's table.

    By its ``sf_object_name`` and not by its class: models of django-heroku-connect count as well.
    """
    options = model._meta
    return bool(getattr(model, "sf_object_name", "")) and not (options.managed or options.proxy or options.abstract)


def connected_tables_of(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the connected models whose records an instance of ``model`` is made of.

    The model itself, or what a proxy or a multi-table child has above it; none for a model that hears of no change.
    """
    if model._meta.abstract:
        return []
    return [each for each in (model, *model._meta.get_parent_list()) if is_connected(each)]


def table_parts(model: type[models.Model]) -> tuple[str, str]:
    """Return ``(schema, table)`` as the catalog has them; a db_table without a schema lies in ``public``.

    A db_table is what Django puts between two quotes: ``salesforce"."account``. It may bring the outer ones along.
    """
    name = model._meta.db_table
    if '"."' in name:
        schema, _, table = name.removeprefix('"').removesuffix('"').partition('"."')
    else:
        schema, _, table = name.replace('"', "").rpartition(".")
    return as_stored(schema.replace('""', '"') or "public"), as_stored(table.replace('""', '"'))


def as_stored(name: str) -> str:
    """Cut a name as PostgreSQL does: to 63 bytes, at a whole character."""
    return name.encode()[:63].decode(errors="ignore")


def table_label(model: type[models.Model]) -> str:
    """Return ``schema.table``, the name under which the log keeps a table."""
    return ".".join(table_parts(model))


def model_label(table: str) -> str:
    """Return ``crm.Account`` for the name under which the log keeps a table, or that name if no model has the table."""
    return next((model._meta.label for model in connected_models() if table_label(model) == table), table)


def quote(name: str) -> str:
    """Quote one SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote one SQL string."""
    return "'" + text.replace("'", "''") + "'"


def quoted_table(model: type[models.Model]) -> str:
    """Return the table as SQL, schema and name each quoted."""
    return ".".join(map(quote, table_parts(model)))
