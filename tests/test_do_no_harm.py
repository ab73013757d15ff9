"""With any fault of ours, Heroku Connect's statement succeeds without waiting, and a loss becomes a gap."""

import contextlib
import time
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.utils import OperationalError
from example.crm.models import Account, Project

from hc_signals import signals
from hc_signals.capture.function import function_name
from hc_signals.models import Change
from hc_signals.testing import HerokuConnect
from tests import faults
from tests.conftest import another, as_heroku_connect, as_the_app, deliver, lost
from tests.server import own
from tests.sfdc.models import WIDE_COLUMNS, Everything, Wide

BUCKET = "public.hc_signals_change_{}"


@pytest.fixture
def gaps(captured: HerokuConnect, connect: Any) -> list[str]:
    """Causes of the gaps of Account, from now on."""
    causes: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: causes.append(event.cause), Account)
    deliver()
    return causes


@pytest.fixture
def heard(captured: HerokuConnect, connect: Any) -> list[tuple[str, str]]:
    """Change types and names of accounts, in the order in which receivers are called."""
    got: list[tuple[str, str]] = []
    connect(
        signals.record_changed, lambda event, instance, **kw: got.append((event.change_type, instance.name)), Account
    )
    return got


def current_bucket() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT (floor(extract(epoch FROM clock_timestamp()) / 43200))::bigint % 8")
        return BUCKET.format(cursor.fetchone()[0])


def count(sql: str = "SELECT count(*) FROM public.hc_signals_change") -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.fetchone()[0])


# -- our own objects are broken ----------------------------------------------------------------------------------------


@pytest.mark.fault("log table dropped, renamed, without its partitions, or without its sequence", outcome="gap")
def test_broken_log_is_a_gap(gaps: list[str]) -> None:
    bucket = current_bucket()
    for number, broken in enumerate(
        (
            "DROP TABLE public.hc_signals_change CASCADE",
            "ALTER TABLE public.hc_signals_change RENAME TO hc_signals_gone",
            "ALTER TABLE public.hc_signals_change RENAME COLUMN old TO hc_old",
            f"DROP TABLE {bucket}",
            f"ALTER TABLE public.hc_signals_change DETACH PARTITION {bucket}",
            "DROP SEQUENCE public.hc_signals_change_id_seq CASCADE",
            "DROP FUNCTION public.hc_signals_ring()",
        ),
        start=1,
    ):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL xmlbinary = 'hex'")
            cursor.execute(broken)
            cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'a')")
            cursor.execute("UPDATE salesforce.account SET name = 'b' RETURNING name")
            assert cursor.fetchall() == [("b",)], broken
            transaction.set_rollback(True)
        assert lost() == 2 * number, broken
        deliver()
        assert gaps == ["capture_failed"] * number, broken


@pytest.mark.fault("control table or hc_signals_admit() missing", outcome="captured nevertheless, as whole rows")
def test_changes_are_captured_without_the_control_row(captured: HerokuConnect) -> None:
    for broken in ("ALTER TABLE public.hc_signals_control RENAME TO gone", "DROP FUNCTION public.hc_signals_admit()"):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL xmlbinary = 'hex'")
            cursor.execute(broken)
            cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'a')")
            cursor.execute("UPDATE salesforce.account SET name = 'b', _hc_lastop = 'X'")
            cursor.execute("UPDATE salesforce.account SET systemmodstamp = now()")
            cursor.execute("DELETE FROM salesforce.account")
            cursor.execute(
                "SELECT operation, record_id, changed, old->>'name', new->>'name' FROM public.hc_signals_log"
            )
            assert cursor.fetchall() == [
                ("INSERT", "A1", None, None, "a"),
                ("UPDATE", "A1", ["name"], "a", "b"),
                ("DELETE", "A1", None, "b", None),
            ]
            transaction.set_rollback(True)


@pytest.mark.fault("everything of ours missing but the triggers", outcome="a warning to the writer's session")
def test_writer_succeeds_with_nothing_but_triggers(captured: HerokuConnect) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        cursor.execute("DROP TABLE public.hc_signals_change, public.hc_signals_control CASCADE")
        cursor.execute("DROP FUNCTION public.hc_signals_admit(), public.hc_signals_ring(), public.hc_signals_lose()")
        cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'a')")
        cursor.execute("TRUNCATE salesforce.account")
        transaction.set_rollback(True)


@pytest.mark.fault("another session locks the log, its current bucket or the control row", outcome="gap; 10 ms at most")
def test_writer_does_not_wait_for_a_locked_log(gaps: list[str]) -> None:
    tables = ("public.hc_signals_change", current_bucket(), "public.hc_signals_control")
    for times, table in enumerate(tables, start=1):
        with another(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
            began = time.monotonic()
            for number in range(10):
                as_heroku_connect("INSERT INTO salesforce.account (sfid) VALUES (%s)", [f"A{times}-{number}"])
            took = time.monotonic() - began
            assert lost() == 10 * times
        assert took < 5, "10 ms for each of ten statements; the rest is for a busy machine"
        as_heroku_connect("INSERT INTO salesforce.account (sfid) VALUES (%s)", [f"free {times}"])
        assert deliver() == 1
        assert gaps == ["capture_failed"] * times


@pytest.mark.fault("capture function of a role without rights on the log", outcome="gap")
def test_function_owner_without_rights_is_a_gap(gaps: list[str]) -> None:
    role = own("hc_powerless")
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {role}")
        try:
            cursor.execute(f"ALTER FUNCTION public.{function_name(Account)}() OWNER TO {role}")
            as_heroku_connect("INSERT INTO salesforce.account (sfid) VALUES ('A1')")
        finally:
            cursor.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
            cursor.execute(f"DROP ROLE {role}")
    deliver()
    assert gaps == ["capture_failed"]
    assert Account.objects.count() == 1


@pytest.mark.fault("log full while no worker runs (`max_bucket_bytes`)", outcome="gap; nothing is appended")
def test_full_log_is_a_gap(gaps: list[str]) -> None:
    as_heroku_connect("INSERT INTO salesforce.account (sfid) VALUES ('A1')")
    as_the_app("UPDATE public.hc_signals_control SET max_bucket_bytes = 8191")
    as_heroku_connect("UPDATE salesforce.account SET name = 'x' WHERE false")
    assert lost() == 0
    as_heroku_connect("UPDATE salesforce.account SET name = 'x'")
    assert (count(), lost()) == (1, 1)
    as_the_app("UPDATE public.hc_signals_control SET max_bucket_bytes = 1000000")
    as_heroku_connect("UPDATE salesforce.account SET name = 'y'")
    assert deliver() == 2
    assert gaps == ["capture_failed"]


@pytest.mark.fault("a loss in a transaction that is still open", outcome="gap after its end, not before")
def test_loss_in_an_open_transaction_is_reported_later(gaps: list[str]) -> None:
    with another("SET LOCAL xmlbinary = 'hex'") as cursor:
        as_the_app("UPDATE public.hc_signals_control SET max_bucket_bytes = -1")
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('late')")
        assert lost() == 0
        deliver()
        assert gaps == []
        cursor.connection.commit()
    deliver()
    assert gaps == ["capture_failed"]


# -- the mapped table differs from the model --------------------------------------------------------------------------


@pytest.mark.fault("typed function out of date: column dropped, renamed, or of another type", outcome="captured")
@pytest.mark.parametrize(
    "ddl",
    ["DROP COLUMN industry", "RENAME COLUMN industry TO sector", "ALTER COLUMN number_of_employees TYPE text"],
)
def test_outdated_function_captures(captured: HerokuConnect, ddl: str) -> None:
    ddl = ddl.replace("number_of_employees", "numberofemployees")
    as_heroku_connect(f"ALTER TABLE salesforce.account {ddl}")
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'a'), ('A2', 'a')")
    as_heroku_connect("UPDATE salesforce.account SET name = 'b'")
    as_heroku_connect("UPDATE salesforce.account SET systemmodstamp = now(), _hc_lastop = 'UPDATED'")
    as_heroku_connect("DELETE FROM salesforce.account WHERE sfid = 'A1'")
    rows = list(Change.objects.values_list("operation", "record_id", "changed"))
    assert rows == [
        ("INSERT", "A1", None),
        ("INSERT", "A2", None),
        ("UPDATE", "A1", ["name"]),
        ("UPDATE", "A2", ["name"]),
        ("DELETE", "A1", None),
    ]
    assert "_hc_lastop" in Change.objects.filter(operation="UPDATE")[0].new, "mapped by the base class"
    assert lost() == 0


@pytest.mark.fault("table without `id`, or without `sfid`", outcome="captured; the other column is the key")
@pytest.mark.parametrize("column", ["id", "sfid"])
def test_table_without_id_or_sfid_is_captured(captured: HerokuConnect, column: str) -> None:
    as_heroku_connect(f"ALTER TABLE salesforce.account DROP COLUMN {column} CASCADE")
    as_heroku_connect("INSERT INTO salesforce.account (name) VALUES ('a')")
    if column == "id":
        as_heroku_connect("UPDATE salesforce.account SET sfid = 'A1'")
        assert (Change.objects.count(), lost()) == (1, 1), "no old row has a key: a loss"
    as_heroku_connect("UPDATE salesforce.account SET name = 'b'")
    assert Change.objects.latest("id").changed == ["name"]


@pytest.mark.fault("a key of another type", outcome="delivered")
@pytest.mark.parametrize("kind", ["bigint", "text", "numeric"])
def test_keys_of_other_types_are_captured(captured: HerokuConnect, heard: list[Any], kind: str) -> None:
    as_heroku_connect("ALTER TABLE salesforce.account ALTER id DROP DEFAULT")
    as_heroku_connect(f"ALTER TABLE salesforce.account ALTER id TYPE {kind} USING id::{kind}")
    as_heroku_connect("INSERT INTO salesforce.account (id, sfid, name) VALUES ('7', 'A1', 'a')")
    as_heroku_connect("UPDATE salesforce.account SET name = 'b'")
    assert deliver() == 2
    assert heard == [("CREATE", "a"), ("UPDATE", "b")]


@pytest.mark.fault("400 columns", outcome="delivered")
def test_wide_table_is_captured(captured: HerokuConnect, connect: Any) -> None:
    got: list[Any] = []
    connect(signals.record_updated, lambda event, **kwargs: got.append(event), Wide)
    (sfid,) = captured.create(Wide, 1)
    # The fallback would log whole rows; a limit of 100 arguments per function could cause it.
    captured.update(Wide, sfid, **{f"column_{n}": f"new {n}" for n in range(WIDE_COLUMNS)})
    assert count("SELECT count(*) FROM public.hc_signals_change WHERE image IS NOT NULL AND operation = 'UPDATE'") == 1
    deliver()
    assert [len(event.changed_fields) for event in got] == [WIDE_COLUMNS]


@pytest.mark.fault("NaN, infinity, the first and last dates, texts that resemble JSON", outcome="delivered")
def test_extreme_values_are_delivered(captured: HerokuConnect, connect: Any) -> None:
    got: list[Project] = []
    connect(signals.record_created, lambda instance, **kwargs: got.append(instance), Project)
    as_heroku_connect(
        "INSERT INTO salesforce.project__c (sfid, name, description__c, progress__c, starts_at__c) VALUES "
        "('1', '\\u0000', '{\"a\": \"\\', 'NaN', 'infinity'), "
        "('2', '</script>', E'\\t\\n\\x01', 'Infinity', '-infinity'), "
        "('3', '''; --', U&'\\+01F600', '-Infinity', '4713-01-01 BC'), "
        "('4', '$hc_signals$', '%%s {0}', 1e308, '294276-12-31')",
        [],
    )
    as_heroku_connect("UPDATE salesforce.project__c SET name = name || '!'")
    assert deliver() == 8
    assert [instance.name for instance in got] == ["\\u0000", "</script>", "'; --", "$hc_signals$"]
    assert [instance.description for instance in got] == ['{"a": "\\', "\t\n\x01", "\U0001f600", "%s {0}"]


def test_special_numbers_are_stored_unchanged(captured: HerokuConnect) -> None:
    as_heroku_connect("INSERT INTO salesforce.everything__c (sfid, number__c) VALUES ('1', 'NaN'), ('2', '-Infinity')")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.number__c::text FROM public.hc_signals_log c, "
            "LATERAL json_populate_record(NULL::salesforce.everything__c, c.new) r ORDER BY c.id"
        )
        assert cursor.fetchall() == [("NaN",), ("-Infinity",)]
    assert Everything.objects.count() == 2


# -- statements of every kind ------------------------------------------------------------------------------------------


@pytest.mark.fault("a statement that hits no row", outcome="no lock, no log row, no NOTIFY")
def test_statement_without_rows_touches_nothing(captured: HerokuConnect) -> None:
    as_heroku_connect("INSERT INTO salesforce.account (sfid) VALUES ('A1')")
    deliver()
    with another("SET LOCAL xmlbinary = 'hex'") as cursor:
        cursor.execute("UPDATE salesforce.account SET name = 'x' WHERE false")
        cursor.execute("DELETE FROM salesforce.account WHERE false")
        cursor.execute("INSERT INTO salesforce.account (sfid) SELECT 'x' WHERE false")
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('A1') ON CONFLICT DO NOTHING")
        cursor.execute(
            "SELECT count(*) FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation "
            "WHERE l.pid = pg_backend_pid() AND (l.locktype = 'advisory' OR c.relname LIKE 'hc\\_signals\\_%')"
        )
        assert cursor.fetchone() == (0,)
    assert deliver() == 0


@pytest.mark.fault("a statement of very many rows", outcome="delivered: one statement of ours, one NOTIFY")
def test_statement_of_many_rows_is_captured(captured: HerokuConnect) -> None:
    for theirs in ("hc_account_status_trigger", "hc_account_logtrigger"):  # they take 2 ms a row
        as_the_app(f"ALTER TABLE salesforce.account DISABLE TRIGGER {theirs}")
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT 'A' || g, 'n' FROM generate_series(1, 30000) g"
    )
    as_heroku_connect("UPDATE salesforce.account SET name = 'm' WHERE id %% 2 = 0", [])
    as_heroku_connect("DELETE FROM salesforce.account WHERE sfid <> 'A1'")
    assert count() == 30000 + 15000 + 29999
    assert count("SELECT count(DISTINCT xid) FROM public.hc_signals_change") == 3


@pytest.mark.fault("upserts, MERGE, COPY, data-modifying WITH", outcome="delivered, each row once, in order")
def test_statements_of_every_kind_are_captured(captured: HerokuConnect, heard: list[Any]) -> None:
    upsert = "INSERT INTO salesforce.account (sfid, name) VALUES ('A1', %s), ('A2', %s) ON CONFLICT (sfid) DO UPDATE "
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'a')")
    as_heroku_connect(upsert + "SET name = excluded.name", ["b", "c"])
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        with cursor.copy("COPY salesforce.account (sfid, name) FROM STDIN") as copy:
            copy.write_row(["A3", "copied"])
    as_heroku_connect(
        "WITH gone AS (DELETE FROM salesforce.account WHERE sfid = 'A3' RETURNING *) "
        "INSERT INTO salesforce.account (sfid, name) SELECT 'A4', name FROM gone"
    )
    deliver()
    assert heard[:4] == [("CREATE", "a"), ("UPDATE", "b"), ("CREATE", "c"), ("CREATE", "copied")]
    assert sorted(heard[4:]) == [("CREATE", "copied"), ("DELETE", "copied")]


def test_merge_is_captured(captured: HerokuConnect, heard: list[Any]) -> None:
    if connection.cursor().connection.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'a'), ('A2', 'a')")
    as_heroku_connect(
        "MERGE INTO salesforce.account a USING (VALUES ('A1', 'x'), ('A2', NULL), ('A3', 'z')) s (sfid, name) "
        "ON a.sfid = s.sfid WHEN MATCHED AND s.name IS NULL THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET name = s.name WHEN NOT MATCHED THEN INSERT (sfid, name) VALUES (s.sfid, s.name)"
    )
    deliver()
    assert sorted(heard[2:]) == [("CREATE", "z"), ("DELETE", "a"), ("UPDATE", "x")]


# -- writers of every kind ---------------------------------------------------------------------------------------------


@pytest.mark.fault("a writer's search_path with objects that have our names", outcome="delivered; they are not touched")
def test_objects_with_our_names_elsewhere_are_not_used(captured: HerokuConnect, heard: list[Any]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA evil")
        for schema in ("evil", "pg_temp"):
            cursor.execute(f"CREATE TABLE {schema}.hc_signals_change (LIKE public.hc_signals_change)")
            cursor.execute(f"CREATE TABLE {schema}.hc_signals_control (LIKE public.hc_signals_control)")
            for function in ("hc_signals_ring()", "hc_signals_admit()", "to_json(anyelement)", "now()"):
                cursor.execute(
                    f"CREATE FUNCTION {schema}.{function} RETURNS text LANGUAGE plpgsql "
                    "AS $$ BEGIN RAISE EXCEPTION 'called'; END $$"
                )
        cursor.execute("CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false'")
        cursor.execute("CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = text, RIGHTARG = text)")
        cursor.execute("SET LOCAL xmlbinary = 'hex'; SET LOCAL search_path = evil, public")
        cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'a')")
        cursor.execute("UPDATE salesforce.account SET name = 'b'")
        cursor.execute("SELECT count(*) FROM evil.hc_signals_change")
        assert cursor.fetchone() == (0,)
        cursor.execute("SET LOCAL search_path = public; DROP SCHEMA evil CASCADE; DISCARD TEMP")
    deliver()
    assert heard == [("CREATE", "a"), ("UPDATE", "b")]


@pytest.mark.fault("savepoints, some rolled back", outcome="only what is committed is delivered")
def test_changes_of_a_rolled_back_savepoint_are_not_sent(captured: HerokuConnect, heard: list[Any]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'kept')")
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('A2', 'undone')")
            raise ZeroDivisionError
        with transaction.atomic():
            cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('A3', 'kept too')")
    deliver()
    assert heard == [("CREATE", "kept"), ("CREATE", "kept too")]


@pytest.mark.fault("serializable and repeatable-read writers", outcome="delivered")
@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
def test_serializable_writers_are_captured(captured: HerokuConnect, heard: list[Any], level: str) -> None:
    as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('A1', 'a'), ('A2', 'a')")
    with another(f"SET TRANSACTION ISOLATION LEVEL {level}; SET LOCAL xmlbinary = 'hex'") as first:
        first.execute("UPDATE salesforce.account SET name = 'b' WHERE sfid = 'A1'")
        with another(f"SET TRANSACTION ISOLATION LEVEL {level}; SET LOCAL xmlbinary = 'hex'") as second:
            second.execute("UPDATE salesforce.account SET name = 'c' WHERE sfid = 'A2'")
            second.connection.commit()
        first.connection.commit()
    deliver()
    assert sorted(heard[2:]) == [("UPDATE", "b"), ("UPDATE", "c")]


@pytest.mark.fault(
    "`session_replication_role = replica` (superusers)",
    outcome="captured if the installing role owns the table; otherwise not: PostgreSQL fires no trigger",
)
def test_replica_role_is_captured(captured: HerokuConnect) -> None:
    """Writes of a restore or a logical subscriber in that role are not Heroku Connect's, and are not captured."""
    replica = "SET LOCAL session_replication_role = replica; INSERT INTO salesforce.account (sfid) VALUES (%s)"
    as_the_app(replica, ["restored"])
    assert deliver() == 0
    as_heroku_connect(replica, ["x"])
    assert deliver() == 1
    assert Account.objects.count() == 2


@pytest.mark.fault(
    "the writer's own timeout or cancel strikes inside our function",
    outcome="the writer's statement fails, as without us",
)
def test_statement_timeout_ends_the_writer(captured: HerokuConnect) -> None:
    with (
        pytest.raises(OperationalError, match="statement timeout"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "CREATE OR REPLACE FUNCTION public.hc_signals_ring() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(60)'"
        )
        cursor.execute("SET LOCAL xmlbinary = 'hex'; SET LOCAL statement_timeout = '200ms'")
        cursor.execute("INSERT INTO salesforce.account (sfid) VALUES ('x')")
    assert Account.objects.count() == 0


@pytest.mark.fault("the app writes, with two-phase commit or without", outcome="no trigger fires")
def test_writes_of_the_app_are_not_captured(captured: HerokuConnect) -> None:
    with another() as cursor:
        cursor.execute("INSERT INTO salesforce.contact (lastname) VALUES ('x')")
        cursor.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'")
        assert cursor.fetchone() == (0,)
    assert deliver() == 0


def test_guarantees_list_the_faults_of_the_tests() -> None:
    assert faults.committed() == faults.table(), "run `make faults`"
