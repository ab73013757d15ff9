"""Writes models as Python code."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from hc_signals.heroku.inspection.fields import Guess, can_be_upsert, guess
from hc_signals.heroku.inspection.names import Attributes, class_names
from hc_signals.heroku.inspection.read import Column, Source, Table, unnameable
from hc_signals.tables import SYSTEM_COLUMNS, get_schema, has_no_is_deleted

_HALVES = ("latitude", "longitude")
_ALSO = {"hc_models.Lookup": ("_id",), "hc_models.Geolocation": tuple(f"_{half}" for half in _HALVES)}
"""Suffixes of the attributes that a field makes beside its own."""


def models_code(source: Source, schema: str = "", objects: Iterable[str] = ()) -> str:
    """Return Python code with one model per table, and a comment beside each guess.

    Args:
        source: the mapped objects.
        schema: schema of the tables; default: ``HEROKU_CONNECT_SCHEMA``.
        objects: names of the objects to write, in any case; default: all. They do not change the models' names.
    """
    wanted = {name.lower() for name in objects}
    tables = [table for table in source.tables if not wanted or table.object_name.lower() in wanted]
    names = class_names(table.object_name for table in source.tables)
    targets = {name: names[name] for name in (table.object_name.lower() for table in tables if _has_sfid(table))}
    parts = ['"""Connected models, written by hc_inspect; look through them before use."""', ""]
    if any(not table.case_known for table in tables):
        parts += [
            "# Columns are in lower case, so Salesforce's own spelling of names is unknown. Its API accepts any case.",
            "# `hc_inspect --mapping FILE` writes Salesforce's.",
        ]
    parts += [f"# Left out: {name!r}: {reason}" for name, reason in source.left_out.items() if not wanted]
    parts += ["from django.db import models", "", "from hc_signals.db import models as hc_models"]
    for table in tables:
        name = names[table.object_name.lower()]
        parts += ["", "", *_model_lines(name, table, targets, "" if schema == get_schema() else schema)]
    return "\n".join(parts) + "\n"


def _has_sfid(table: Table) -> bool:
    return table.case_known or _is_usual(table.by_column["sfid"])


def _model_lines(name: str, table: Table, targets: Mapping[str, str], schema: str) -> Iterator[str]:
    yield f"class {name}(hc_models.HerokuConnectModel):"
    choice = _choose_upsert(table)
    yield from (f"    # {line}" for line in choice.comments)
    yield f"    sf_object_name = {spelling(table, table.object_name)!r}"
    if schema:
        yield f"    hc_schema = {schema!r}"
    if choice.read_write:
        yield "    sf_access = hc_models.READ_WRITE"
        if not choice.upsert:
            yield "    sf_without_upsert = True"
    usual = {column.column for column in table.columns if _is_usual(column)}
    yield from _system_lines(table, usual)
    if fields := list(_field_lines(table, usual, targets, choice.upsert)):
        yield from ("", *fields)


_SYSTEM_TYPES = {
    "id": ("integer", "bigint", "smallint"),
    "sfid": ("varchar(18)",),
    "systemmodstamp": ("timestamp without time zone",),
    "isdeleted": ("boolean",),
    "_hc_lastop": ("varchar(32)",),
    "_hc_err": ("text",),
}


def _is_usual(column: Column) -> bool:
    """Return whether it is a system column with the type that the field of every connected model reads."""
    types = _SYSTEM_TYPES.get(column.column)
    return types is not None and (column.type in (None, *types) or (column.column in _KEPT and column.is_text))


_KEPT = ("sfid", "_hc_lastop", "_hc_err")
"""Heroku Connect's own texts, which may have any length."""


def _system_lines(table: Table, usual: set[str]) -> Iterator[str]:
    """Remove the system fields that the table lacks."""
    never_mapped = ("id", "sfid", "_hc_lastop", "_hc_err") if table.case_known else ("id",)
    for column, attribute in SYSTEM_COLUMNS.items():
        is_there = column in usual or column in never_mapped
        if column == "isdeleted" and has_no_is_deleted(table.object_name):
            if is_there:
                yield f'    {attribute} = hc_models.Checkbox(sf_field_name="IsDeleted")'
        elif not is_there:
            yield f"    {attribute} = None  # {'not mapped' if table.case_known else 'the table has no such column'}"


@dataclass(frozen=True)
class _Choice:
    """Access and upsert field of a model."""

    read_write: bool
    upsert: str = ""
    comments: tuple[str, ...] = ()


def _choose_upsert(table: Table) -> _Choice:
    """Choose the upsert field, with a comment if the source does not name it or the mapping has none."""
    if table.upsert or (table.case_known and table.read_write):
        return _Choice(table.read_write, table.upsert, () if table.upsert else _NO_UPSERT)
    candidates = sorted(filter(can_be_upsert, table.columns), key=_unlikeliness)
    if len(candidates) == 1:
        return _Choice(table.read_write, candidates[0].column)
    if not table.read_write:
        return _Choice(False)
    if not candidates:
        return _Choice(True, comments=_NO_UPSERT)
    names = ", ".join(repr(column.name) for column in candidates)
    chosen = f"Several columns are unique: {names}. The first is the upsert field here: compare it with the mapping."
    return _Choice(True, candidates[0].column, (chosen,))


_NO_UPSERT = (
    "The mapping has no unique identifier: Heroku Connect can make two rows of a record that your app inserts.",
    "Better choose one in the mapping. Then write `upsert=True` in its field instead of `sf_without_upsert = True`.",
)


def _unlikeliness(column: Column) -> tuple[bool, bool, bool]:
    name = column.name.lower()
    return not name.endswith("__c"), "ext" not in name and "uuid" not in name, name.count("__") > 1


def _field_lines(table: Table, usual: set[str], targets: Mapping[str, str], upsert: str) -> Iterator[str]:
    """Yield the lines of the fields. Standard fields choose names first, whatever the order of the columns."""
    left_out = {column.column: reason for column in table.columns if (reason := _why_no_field(column))}
    every = [pair for pair in _fields(table, targets, upsert) if pair[0].column not in usual]
    found = [(column, None if column.column in left_out else field) for column, field in every]
    attributes = Attributes()
    names = {
        column.column: attributes.claim(_wanted_name(table, column, field), _ALSO.get(field.kind, ()))
        for column, field in sorted(found, key=lambda pair: "__" in pair[0].name)
        if field is not None
    }
    for column, field in found:
        if field is None:
            reason = left_out.get(column.column) or f"no field class reads {column.type}."
            yield f"    # Left out: {column.name!r}: {reason}"
        else:
            yield f"    {names[column.column]} = {_call(table, column, field)}"


def _why_no_field(column: Column) -> str:
    if unreadable := unnameable(column.column):
        return f"its name has {unreadable}, which Django cannot use in a query."
    return "the database fills it, but saving a record would write it." if column.is_computed else ""


def _wanted_name(table: Table, column: Column, field: Guess) -> str:
    is_relation = field.kind == "hc_models.Lookup" and table.case_known
    return column.name.removesuffix("Id") if is_relation else column.name


def _fields(table: Table, targets: Mapping[str, str], upsert: str) -> Iterator[tuple[Column, Guess | None]]:
    """Yield each column with its field; the two halves of a geolocation are one, in the place of the first half."""
    by_column, halves = table.by_column, set()
    for column in table.columns:
        if column.column in halves:
            continue
        if (pair := _geolocation(column, by_column)) and upsert not in pair:
            halves |= set(pair)
            stem = column.name[: column.name.lower().rindex("__l")]  # __latitude__s, __longitude__s
            yield replace(column, name=f"{stem}__c"), Guess("hc_models.Geolocation")
        else:
            yield column, guess(column, table.object_name, targets, upsert)


def _geolocation(column: Column, by_column: Mapping[str, Column]) -> list[str]:
    """Return both columns of a geolocation if this is one of them and the table has the other; else nothing."""
    for half in _HALVES:
        ending = f"__{half}__s"
        if column.column.endswith(ending):
            pair = [column.column.removesuffix(ending) + f"__{each}__s" for each in _HALVES]
            if all(name in by_column and by_column[name].type in (None, "double precision") for name in pair):
                return pair
    return []


def _call(table: Table, column: Column, field: Guess) -> str:
    arguments = [repr(field.target)] if field.target else []
    if field.is_salesforce:
        arguments.append(f"sf_field_name={spelling(table, column.name)!r}")
        if field.kind != "hc_models.Geolocation" and column.column != column.name.lower():
            arguments.append(f"db_column={column.column!r}")
    else:
        arguments.append(f"db_column={column.column!r}, null=True, blank=True")
    if field.arguments:
        arguments.append(field.arguments)
    return f"{field.kind}({', '.join(arguments)})" + (f"  # {field.doubt}" if field.doubt else "")


def spelling(table: Table, name: str) -> str:
    """Return the API name of the mapping, or the column's name with the usual capitals."""
    if table.case_known:
        return name
    first, *rest = name.split("__")
    capitals = "_".join(part[:1].upper() + part[1:] for part in first.split("_"))
    return "__".join([capitals, *rest])
