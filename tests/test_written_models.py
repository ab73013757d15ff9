"""For any mapping, hc_inspect writes code with every column; it compiles and passes Django's checks."""

import json
import keyword
from typing import Any

import pytest
from django.test.utils import isolate_apps
from hypothesis import given
from hypothesis import strategies as st

from hc_signals.heroku.inspection import Column, Source, Table, class_names, mapped_source, models_code
from hc_signals.tables import has_no_is_deleted
from tests.machines.machine import machine_settings
from tests.test_inspect import classes

PARTS = (
    *(
        "a",
        "A",
        "order",
        "Order",
        "ORDER",
        "Account",
        "name",
        "Name",
        "models",
        "hc_models",
        "objects",
        "sf",
        "id",
        "Id",
    ),
    *("pk", "is_deleted", "SystemModstamp", "hc_schema", "latitude", "Loc", "loc", "class", "None", "True", "1"),
    *(
        "2nd",
        "check",
        "save",
        "_",
        "__",
        "é",
        "$",
        " ",
        "'",
        '"',
        "\\",
        "x" * 40,
        "ns__",
        "field",
        "Who",
        "Owner",
        "User",
    ),
)
SUFFIXES = (
    "",
    "",
    "Id",
    "__c",
    "__C",
    "__pc",
    "__pr__x__c",
    "__r__ext__c",
    "__latitude__s",
    "__longitude__s",
    "__Longitude__s",
)
OBJECT_SUFFIXES = ("", "__c", "__kav", "__x", "__mdt", "__e", "__History", "__Share", "__Feed", "History", "Feed")
TYPES = (
    *("varchar(18)", "varchar(80)", "varchar(32)", "varchar(1300)", "varchar(4099)", "varchar(40)", "varchar", "text"),
    *(
        "boolean",
        "integer",
        "bigint",
        "double precision",
        "date",
        "time",
        "timestamp without time zone",
        "numeric(5,2)",
    ),
    *("numeric", "numeric(2,-3)", "jsonb", "uuid", "bytea", "text[]", "tsvector", "other.mood"),
)
SYSTEM = ("IsDeleted", "SystemModstamp", "Id", "CreatedDate")


def names(suffixes: tuple[str, ...]) -> st.SearchStrategy[str]:
    parts = [part for part in PARTS if suffixes is SUFFIXES or part.strip("_").isalnum()]
    stems = st.lists(st.sampled_from(parts), min_size=1, max_size=3).map("".join)
    return st.tuples(stems, st.sampled_from(suffixes)).map("".join).filter(str.strip)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    fields = draw(st.lists(st.one_of(names(SUFFIXES), st.sampled_from(SYSTEM)), max_size=12))
    some = st.lists(st.sampled_from(fields), max_size=3) if fields else st.just([])
    config = {
        "access": draw(st.sampled_from(("read_only", "read_write"))),
        "fields": {name: {} for name in fields},
        "indexes": {name: {"unique": draw(st.booleans())} for name in draw(some)},
    }
    if draw(st.booleans()) and fields:
        config["upsert_field"] = draw(st.one_of(st.sampled_from(fields), st.just("Nowhere__c")))
    return config


MAPPINGS = st.lists(st.tuples(names(OBJECT_SUFFIXES), configs()), min_size=1, max_size=6).map(
    lambda pairs: {"version": 1, "mappings": [{"object_name": name, "config": config} for name, config in pairs]}
)


@st.composite
def live_tables(draw: st.DrawFn) -> Table:
    made = {}
    for name in draw(st.lists(names(SUFFIXES), max_size=12)):
        column = name.lower()
        if len(column.encode()) <= 63 and column not in ("id", "sfid"):
            made[column] = Column(
                column, column, draw(st.sampled_from(TYPES)), draw(st.booleans()), holds_uuids=draw(st.booleans())
            )
    more = {"id": "integer", "sfid": "varchar(18)"}
    more |= {"systemmodstamp": "timestamp without time zone"} if draw(st.booleans()) else {}
    more |= {"isdeleted": draw(st.sampled_from(("boolean", "text")))} if draw(st.booleans()) else {}
    made |= {name: Column(name, name, kind) for name, kind in more.items()}
    return Table(draw(names(OBJECT_SUFFIXES)).lower(), tuple(made.values()), draw(st.booleans()))


LIVE = st.lists(live_tables(), min_size=1, max_size=6, unique_by=lambda table: table.object_name).map(
    lambda tables: Source(tuple(tables))
)


def try_out(source: Source) -> None:
    """Check and import the written models, and compare them with their source."""
    code = models_code(source)
    with isolate_apps("tests.sfdc") as registry:
        written = classes(code)
        models = {model._meta.db_table.rpartition('"')[2]: model for model in registry.get_models()}
        assert len(written) == len(models) == len(source.tables)
        assert not registry._pending_operations, "a relation points at no model"
        for table in source.tables:
            model: Any = models[table.object_name.lower()]
            assert model.check() == [], code
            columns = {field.column for field in model._meta.local_concrete_fields}
            mapped = set(table.by_column) - ({"id"} if table.case_known else set())
            left_out = {each.column for each in table.columns if f"# Left out: {each.name!r}: " in code}
            kept = {"id", "sfid", "_hc_lastop", "_hc_err"} if table.case_known else {"id", "sfid"}
            missing = mapped - left_out - columns
            assert missing <= ({"isdeleted"} if has_no_is_deleted(table.object_name) else set()), code
            assert columns <= mapped | kept, code
            upserts = [field.column for field in model.get_heroku_connect_fields() if field.upsert]
            assert not table.upsert or upserts == [table.upsert]


@machine_settings(40, steps=1)
@given(MAPPINGS)
def test_any_mapping_becomes_models_that_pass_checks(mapping: dict[str, Any]) -> None:
    try_out(mapped_source(json.loads(json.dumps(mapping))))


@machine_settings(40, steps=1)
@given(LIVE)
def test_any_tables_become_models_that_pass_checks(source: Source) -> None:
    try_out(source)


@machine_settings(100, steps=1)
@given(st.lists(names(OBJECT_SUFFIXES), max_size=12))
def test_class_names_are_unique_without_case(objects: list[str]) -> None:
    found = class_names(objects)
    assert found.keys() == {name.lower() for name in objects}
    assert len({name.lower() for name in found.values()}) == len(found)
    for name in found.values():
        assert name.isidentifier()
        assert not keyword.iskeyword(name)
        assert "__" not in name
        assert not name.endswith("_")
    assert class_names(reversed(objects)).keys() == found.keys()


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        (["order__c", "order"], {"order": "Order", "order__c": "OrderC"}),
        (["faq__c", "faq__kav"], {"faq__c": "Faq", "faq__kav": "FaqKav"}),
        (["Account__History", "AccountHistory"], {"accounthistory": "AccountHistory"}),
        (["accounthistory", "account__history"], {"accounthistory": "Accounthistory"}),
        (["ns__Order__c", "Order"], {"ns__order__c": "NsOrder", "order": "Order"}),
        (["Order__c"], {"order__c": "Order"}),
    ],
)
def test_colliding_class_names_differ(objects: list[str], expected: dict[str, str]) -> None:
    assert class_names(objects).items() >= expected.items()
