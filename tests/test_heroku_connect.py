"""The simulator behaves as Heroku Connect: states, trigger log, changes; and capture agrees with it."""

import datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection, transaction
from example.crm.models import Account, Contact, Project, Seen

from hc_signals import signals
from hc_signals.capture.status import status_of
from hc_signals.models import Change
from hc_signals.testing import HerokuConnect
from hc_signals.testing.heroku_connect import RealHerokuConnectError
from hc_signals.testing.salesforce_ids import salesforce_id, with_checksum
from tests.conftest import as_heroku_connect, as_the_app, deliver
from tests.sfdc.models import Everything, User

KEY = "0123456789abcdef0123456789abcdef"


def query(sql: str, params: list[Any] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def trigger_log(columns: str) -> list[tuple[Any, ...]]:
    return query(f"SELECT {columns} FROM salesforce._trigger_log ORDER BY id")


def state() -> tuple[Any, ...]:
    return query("SELECT _hc_lastop, _hc_err FROM salesforce.contact")[0]


def set_state(assignments: str) -> tuple[Any, ...]:
    as_heroku_connect(f"UPDATE salesforce.contact SET {assignments}")
    return state()


def test_status_trigger_sets_the_states(heroku: HerokuConnect) -> None:
    as_heroku_connect("INSERT INTO salesforce.contact (_hc_lastop, _hc_err) VALUES ('FAILED', 'x')")
    assert state() == ("SYNCED", None), "an insert of Heroku Connect has no other state"
    assert set_state("_hc_lastop = 'FAILED', _hc_err = 'x'") == ("FAILED", "x"), "another state is stored"
    assert set_state("_hc_lastop = 'FAILED', _hc_err = 'y'") == ("SYNCED", None), "the same state twice"
    assert set_state("_hc_err = 'x'") == ("SYNCED", None)
    assert set_state("_hc_lastop = NULL") == ("SYNCED", None)
    Contact.objects.update(last_name="by the app")
    assert state() == ("PENDING", None)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE salesforce.contact DISABLE TRIGGER USER")
        cursor.execute("UPDATE salesforce.contact SET _hc_lastop = NULL")
        cursor.execute("ALTER TABLE salesforce.contact ENABLE TRIGGER USER")
    assert set_state("_hc_lastop = 'UPDATED'") == ("SYNCED", None), "NULL <> x is not true"


def test_trigger_log_has_writes_to_a_read_write_mapping(heroku: HerokuConnect) -> None:
    row = heroku.app_insert(Contact, last_name='O"Brien', external_id=KEY)
    heroku.app_update(Contact, row, last_name="Ada")
    heroku.app_update(Contact, row, last_name="Ada")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM salesforce.contact")
    log = trigger_log('action, state, record_id, sfid, old, "values", updated_at, table_name')
    assert [entry[:2] for entry in log] == [
        ("INSERT", "NEW"),
        ("UPDATE", "NEW"),
        ("UPDATE", "IGNORE"),
        ("DELETE", "IGNORE"),
    ]
    assert {entry[2] for entry in log} == {row}
    assert {entry[6:] for entry in log} == {(None, "contact")}
    assert '"lastname"=>"O\\"Brien"' in log[0][5]
    assert '"sfid"=>NULL' in log[0][5]
    assert "_hc_lastop" not in log[0][5]
    assert log[0][4] is None
    assert log[1][5] == '"lastname"=>"Ada"'
    assert '"lastname"=>"O\\"Brien"' in log[1][4]
    assert log[3][5] is None


def test_trigger_log_marks_writes_to_a_read_only_mapping(heroku: HerokuConnect) -> None:
    heroku.create(Account, 3)
    assert trigger_log("*") == []
    as_the_app("UPDATE salesforce.account SET name = 'x'")
    assert {entry[0] for entry in trigger_log("state")} == {"READONLY"}
    assert {entry[0] for entry in trigger_log("sfid")} == set(heroku.sfids(Account))


def test_manual_capture_logs_rows(heroku: HerokuConnect) -> None:
    heroku.create(Contact)
    call = "SELECT salesforce.hc_capture_{}_from_row(hstore(c), 'contact', %s) FROM salesforce.contact c"
    assert query(call.format("insert"), [["lastname", "id", "sfid"]])[0][0] == 1
    assert query(call.format("update"), [["lastname"]])[0][0] == 2
    inserted, updated = trigger_log('action, sfid, "values", old')
    assert inserted[:2] == ("INSERT", None)
    assert '"lastname"' not in inserted[2]
    assert '"sfid"' in inserted[2]
    assert updated[:2] == ("UPDATE", heroku.sfids(Contact)[0])
    assert updated[2].startswith('"lastname"=>')
    assert "," not in updated[2].replace("O'Brien", "")


def test_log_trigger_notifies_heroku_connects_channel(heroku: HerokuConnect) -> None:
    listener = connection.copy()
    try:
        with listener.cursor() as cursor:
            cursor.execute('LISTEN "salesforce.hc_trigger_log"')
        heroku.app_insert(Contact, last_name="x")
        assert [n.payload for n in listener.connection.notifies(timeout=10, stop_after=1)] == ["ping"]  # type: ignore[union-attr]
    finally:
        listener.close()


def test_writes_fail_without_public_on_the_search_path(heroku: HerokuConnect) -> None:
    with pytest.raises(ProgrammingError, match="get_xmlbinary"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL search_path = salesforce")
        cursor.execute("INSERT INTO contact (lastname) VALUES ('x')")


def test_traffic_on_one_row_sends_its_changes(captured: HerokuConnect, connect: Any) -> None:
    """Each kind of traffic: changes, bookkeeping, and writes of the app."""
    got: list[tuple[str, tuple[str, ...]]] = []

    def step() -> list[tuple[str, tuple[str, ...]]]:
        got.clear()
        deliver()
        return list(got)

    def on_change(event: Any, **kwargs: Any) -> None:
        got.append((event.change_type, event.changed_fields))

    connect(signals.record_changed, on_change, Contact)
    row = captured.app_insert(Contact, last_name="Ada", external_id=KEY)
    assert (state()[0], step()) == ("PENDING", []), "the app's own insert"
    captured.send_app_writes()
    assert (state()[0], step()) == ("INSERTED", []), "the sfid arrives: bookkeeping"
    captured.echo(Contact, email="computed@example.com")
    assert (state()[0], step()) == ("SYNCED", [("UPDATE", ("is_deleted", "email"))]), "an echo with computed values"
    sfid = captured.sfids(Contact)[0]
    assert captured.update(Contact, sfid, last_name="Ada") is False
    assert (state()[0], step()) == ("SYNCED", []), "read again, nothing changed"
    assert captured.update(Contact, sfid, last_name="Grace") is True
    assert step() == [("UPDATE", ("last_name",))], "edited in Salesforce"
    captured.app_update(Contact, row, last_name="Mary")
    assert (state()[0], step()) == ("PENDING", []), "the app's own update"
    captured.update(Contact, sfid, email="in-flight@example.com")
    assert (state()[0], step()) == ("SYNCED", [("UPDATE", ("email",))]), "an edit while an app write is in flight"
    captured.send_app_writes()
    assert (state()[0], step()) == ("UPDATED", []), "accepted: bookkeeping"
    captured.echo(Contact)
    assert (state()[0], step()) == ("SYNCED", []), "an echo without computed values"
    captured.app_update(Contact, row, last_name="Zed")
    captured.send_app_writes(refuse="REQUIRED_FIELD_MISSING")
    assert (state()[0], step()) == ("FAILED", []), "refused: no change of the record"
    captured.delete(Contact, sfid)
    assert step() == [("DELETE", ())]


def test_echo_before_the_sfid_links_the_row(captured: HerokuConnect) -> None:
    captured.app_insert(Contact, last_name="Ada", external_id=KEY)
    captured.poll(Contact, [{"sf_id": "003000000000001AAA", "external_id": KEY, "last_name": "Ada"}])
    assert query("SELECT sfid, count(*) OVER () FROM salesforce.contact") == [("003000000000001AAA", 1)]
    deliver()
    assert Seen.objects.count() == 0, "linked, not changed"


def test_poll_updates_and_inserts(captured: HerokuConnect) -> None:
    first, second = captured.insert(Account, {"name": "one"}, {"name": "two"})
    deliver()
    counted = captured.poll(
        Account,
        [{"sf_id": first, "name": "ONE"}, {"sf_id": second, "name": "two"}, {"sf_id": "001new", "name": "three"}],
    )
    assert counted == deliver() == 2


@pytest.mark.parametrize("clear", ["truncate", "delete", "silent"])
def test_reload_keeps_records_and_changes_ids(captured: HerokuConnect, clear: str) -> None:
    captured.create(Account, 15)
    before = dict(query("SELECT sfid, id FROM salesforce.account"))
    assert captured.reload(Account, clear) == 15
    after = dict(query("SELECT sfid, id FROM salesforce.account"))
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    assert deliver() == captured.changes == 15


def test_recreated_table_keeps_records_and_loses_triggers(captured: HerokuConnect) -> None:
    captured.bulk_load(Account, 20)
    assert captured.recreate_table(Account) == 20
    assert status_of(Account, "default").state == "missing"
    assert Account.objects.count() == 20
    captured.create(Account)


def test_columns_can_be_added_and_dropped(captured: HerokuConnect) -> None:
    captured.create(Account, 3)
    deliver()
    assert captured.add_column(Account, "rating__c", value="hot") == 3
    assert deliver() == 0, "the model does not know the column"
    captured.drop_column(Account, "rating__c")
    captured.drop_column(Account, "industry")
    captured.insert(Account, name="after the drop")
    assert Change.objects.filter(operation="INSERT").count() == 4


def test_create_tables_adds_columns_of_new_fields(heroku: HerokuConnect) -> None:
    """A model with a new field works after ``hc_simulate --create-only``; the records stay."""
    heroku.insert(Contact, last_name="Ada")
    for column in ("email", "external_id__c"):
        heroku.drop_column(Contact, column)
    heroku.create_tables()
    heroku.insert(Contact, last_name="Grace", email="grace@example.com", external_id=KEY)
    assert list(Contact.objects.order_by("id").values_list("last_name", "email")) == [
        ("Ada", None),
        ("Grace", "grace@example.com"),
    ]
    unique = "SELECT count(*) FROM pg_indexes WHERE tablename = 'contact' AND indexdef ~ 'UNIQUE.*external_id__c'"
    assert query(unique) == [(1,)], "the new column has its index"


def test_every_played_change_is_delivered(captured: HerokuConnect) -> None:
    """The simulator counts changes by comparing rows; receivers get as many, and gaps besides."""
    kinds = [kind for kind in HerokuConnect.ACTIONS if kind != "recreate"]
    for number, _ in enumerate(captured.play(kinds, poll_size=30)):
        if number == 60:
            break
    assert captured.changes > 100
    deliver()
    assert Seen.objects.count() == captured.changes


def test_same_seed_plays_the_same_steps(heroku: HerokuConnect) -> None:
    def played() -> list[Any]:
        heroku.drop_schemas()
        simulator = HerokuConnect(models=[Account, Project], seed=7)
        simulator.create_tables()
        steps = [step for step, _ in zip(simulator.play(poll_size=20), range(30), strict=False)]
        return [steps, query("SELECT sfid, name, annualrevenue FROM salesforce.account ORDER BY sfid")]

    assert played() == played()


def test_unknown_field_error_lists_the_fields(heroku: HerokuConnect) -> None:
    with pytest.raises(LookupError, match=r"crm.Account has no field 'nmae'; its fields: .*name"):
        heroku.insert(Account, nmae="x")


def test_values_are_accepted_as_by_an_instance(heroku: HerokuConnect) -> None:
    """A Geolocation as a pair, a relation as the record; given dates are stored."""
    made = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
    heroku.create(User)
    user = User.objects.get()
    (sfid,) = heroku.insert(Everything, location=(52.5, 13.4), lookup=user, system_mod_stamp=made)
    record = Everything.objects.get()
    assert (record.location, record.lookup, record.system_mod_stamp) == ((52.5, 13.4), user, made)
    assert heroku.update(Everything, sfid, location=None)
    assert Everything.objects.get().location is None
    with pytest.raises(LookupError, match="no field 'locatoin'"):
        heroku.insert(Everything, locatoin=(1, 2))


def test_unknown_field_error_names_the_nearest(heroku: HerokuConnect) -> None:
    with pytest.raises(LookupError, match=r"crm.Account has no field 'nmae'; .* Did you mean 'name'\?"):
        heroku.insert(Account, nmae="x")


def test_real_heroku_connect_is_refused(heroku: HerokuConnect) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE salesforce._hcmeta SET org_id = '00D000000000001'")
    with pytest.raises(RealHerokuConnectError, match="belongs to a real Heroku Connect"):
        heroku.create_tables()
    with pytest.raises(CommandError, match="belongs to a real Heroku Connect"):
        call_command("hc_simulate", "--duration", "1")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE salesforce._hcmeta SET org_id = 'simulated'")


def test_salesforce_ids_have_their_checksum() -> None:
    assert with_checksum("001A0000006Vm9r") == "001A0000006Vm9rIAC"
    assert salesforce_id("Account", 61) == "00100000000000zAAA"
