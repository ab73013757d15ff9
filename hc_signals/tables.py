"""Connected models: which models Heroku Connect fills, in which tables, and which of their columns matter."""

import os

from django.apps import apps
from django.conf import settings
from django.db import models

from hc_signals.exceptions import ConfigurationError
from hc_signals.postgres.names import quote, truncate_name

_WITHOUT_IS_DELETED = frozenset({"user", "recordtype", "group", "profile", "emailtemplate"})

SYSTEM_COLUMNS = {
    "sfid": "sf_id",
    "systemmodstamp": "system_mod_stamp",
    "isdeleted": "is_deleted",
    "_hc_lastop": "_hc_lastop",
    "_hc_err": "_hc_err",
}
"""Columns that every connected model maps, by column the name of the field; a model drops one by setting it to None."""

NAME_FIELDS = (
    "Name",
    "CaseNumber",
    "ContractNumber",
    "OrderNumber",
    "OrderItemNumber",
    "SolutionName",
    "WorkOrderNumber",
    "LineItemNumber",
    "AppointmentNumber",
    "Subject",
    "Title",
    "LastName",
    "Username",
)
"""API names of the fields by which people know a record: a model's first one of these is its name field.

``Subject`` names tasks, events and e-mails, ``Title`` notes and files; the last two serve where ``Name`` is not mapped.
"""

_BOOKKEEPING_COLUMNS = frozenset({"_hc_lastop", "_hc_err", "systemmodstamp", "lastmodifieddate", "lastmodifiedbyid"})


def get_schema() -> str:
    """Return HEROKU_CONNECT_SCHEMA: the setting, else the environment variable, else ``salesforce``."""
    return str(getattr(settings, "HEROKU_CONNECT_SCHEMA", os.environ.get("HEROKU_CONNECT_SCHEMA", "salesforce")))


def has_no_is_deleted(object_name: str) -> bool:
    """Return True if Salesforce's object has no field IsDeleted. The name may be in any case."""
    return object_name.lower() in _WITHOUT_IS_DELETED


def is_connected(model: type[models.Model]) -> bool:
    """Return True if Heroku Connect owns the model's table.

    The attribute ``sf_object_name`` decides, not the base class: models of django-heroku-connect are connected too.
    """
    options = model._meta
    return bool(getattr(model, "sf_object_name", "")) and not (options.managed or options.proxy or options.abstract)


def connected_models() -> list[type[models.Model]]:
    """Return the connected models of the project."""
    return [model for model in apps.get_models() if is_connected(model)]


def models_of_schema(schema: str = "") -> list[type[models.Model]]:
    """Return the connected models of one connection of Heroku Connect: those with a table in its schema.

    Args:
        schema: default: the only schema that has models.

    Raises:
        ConfigurationError: no model has a table in the schema; or several schemas have models, and none was named.
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


def connected_tables_of(model: type[models.Model]) -> list[type[models.Model]]:
    """Return the connected models that hold the columns of ``model``.

    That is the model itself, or the parents of a proxy or a multi-table child. Empty if no change concerns the model.
    """
    if model._meta.abstract:
        return []
    return [each for each in (model, *model._meta.get_parent_list()) if is_connected(each)]


def table_parts(model: type[models.Model]) -> tuple[str, str]:
    """Return ``(schema, table)`` as the catalog has them; a db_table without a schema is in ``public``.

    Django puts quotes around a db_table: ``salesforce"."account``. A db_table may also contain the outer quotes.
    """
    name = model._meta.db_table
    if '"."' in name:
        schema, _, table = name.removeprefix('"').removesuffix('"').partition('"."')
    else:
        schema, _, table = name.replace('"', "").rpartition(".")
    return truncate_name(schema.replace('""', '"') or "public"), truncate_name(table.replace('""', '"'))


def table_label(model: type[models.Model]) -> str:
    """Return ``schema.table``, the name of the table in the log."""
    return ".".join(table_parts(model))


def model_of_table(table: str) -> type[models.Model] | None:
    """Return the connected model of a table, named as in the log; None if the project has none."""
    return next((model for model in connected_models() if table_label(model) == table), None)


def model_label(table: str) -> str:
    """Return ``crm.Account`` for the name under which the log keeps a table, or that name if no model has the table."""
    model = model_of_table(table)
    return model._meta.label if model else table


def name_column(model: type[models.Model]) -> str | None:
    """Return the column with the name of a record: that of the first of NAME_FIELDS; None if the model has none."""
    columns = {getattr(field, "sf_field_name", None): str(field.column) for field in model._meta.local_concrete_fields}
    return next((columns[name] for name in NAME_FIELDS if name in columns), None)


def quoted_table(model: type[models.Model]) -> str:
    """Return the table as SQL, schema and name each quoted."""
    return ".".join(map(quote, table_parts(model)))


def mapped_columns(model: type[models.Model]) -> list[str]:
    """Return the columns of the model's own table; the log keeps those that the table has."""
    return [str(field.column) for field in model._meta.local_concrete_fields]


def counts_as_change(column: str | None) -> bool:
    """Return True if a new value in this column is a change of the record.

    Heroku Connect's bookkeeping is not. An sfid is, unless it was NULL before: then Salesforce has linked the record.
    """
    return column not in _BOOKKEEPING_COLUMNS


def advice_for_missing_column(column: str) -> str:
    """Return what to do if the table of a model lacks a column of the model."""
    if column in SYSTEM_COLUMNS:
        return (
            f"if Salesforce's object has no such field, write `{SYSTEM_COLUMNS[column]} = None` into the model's class"
        )
    return "map the field or remove it"
