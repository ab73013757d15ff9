"""`make any-mapping`: does the steps of tests/orgs.py with random mappings and tables.

Each seed makes an exported mapping with random names, or tables with random columns. Some columns have types that users
add and Heroku Connect does not. `make any-mapping ANY="--seeds 1-50"` runs 50 seeds.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hc_signals.postgres.names import literal, quote, truncate_name
from hc_signals.testing.tables import schema_sql, triggers_sql
from tests.orgs import COUNTS, STEPS, Outcome, line_of, row, server_url, try_out

SCHEMA = "salesforce"
OBJECTS = (
    *("Account", "Contact", "Order", "Case", "User", "RecordType", "Group", "Task", "Event", "Campaign", "Product2"),
    *("Order__c", "Case__c", "faq__c", "faq__kav", "AccountHistory", "Account__History", "Account__Share"),
    *("Invoice__c", "Line_Item__c", "XYZ123__c", "ns__Order__c", "Model__c", "None__c", "Class__c", "models__c"),
    *("HerokuConnectModel__c", "Type__c", "Str__c", "Meta__c", "Object__c", "2nd__c", "Très_Long__c", "注文__c"),
    *(f"{'Long' * 9}__c", f"sixteencharacter__{'Long' * 9}__c", f"sixteencharacter__{'Lang' * 10}__c"),
)
NAMES = (
    *("Name", "Type", "Status", "Amount", "CloseDate", "Email", "Phone", "Street", "Latitude__c", "Description"),
    *("class", "def", "None", "True", "import", "lambda", "async", "print", "list", "id", "property", "super"),
    *("pk", "objects", "Meta", "save", "delete", "clean", "full_clean", "check", "_state", "refresh_from_db"),
    *("validate_unique", "unique_error_message", "date_error_message", "get_deferred_fields", "serializable_value"),
    *("DoesNotExist", "MultipleObjectsReturned", "adding", "from_db", "sf_object_name", "sf_access", "hc_schema"),
    *("models", "hc_models", "is_deleted", "system_mod_stamp", "sf_id", "hc_lastop", "attname", "default", "self"),
    *("prepare_database_save", "get_next_by_date", "date", "a_b", "a__b", "A_B", "x__", "_x", "2nd", "é", "名前"),
    *("Loc__latitude__s", "Loc__longitude__s", "Half__latitude__s", "loc_latitude", "loc", "p%t", "d$llar"),
    *("AccountId", "ContactId", "ParentId", "OwnerId", "WhoId", "CreatedById", "accountid_id", "Order__r__Ext__c"),
    *("FirstName__pc", "Parent__pr__Name__c", f"{'w' * 43}", f"{'w' * 42}z", f"ns__{'w' * 40}__r__ns__{'v' * 40}"),
)
ENDINGS = ("__c", "__c", "__c", "", "__C", "__pc")
HEROKU_TYPES = (
    *("varchar(1)", "varchar(4)", "varchar(18)", "varchar(32)", "varchar(40)", "varchar(80)", "varchar(128)"),
    *("varchar(255)", "varchar(1300)", "varchar(4099)", "text", "boolean", "integer", "double precision", "date"),
    *("time", "timestamp"),
)
OWN_TYPES = (
    *("numeric", "numeric(5)", "numeric(18,0)", "numeric(4,4)", "numeric(30,12)"),
    *("bigint", "smallint", "real", "float8", "money", "char(1)", "char(5)", "bpchar", "varchar", '"char"', "name"),
    *("timestamptz", "timestamp(0)", "time(3)", "timetz", "interval", "uuid", "json", "jsonb", "bytea", "inet", "xml"),
    *("text[]", "integer[]", "bit(3)", "point", "int4range", "tsvector", "cidr", "macaddr", "oid"),
    *(f"{SCHEMA}.mood", f"{SCHEMA}.code", f"{SCHEMA}.amount", f"{SCHEMA}.pair"),
)
KEYS = ("varchar(4)", "varchar(32)", "varchar(255)", "double precision", "integer", "text")


def column_names(chance: random.Random, count: int) -> list[str]:
    """Return names of fields that differ as Salesforce compares them, without case."""
    found = {}
    for _ in range(count):
        name = chance.choice(NAMES) if chance.random() < 0.7 else f"Field_{chance.randrange(1000)}"
        name += "" if name.endswith("__s") else chance.choice(ENDINGS)
        found.setdefault(truncate_name(name.lower()), name)
    return [name for column, name in found.items() if column not in _SYSTEM]


_SYSTEM = ("id", "sfid", "systemmodstamp", "isdeleted", "createddate", "lastmodifieddate", "_hc_lastop", "_hc_err")


def mapping(chance: random.Random) -> str:
    """Return an exported mapping."""
    entries = []
    for name in different_objects(chance):
        own = column_names(chance, chance.choice((0, 3, 8, 15, 60)))
        indexes = {each: {"unique": chance.random() < 0.4} for each in chance.sample(own, min(2, len(own)))}
        system = [each for each in ("IsDeleted", "SystemModstamp", "CreatedDate") if chance.random() < 0.8]
        fields = ["Id", *own, *system]
        config: dict[str, Any] = {"access": chance.choice(("read_only", "read_write"))}
        if own and chance.random() < 0.6:
            config["upsert_field"] = chance.choice(own)
            indexes[config["upsert_field"]] = {"unique": True}
        chance.shuffle(fields)
        config |= {"fields": {key: {} for key in fields}, "indexes": indexes}
        entries.append({"object_name": name, "config": config})
    return json.dumps({"version": 1, "mappings": entries})


def different_objects(chance: random.Random) -> list[str]:
    """Return names of objects, each with a table of its own."""
    found = {truncate_name(name.lower()): name for name in chance.sample(OBJECTS, chance.randint(2, 5))}
    return list(found.values())


def tables(chance: random.Random) -> Iterator[str]:
    """Yield the statements that create tables and other relations in a mapped schema."""
    yield f"CREATE SCHEMA {SCHEMA}"
    yield schema_sql(SCHEMA)
    yield f"CREATE TYPE {SCHEMA}.mood AS ENUM ('good', 'it''s', 'not \"so\" bad')"
    yield f"CREATE DOMAIN {SCHEMA}.code AS varchar(12)"
    yield f"CREATE DOMAIN {SCHEMA}.amount AS numeric(9,3)"
    yield f"CREATE TYPE {SCHEMA}.pair AS (a integer, b text)"
    for name in different_objects(chance):
        yield from table(chance, truncate_name(name.lower()))
    if chance.random() < 0.3:
        yield f'CREATE TABLE {SCHEMA}."Capitals" (id serial PRIMARY KEY, sfid varchar(18))'
        yield f"CREATE VIEW {SCHEMA}.seen AS SELECT 1 AS id, 'x' AS sfid"
        yield f"CREATE TABLE {SCHEMA}.plain (id bigserial PRIMARY KEY, name text)"


def table(chance: random.Random, name: str) -> Iterator[str]:
    """Yield the statements that create one table."""
    place = f"{SCHEMA}.{quote(name)}"
    keys = ("serial PRIMARY KEY", "bigserial PRIMARY KEY", "integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
    columns = {"id": keys[0] if chance.random() < 0.7 else chance.choice(keys), "sfid": "varchar(18) UNIQUE"}
    columns |= {"systemmodstamp": "timestamp"} if chance.random() < 0.8 else {}
    columns |= {"isdeleted": "boolean"} if chance.random() < 0.8 else {}
    columns |= {"createddate": "timestamp"} if chance.random() < 0.8 else {}
    own = column_names(chance, chance.choice((0, 3, 8, 15, 400 if chance.random() < 0.1 else 30)))
    for column in own:
        kinds = HEROKU_TYPES if chance.random() < 0.7 else OWN_TYPES
        kind = "varchar(18)" if column.endswith("Id") else chance.choice(kinds)
        columns[truncate_name(column if column[0] == "A" and chance.random() < 0.1 else column.lower())] = kind
    if chance.random() < 0.3:
        columns["counted__c"] = "integer GENERATED ALWAYS AS IDENTITY"
        columns["computed__c"] = "integer GENERATED ALWAYS AS (id * 2) STORED"
    if chance.random() < 0.5:
        columns["key__c"] = f"{chance.choice(KEYS)} UNIQUE"
    if chance.random() < 0.2:
        columns["since"] = "timestamp NOT NULL DEFAULT now()"
    columns |= {"_hc_lastop": "varchar(32)", "_hc_err": "text"}
    yield f"CREATE TABLE {place} ({', '.join(f'{quote(each)} {kind}' for each, kind in columns.items())})"
    texts = [each for each, kind in columns.items() if kind in ("varchar(40)", "varchar(80)", "varchar(255)", "text")]
    if len(texts) > 1 and chance.random() < 0.5:
        first, second = map(quote, chance.sample(texts, 2))
        yield f"CREATE UNIQUE INDEX ON {place} ({first}, {second})"
    if texts and chance.random() < 0.2:
        yield f"CREATE UNIQUE INDEX ON {place} (lower({quote(chance.choice(texts))}))"
    yield triggers_sql(SCHEMA, name, read_write=chance.random() < 0.5)
    yield f"COMMENT ON TABLE {place} IS {literal('é; %')}"


def write(seed: int, folder: Path) -> Path:
    """Write the mapping of an odd seed, or the tables of an even one, into a file; return its path."""
    chance = random.Random(seed)
    path = folder / f"seed-{seed}.{'json' if seed % 2 else 'sql'}"
    text = mapping(chance) if seed % 2 else ";\n".join(tables(chance))
    path.write_text(text, encoding="utf-8")
    return path


def try_seed(seed: int, changes: int, url: str) -> Outcome:
    """Try one seed on a new database of the server."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        return try_out([write(seed, folder)], url, folder, changes=changes, seed=seed)


def main() -> None:
    """Try each seed in turn; exit 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1-10", help="first and last seed (default: 1-10)")
    parser.add_argument("--changes", type=int, default=2000, help="least number of changes for each (default: 2000)")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    url, failed = server_url(), 0
    print(row(["", *STEPS, *COUNTS], 16), flush=True)
    for seed in range(int(first), int(last or first) + 1):
        outcome = try_seed(seed, options.changes, url)
        print(line_of(outcome, 16), flush=True)
        if not outcome.is_well:
            failed += 1
            print(outcome, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
