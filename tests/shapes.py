"""SQL of tables in unusual shapes, as Heroku Connect creates them in real orgs."""

from collections.abc import Iterator

from hc_signals.postgres.names import quote
from hc_signals.testing.tables import schema_sql, triggers_sql

SYSTEM = "id serial PRIMARY KEY, sfid varchar(18), _hc_lastop varchar(32), _hc_err text"
STAMP, DELETED = "systemmodstamp timestamp", "isdeleted boolean"
USUAL = f"{SYSTEM}, {STAMP}, {DELETED}"

LONG = "a" * 36 + "__c"
NAMESPACED = "sixteencharacter__" + "b" * 37 + "__c"

READ_ONLY = {
    # Names that would get the same class name, with lookups to them.
    "order": f"{USUAL}, ordernumber varchar(30)",
    "order__c": f"{USUAL}, name varchar(80), orderid varchar(18), order__c varchar(18)",
    "case": f"{USUAL}, subject varchar(255), parentid varchar(18)",
    "case__c": f"{USUAL}, caseid varchar(18)",
    "faq__c": f"{USUAL}, name varchar(80)",
    "faq__kav": f"{USUAL}, title varchar(255)",
    # Without the usual system columns.
    "recordtype": f"{SYSTEM}, {STAMP}, developername varchar(80), sobjecttype varchar(40)",
    "group": f"{SYSTEM}, {STAMP}, name varchar(40), type varchar(40)",
    "profile": f"{SYSTEM}, {STAMP}, name varchar(255)",
    "emailtemplate": f"{SYSTEM}, {STAMP}, body text, subject varchar(230)",
    "user": f"{SYSTEM}, {STAMP}, email varchar(128), managerid varchar(18), isactive boolean",
    "accounthistory": f"{SYSTEM}, {DELETED}, accountid varchar(18), field varchar(255), createddate timestamp",
    "account__history": f"{SYSTEM}, parentid varchar(18), field varchar(255), createddate timestamp",
    "account__share": f"{SYSTEM}, {DELETED}, parentid varchar(18), userorgroupid varchar(18), accesslevel varchar(40)",
    "account__feed": f"{SYSTEM}, {STAMP}, {DELETED}, body text, parentid varchar(18)",
    "accepted_event_relation": f"{SYSTEM}, {STAMP}, relationid varchar(18), eventid varchar(18)",
    # Names that hide an attribute of the model, a name of its module or another field.
    "namesakes__c": f"{USUAL}, sf_access__c varchar(40), objects__c varchar(40), models__c varchar(40), "
    "hc_models__c varchar(40), hc_schema__c varchar(40), pk__c varchar(40), id__c varchar(40), save__c boolean, "
    "check__c boolean, name varchar(80), name__c varchar(80), sf_name__c varchar(80), class__c varchar(40), "
    "none__c varchar(40), is_deleted__c boolean, system_mod_stamp__c timestamp, sf_id__c varchar(18), "
    "loc_latitude__c double precision, loc__longitude__s double precision, accountid varchar(18), "
    "accountid_id__c varchar(18), loc__latitude__s double precision, loc__c varchar(40), half__latitude__s "
    "double precision, other__longitude__s double precision, _leading__c varchar(40), x2nd__c varchar(40), "
    "__c varchar(40), a_b__c varchar(40), a__b__c varchar(40), doesnotexist__c varchar(40), pre__x__c varchar(10)",
    "2nd__c": f"{USUAL}, 1st__c varchar(40), 2_3__c double precision".replace("1st__c", '"1st__c"').replace(
        "2_3__c", '"2_3__c"'
    ),
    "none__c": f"{USUAL}, true__c boolean",
    "model__c": f"{USUAL}, name varchar(80)",
    # Person accounts, polymorphic and own lookups, columns of parents.
    "account": f"{USUAL}, name varchar(255), parentid varchar(18), ownerid varchar(18), masterrecordid varchar(18), "
    "personemail varchar(80), personcontactid varchar(18), nickname__pc varchar(80), company__pr__name varchar(80), "
    "phone varchar(40), numberofemployees integer, billinglatitude double precision",
    "task": f"{USUAL}, whoid varchar(18), whatid varchar(18), ownerid varchar(18), accountid varchar(18), "
    "createdbyid varchar(18)",
    "line__c": f"{USUAL}, order__r__external_id__c varchar(255), parent__r__ext__c varchar(80), "
    "createdbyid varchar(18)",
    # Length and namespaces.
    LONG: f"{USUAL}, {LONG} varchar(255)",
    NAMESPACED: f"{USUAL}, {NAMESPACED} varchar(255), sixteencharacter__{'c' * 37}__r__sixteencharacter__d__c text",
    "setting__mdt": f"{SYSTEM}, {STAMP}, developername varchar(40)",
    "outside__x": f"{USUAL}, externalid varchar(255), displayurl varchar(1000)",
    "notice__e": f"{SYSTEM}, createddate timestamp, replayid varchar(18)",
    # Columns that the user added, with types that Heroku Connect does not create.
    "own_columns__c": f"{USUAL}, name varchar(80), big bigint, small smallint, precise numeric(12,4), "
    "any_number numeric, inexact real, seen_at timestamptz, token uuid, facts jsonb, raw bytea, lasts interval, "
    'address inet, "MyCol" text, '
    "code character(3), no_length varchar, tags text[], words tsvector, old_json json, span int4range",
    "prisma__c": f"{USUAL}, seen__c timestamp(3), at__c time(0), stamp timestamptz(3) NOT NULL DEFAULT now(), "
    "lasts interval(2), code_of shapes.code, amount_of shapes.amount, price money, flags bit(3), self__c text, "
    'twice integer GENERATED ALWAYS AS (id * 2) STORED, counted integer GENERATED ALWAYS AS IDENTITY, "100%" text, '
    '"us$" text',
    "pairs__c": f"{USUAL}, name varchar(80), part__c varchar(10), kind__c shapes.mood UNIQUE, model__c varchar(80), "
    "UNIQUE (name, part__c)",
    "unusual__c": f"{SYSTEM}, systemmodstamp timestamptz, isdeleted varchar(5), name varchar(80)",
    "bare__c": "id serial PRIMARY KEY, sfid varchar(18)",
}
READ_WRITE = {
    "no_unique__c": f"{USUAL}, name varchar(80)",
    "two_unique__c": f"{USUAL}, name varchar(80) UNIQUE, number__c double precision UNIQUE, "
    "ext_id__c varchar(32) UNIQUE, email__c varchar(80) UNIQUE, flag__c boolean UNIQUE, accountid varchar(18) UNIQUE",
    "number_key__c": f"{USUAL}, number__c double precision UNIQUE, name varchar(80)",
    "not_really_unique__c": f"{USUAL}, name varchar(80), part__c varchar(10), UNIQUE (name, part__c)",
    "uuid_key__c": f"{USUAL}, ext__c varchar(32) UNIQUE",
    "code_key__c": f"{USUAL}, ext__c varchar(32) UNIQUE",
}
LEFT_OUT = {
    "no_columns": "CREATE TABLE {name} ()",
    "no_id": "CREATE TABLE {name} (sfid varchar(18))",
    "no_sfid": "CREATE TABLE {name} (id serial PRIMARY KEY)",
    "text_id": "CREATE TABLE {name} (id text PRIMARY KEY, sfid varchar(18))",
    "a_view": "CREATE VIEW {name} AS SELECT 1 AS id, 'x' AS sfid",
    "a_copy": "CREATE MATERIALIZED VIEW {name} AS SELECT 1 AS id, 'x' AS sfid",
    "per%cent": "CREATE TABLE {name} (id serial PRIMARY KEY, sfid varchar(18))",
    "Capitals": "CREATE TABLE {name} (id serial PRIMARY KEY, sfid varchar(18))",
    "break\n    no_comment": "CREATE TABLE {name} (id serial PRIMARY KEY)",
}


def statements(schema: str) -> Iterator[str]:
    """Yield the statements that create all of them in a new schema."""
    place = quote(schema)
    yield f"CREATE SCHEMA {place}"
    yield f"CREATE TYPE {place}.mood AS ENUM ('good', 'bad')"
    yield f"CREATE DOMAIN {place}.code AS varchar(12)"
    yield f"CREATE DOMAIN {place}.amount AS numeric(9,3)"
    yield schema_sql(schema)
    for table, columns in (READ_ONLY | READ_WRITE).items():
        yield f"CREATE TABLE {place}.{quote(table)} ({columns})"
        if "_hc_err" in columns:
            yield triggers_sql(schema, table, read_write=table in READ_WRITE)
    for table, statement in LEFT_OUT.items():
        yield statement.format(name=f"{place}.{quote(table)}")
    yield f"ALTER TABLE {place}.own_columns__c ADD mood {place}.mood"
    yield f"CREATE UNIQUE INDEX ON {place}.no_unique__c (name) WHERE name <> ''"
    yield f"CREATE UNIQUE INDEX ON {place}.prisma__c (lower(code_of), seen__c)"
    yield f"INSERT INTO {place}.code_key__c (ext__c) VALUES ('ORD-1')"
