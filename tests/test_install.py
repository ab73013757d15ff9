"""Installing, upgrading and removing capture: no object is left, no change is missed, no installer waits for long."""

import subprocess
import threading
from datetime import datetime
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection, models, transaction
from example.crm.models import Account, Contact

from hc_signals.capture import orphans, pausing, table_state
from hc_signals.capture.function import function_name, function_sql
from hc_signals.capture.install import install_capture, install_sql, run_in_turn, uninstall_capture
from hc_signals.capture.status import find_tables, status_of
from hc_signals.db import models as hc_models
from hc_signals.log.schema import install_sql as log_sql
from hc_signals.models import Change
from hc_signals.postgres.names import quote
from hc_signals.tables import connected_models, quoted_table, table_label
from hc_signals.testing import HerokuConnect
from tests.conftest import IS_OURS, another, as_heroku_connect
from tests.server import clients
from tests.test_worker_process import wait_until

_EVERYTHING = """
SELECT 'relation', n.nspname, c.relname, c.relkind::text, NULL, c.relacl::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind <> 't'
UNION ALL
SELECT 'function', n.nspname, p.proname, p.prosrc, p.proconfig::text || p.prosecdef, p.proacl::text
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname !~ '^pg_'
  AND n.nspname <> 'information_schema'
UNION ALL
SELECT 'trigger', c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text, NULL
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
ORDER BY 1, 2, 3, 4
"""


def catalog(cursor: Any) -> list[tuple[object, ...]]:
    return list(cursor.execute(_EVERYTHING) or cursor.fetchall())


def everything() -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        return catalog(cursor)


def test_uninstall_all_removes_every_object(heroku: HerokuConnect) -> None:
    before = everything()
    call_command("hc_triggers", "install", stdout=StringIO())
    assert len(everything()) == len(before) + 6 * len(connected_models())
    call_command("hc_triggers", "uninstall", "--all", stdout=StringIO())
    assert everything() == before


def test_uninstall_of_each_model_removes_every_object(heroku: HerokuConnect) -> None:
    before = everything()
    call_command("hc_triggers", "install", stdout=StringIO())
    call_command("hc_triggers", "uninstall", *(m._meta.label for m in connected_models()), stdout=StringIO())
    assert everything() == before


def test_uninstall_without_models_removes_nothing(captured: HerokuConnect) -> None:
    before = everything()
    with pytest.raises(CommandError, match=r"Nothing was removed\. Name the models .* or say --all") as error:
        call_command("hc_triggers", "uninstall", stdout=StringIO())
    assert error.value.returncode == 2
    assert everything() == before
    assert table_state.read("default") == {}


@pytest.mark.parametrize(
    ("option", "action"),
    [("--remove", "uninstall"), ("--all", "pause"), ("--orphans", "install"), ("--check", "pause")],
)
def test_command_refuses_options_of_another_action(captured: HerokuConnect, option: str, action: str) -> None:
    with pytest.raises(CommandError, match=f"{option} goes with") as error:
        call_command("hc_triggers", action, "--all" if option == "--remove" else option, option, stdout=StringIO())
    assert error.value.returncode == 2
    assert pausing.find("default") == pausing.Pause()


def test_uninstall_of_a_locked_table_changes_nothing(captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is still captured, and the worker still repairs it."""
    monkeypatch.setattr("hc_signals.capture.install.LOCK_TIMEOUT", "20ms")
    refused = pytest.raises(CommandError, match=r"Not uninstalled: crm\.Account")
    with another("LOCK TABLE salesforce.account IN ROW EXCLUSIVE MODE"), refused:
        call_command("hc_triggers", "uninstall", "crm.Account", stdout=StringIO(), stderr=StringIO())
    assert table_state.read("default") == {}
    assert status_of(Account, "default").state == "installed"


def test_install_reports_no_gap_if_never_captured(heroku: HerokuConnect) -> None:
    """Not even if the table was uninstalled before it was ever captured."""
    heroku.create(Account, 1)
    call_command("hc_triggers", "uninstall", "crm.Account", "crm.Account", stdout=StringIO())
    call_command("hc_triggers", "install", stdout=StringIO())
    call_command("hc_triggers", "install", stdout=StringIO())
    assert Change.objects.count() == 0
    assert table_state.read("default")["salesforce.account"].uninstalled_at is None
    assert table_state.read("default")["salesforce.account"].good_at is not None, "the next gap begins here"


def test_gap_begins_with_the_removed_reload(captured: HerokuConnect) -> None:
    """Uninstalling deletes the cleared images of a running reload, so the gap begins with the clearing."""
    captured.create(Account, 20)
    as_heroku_connect("TRUNCATE salesforce.account")
    with connection.cursor() as cursor:
        cursor.execute("SELECT cleared_at FROM public.hc_signals_reload")
        cleared_at = cursor.fetchone()[0]
    call_command("hc_triggers", "uninstall", "crm.Account", stdout=StringIO())
    call_command("hc_triggers", "install", stdout=StringIO())
    (gap,) = Change.objects.filter(operation="GAP")
    assert datetime.fromisoformat(gap.note["since"]) == cleared_at


def test_migrate_zero_removes_the_triggers(captured: HerokuConnect) -> None:
    call_command("migrate", "hc_signals", "zero", verbosity=0)
    try:
        assert not [row for row in everything() if str(row[2]).startswith("hc_signals_")]
        as_heroku_connect("INSERT INTO salesforce.account (sfid) VALUES ('A1')")
    finally:
        call_command("migrate", "hc_signals", verbosity=0)
    call_command("hc_triggers", "install", stdout=StringIO())
    as_heroku_connect("INSERT INTO salesforce.account (sfid) VALUES ('A2')")
    assert [change.record_id for change in Change.objects.all()] == ["A2"], "no gap, as after the first installation"


def test_orphans_of_a_removed_model_are_found_and_removed(captured: HerokuConnect) -> None:
    others = [model for model in connected_models() if model is not Contact]
    assert [(s.table, s.state) for s in orphans.find(others, "default")] == [("salesforce.contact", "orphan")]
    assert orphans.find(connected_models(), "default") == []
    assert [status.table for status in orphans.remove(others, "default")] == ["salesforce.contact"]
    assert status_of(Contact, "default").state == "missing"
    assert status_of(Account, "default").state == "installed"
    as_heroku_connect("DROP TABLE salesforce.account")
    others.remove(Account)
    assert [status.detail for status in orphans.find(others, "default")] == ["a capture function that nothing calls"]


def test_upgrade_captures_every_change(captured: HerokuConnect) -> None:
    """An installer replaces the function and the triggers again and again while a thread writes."""
    stop = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            as_heroku_connect("INSERT INTO salesforce.account (sfid) VALUES (%s)", [f"A{written}"])
            written += 1
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(30):
            run_in_turn("default", lambda: install_sql(Account), attempts=50)
            if number % 3 == 0:
                run_in_turn("default", lambda: function_sql(Account))
    finally:
        stop.set()
        writer.join()
    assert written > 10
    assert Change.objects.count() == written


@pytest.mark.fault("`hc_triggers install` of a newer version", outcome="no window; the tables are not locked")
def test_install_replaces_a_function_without_a_table_lock(captured: HerokuConnect) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER FUNCTION public.{function_name(Account)}() SET lock_timeout = '9s'")
    assert status_of(Account, "default").state == "outdated"
    with another("LOCK TABLE salesforce.account IN ACCESS EXCLUSIVE MODE"):
        assert install_capture(Account, "default").state == "installed"


def test_two_installers_do_not_disturb_each_other(heroku: HerokuConnect) -> None:
    failures: list[BaseException] = []

    def install(chosen: list[type[models.Model]]) -> None:
        try:
            for model in chosen * 2:
                run_in_turn("default", lambda model=model: install_sql(model))
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    both = [connected_models(), connected_models()[::-1]]
    threads = [threading.Thread(target=install, args=[chosen]) for chosen in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {status_of(model, "default").state for model in connected_models()} == {"installed"}


def test_second_installer_keeps_the_triggers_of_the_first(heroku: HerokuConnect) -> None:
    """Triggers that are created twice would be drift, and a gap."""
    with another() as first:
        for statement in install_sql(Account):
            first.execute(statement)

        def install() -> None:
            install_capture(Account, "default")
            connection.close()

        second = threading.Thread(target=install)
        second.start()
        wait_until(is_installer_waiting)
        first.execute(
            "SELECT string_agg(oid || ':' || xmin, ' ' ORDER BY tgname) FROM pg_trigger "
            "WHERE tgrelid = 'salesforce.account'::regclass AND tgname LIKE 'hc\\_signals\\_%'"
        )
        ((versions,),) = first.fetchall()
        first.connection.commit()
    second.join(timeout=60)
    assert find_tables([Account], "default")[0].versions == versions


def is_installer_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {IS_OURS}")
        return bool(cursor.fetchone()[0])


def test_install_continues_after_a_locked_table(heroku: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hc_signals.capture.install.LOCK_TIMEOUT", "20ms")
    out, err = StringIO(), StringIO()
    with another("LOCK TABLE salesforce.account"), pytest.raises(CommandError, match=r"Not installed: crm\.Account\."):
        call_command("hc_triggers", "install", stdout=out, stderr=err)
    assert "crm.Account: not installed" in err.getvalue()
    assert out.getvalue().count(": installed") == len(connected_models()) - 1


def test_install_enables_triggers_without_owning_the_table(captured: HerokuConnect) -> None:
    as_heroku_connect("ALTER TABLE salesforce.account DISABLE TRIGGER ALL")
    assert status_of(Account, "default").state == "disabled"
    assert install_capture(Account, "default").state == "installed"


def test_printed_sql_equals_install(captured: HerokuConnect, bare_database: Any) -> None:
    with bare_database.cursor() as cursor:
        cursor.execute("CREATE SCHEMA salesforce")
        cursor.execute(log_sql())
        for model in connected_models():
            cursor.execute(f"CREATE TABLE {quoted_table(model)} (id serial, sfid text)")
    bare_database.commit()
    out = StringIO()
    call_command("hc_triggers", "sql", stdout=out)
    here = bare_database.info
    options = ["-h", here.host, "-p", str(here.port), "-U", here.user, "-d", here.dbname]
    subprocess.run(
        [clients() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *options],
        input=out.getvalue(),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with bare_database.cursor() as cursor:
        by_hand = [row for row in catalog(cursor) if str(row[2]).startswith("hc_signals_") and row[0] != "relation"]
    assert by_hand == [row for row in everything() if str(row[2]).startswith("hc_signals_") and row[0] != "relation"]


# -- names -------------------------------------------------------------------------------------------------------------

LONG = "a" * 60 + "ü" * 3 + "__c"


def test_capture_works_with_any_names(heroku: HerokuConnect) -> None:
    for schema, table, column in (
        ("salesforce", "order", "user"),
        ("sales force", "ta\"b'le", "co\"l'um%n"),
        ("select", "größe_表", "$hc_signals$"),
        ("a.b", "c.d", "label"),
        ("salesforce", LONG, LONG),
        ("back\\slash", "tab\\le", "{col} %s"),
    ):
        try:
            try_names(schema, table, column)
        finally:
            del apps.all_models["odd"]["odd"]
            apps.clear_cache()
            with connection.cursor() as cursor:
                cursor.execute(f"DROP SCHEMA IF EXISTS {quote(schema)} CASCADE")


def try_names(schema: str, table: str, column: str) -> None:
    """Capture an insert and an update on a table with these names."""

    class Odd(hc_models.HerokuConnectModel):
        sf_object_name = "Odd__c"
        value = hc_models.Text(sf_field_name="Value__c", max_length=80, db_column=column)

        class Meta:
            app_label = "odd"
            db_table = f"{quote(schema)}.{quote(table)}"[1:-1]

    HerokuConnect(models=[Odd]).create_table(Odd)
    assert install_capture(Odd, "default").state == "installed"
    as_heroku_connect("TRUNCATE public.hc_signals_change")
    with transaction.atomic(), connection.cursor() as cursor:
        on, name = quoted_table(Odd), quote(column)
        cursor.execute("SET LOCAL xmlbinary = 'hex'")
        cursor.execute(f"INSERT INTO {on} (sfid, {name}) VALUES ('O1', 'a')")
        cursor.execute(f"UPDATE {on} SET {name} = 'b'")
    rows = list(Change.objects.order_by("id").values_list("table_name", "operation", "changed"))
    assert rows == [(table_label(Odd), "INSERT", None), (table_label(Odd), "UPDATE", [column])]
    uninstall_capture(Odd, "default")
