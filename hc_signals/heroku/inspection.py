"""Reads Heroku Connect's tables: writes models from them, and holds models against them."""

import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connections, models

from hc_signals.tables import quote, quoted_table

SYSTEM_COLUMNS = ("id", "sfid", "systemmodstamp", "isdeleted", "_hc_lastop", "_hc_err")
"""In every connected model already."""


@dataclass(frozen=True)
class Column:
    """A mapped field: its name, its PostgreSQL type (None where only a mapping is known), whether it is unique."""

    name: str
    type: str | None
    unique: bool = False


@dataclass(frozen=True)
class Table:
    """A mapped object, from the live schema or from an exported mapping."""

    object_name: str
    columns: tuple[Column, ...]
    read_write: bool = False
    upsert: str | None = None
    case_known: bool = False
    """True for an exported mapping: columns are in lower case, Salesforce's own names are lost in them."""


_TABLES = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
       EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indnatts = 1
               AND i.indkey[0] = a.attnum),
       EXISTS (SELECT 1 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
               WHERE t.tgrelid = c.oid AND p.proname LIKE 'hc\\_%%\\_logger' AND p.prosrc NOT LIKE '%%READONLY%%')
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'r' AND c.relname NOT LIKE '\\_%%'
ORDER BY c.relname, a.attnum
"""


def live_tables(using: str, schema: str) -> list[Table]:
    """Return the mapped tables of a schema; Heroku Connect's own, which begin with an underscore, are left out."""
    with connections[using].cursor() as cursor:
        cursor.execute(_TABLES, [quote(schema)])
        rows = cursor.fetchall()
    columns: dict[str, list[Column]] = {}
    read_write = {}
    for table, name, kind, unique, writes in rows:
        columns.setdefault(table, []).append(Column(name, _short(kind), unique))
        # The function that Heroku Connect writes for a read-only mapping marks every entry as READONLY.
        read_write[table] = writes
    return [Table(name, tuple(found), read_write[name], _upsert(found)) for name, found in columns.items()]


def mapped_tables(mapping: dict[str, Any]) -> list[Table]:
    """Return the objects of an exported mapping; it knows no types."""
    tables = []
    for entry in mapping["mappings"]:
        config = entry["config"]
        unique = {name for name, index in config.get("indexes", {}).items() if index.get("unique")}
        columns = tuple(Column(name, None, name in unique) for name in config["fields"])
        writes, upsert = config.get("access") == "read_write", config.get("upsert_field")
        tables.append(Table(entry["object_name"], columns, writes, upsert, case_known=True))
    return tables


def _upsert(columns: Iterable[Column]) -> str | None:
    unique = [column.name for column in columns if column.unique and column.name not in ("id", "sfid")]
    return unique[0] if len(unique) == 1 else None


def _short(kind: str) -> str:
    return kind.replace("character varying", "varchar").replace("time without time zone", "time")


def models_code(tables: list[Table]) -> str:
    """Return Python code with one model per table; what could only be guessed says so in a comment."""
    names = {table.object_name.lower(): class_name(table.object_name) for table in tables}
    parts = ['"""Connected models, written by hc_inspect; look through them before use."""', ""]
    if any(not table.case_known for table in tables):
        parts += [
            "# Columns are in lower case: Salesforce's own spelling of names is unknown here, and need not be known,",
            "# because its API takes any. `hc_inspect --mapping FILE` knows it.",
        ]
    parts += ["from django.db import models", "", "from hc_signals.db import models as hc_models"]
    for table in tables:
        parts += ["", "", *_model_lines(table, names)]
    return "\n".join(parts) + "\n"


def class_name(object_name: str) -> str:
    """Return a class name: ``My_Object__c`` becomes ``MyObject``."""
    stem = re.sub(r"__(c|kav|x|mdt)$", "", object_name, flags=re.IGNORECASE)
    name = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^0-9A-Za-z]+", stem))
    return name if name[:1].isalpha() else f"Object{name}"


def _model_lines(table: Table, class_names: dict[str, str]) -> list[str]:
    lines = [f"class {class_name(table.object_name)}(hc_models.HerokuConnectModel):"]
    lines.append(f"    sf_object_name = {_spelling(table, table.object_name)!r}")
    if table.read_write:
        lines.append("    sf_access = hc_models.READ_WRITE")
    lines.append("")
    columns = {column.name.lower(): column for column in table.columns}
    used: set[str] = {"id", "sf_id", "system_mod_stamp", "is_deleted"}
    for name, column in columns.items():
        if name in SYSTEM_COLUMNS or name == "id" or name.endswith("__longitude__s"):
            continue
        if name.endswith("__latitude__s") and name.replace("latitude", "longitude") in columns:
            stem = column.name[: -len("__latitude__s")]
            field = f"hc_models.Geolocation(sf_field_name={_spelling(table, stem + '__c')!r})"
            lines.append(f"    {_attribute(stem, used)} = {field}")
        else:
            lines.append(_field_line(table, column, class_names, used))
    return lines


def _field_line(table: Table, column: Column, class_names: dict[str, str], used: set[str]) -> str:
    kind, arguments, doubt = _field(table, column, class_names)
    arguments = [*arguments[:1], f"sf_field_name={_spelling(table, column.name)!r}", *arguments[1:]]
    arguments = [argument for argument in arguments if argument]
    comment = f"  # {doubt}" if doubt else ""
    return f"    {_attribute(column.name, used)} = hc_models.{kind}({', '.join(arguments)}){comment}"


_BY_TYPE = {
    "text": ("TextAreaLong", "", ""),
    "boolean": ("Checkbox", "", ""),
    "integer": ("Integer", "", ""),
    "date": ("Date", "", ""),
    "time": ("Time", "", ""),
    "timestamp without time zone": ("DateTime", "", ""),
    "double precision": ("Number", "max_digits=18, decimal_places=2", "digits are not in the table: adjust"),
    "varchar(1300)": ("FormulaText", "", "by its length: a formula?"),
    "varchar(4099)": ("MultiPicklist", "", "by its length: a multi-select picklist?"),
}


Guess = tuple[str, list[str], str]
"""Field class, its arguments (the first stands before sf_field_name), and what is doubtful about it."""


def _field(table: Table, column: Column, class_names: dict[str, str]) -> Guess:
    upsert = table.upsert is not None and table.upsert.lower() == column.name.lower()
    if column.type is None:
        return _field_of_mapping(column, upsert)
    return _lookup(column, class_names) or _by_name(column) or _by_type(column, upsert)


def _field_of_mapping(column: Column, upsert: bool) -> Guess:
    if upsert:
        return "Text", ["", "max_length=255, upsert=True"], "ExternalID, if it holds UUIDs"
    return "AnyType", ["", "unique=True" if column.unique else ""], "a mapping knows no types"


def _lookup(column: Column, class_names: dict[str, str]) -> Guess | None:
    name = column.name.lower()
    target = class_names.get(name.removesuffix("id")) if name.endswith("id") else None
    if target is None or column.type != "varchar(18)":
        return None
    relation = 'to_field="sf_id", on_delete=models.DO_NOTHING, related_name="+"'
    return "Lookup", [f'"{target}"', relation], "by its name"


def _by_name(column: Column) -> Guess | None:
    for kind, part, found in (("varchar(80)", "email", "Email"), ("varchar(40)", "phone", "Phone")):
        if column.type == kind and part in column.name.lower():
            return found, [], ""
    return None


def _by_type(column: Column, upsert: bool) -> Guess:
    kind = column.type or ""
    if upsert and kind == "varchar(32)":
        return "ExternalID", [], "a UUID by its length?"
    if kind in _BY_TYPE:
        found, arguments, doubt = _BY_TYPE[kind]
        return found, ["", arguments], doubt
    length = re.fullmatch(r"varchar\((\d+)\)", kind)
    if length is None:
        return "AnyType", [], f"the column is {kind}"
    more = ", upsert=True" if upsert else ", unique=True" if column.unique else ""
    return "Text", ["", f"max_length={length[1]}{more}"], "a reference?" if kind == "varchar(18)" else ""


def _spelling(table: Table, name: str) -> str:
    if table.case_known:
        return name
    return "_".join(part[:1].upper() + part[1:] for part in name.split("__", maxsplit=1)[0].split("_")) + (
        "__" + "__".join(name.split("__")[1:]) if "__" in name else ""
    )


def _attribute(name: str, used: set[str]) -> str:
    """Return a free Python name: ``Annual_Revenue__c`` and ``AnnualRevenue`` become ``annual_revenue``."""
    stem = re.sub(r"__[a-z]$", "", name, flags=re.IGNORECASE)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem).lower()
    attribute = re.sub(r"\W|_+", "_", snake).strip("_") or "field"
    if attribute[0].isdigit() or keyword.iskeyword(attribute) or hasattr(models.Model, attribute):
        attribute = f"sf_{attribute}"
    free, number = attribute, 2
    while free in used:
        free, number = f"{attribute}_{number}", number + 1
    used.add(free)
    return free


def differences(model: type[models.Model], using: str) -> list[str]:
    """Return one line for each column of the model that the live table lacks or has with another type."""
    label = model._meta.label
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NULL", [quoted_table(model)])
        if cursor.fetchone()[0]:
            return [f"{label}: the table {quoted_table(model)} does not exist; map the object in Heroku Connect."]
        cursor.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            [quoted_table(model)],
        )
        found = {name: _short(kind) for name, kind in cursor.fetchall()}
    lines = []
    for field in model._meta.local_concrete_fields:
        expected = field.db_type(connections[using])
        if field.column not in found:
            lines.append(f"{label}.{field.name}: the table has no column {field.column!r}; map the field or remove it.")
        elif not field.primary_key and expected != found[str(field.column)]:
            lines.append(
                f"{label}.{field.name}: the column {field.column!r} is {found[str(field.column)]}; the model expects "
                f"{expected}."
            )
    return lines
