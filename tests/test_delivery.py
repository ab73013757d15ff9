"""The main job: a change of a Salesforce table reaches a receiver once, in order, as the ORM would load it."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from example.crm.models import Account, CompoundModel, Project, Seen, SFObjectModel

from hc_signals import signals
from hc_signals.capture.function import function_name
from hc_signals.capture.install import install_capture, uninstall_capture
from hc_signals.capture.status import status_of
from hc_signals.capture.triggers import TRIGGERS
from hc_signals.log.claims import Claim
from hc_signals.log.position import LogShard
from hc_signals.log.positions import read_standing
from hc_signals.models import Change, Delivery
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, as_the_app, deliver

pytestmark = pytest.mark.usefixtures("captured")


def insert_accounts(count: int) -> None:
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT 'A' || g, 'n' || g FROM generate_series(1, %s) g", [count]
    )


def test_create_update_delete_arrive_in_order_with_old_values(connect: Any) -> None:
    got: list[tuple[str, str, dict[str, Any]]] = []

    def on_change(sender: Any, instance: Account, event: Any, **kwargs: Any) -> None:
        got.append((event.change_type, instance.name, dict(event.previous)))

    connect(signals.record_changed, on_change, Account)
    insert_accounts(1)
    as_heroku_connect("UPDATE salesforce.account SET name = 'Zoë'")
    as_heroku_connect("DELETE FROM salesforce.account")
    assert deliver() == 3
    assert got == [("CREATE", "n1", {}), ("UPDATE", "Zoë", {"name": "n1"}), ("DELETE", "Zoë", {})]
    assert deliver() == 0


def test_undeleted_record_is_created_as_the_docs_say(connect: Any) -> None:
    """Salesforce restores a record from its recycle bin: the sfid is the same, in a row with another id."""
    got: list[tuple[str, str | None]] = []
    connect(signals.record_changed, lambda event, **kwargs: got.append((event.change_type, event.record_id)), Account)
    insert_accounts(1)
    as_heroku_connect("DELETE FROM salesforce.account")
    insert_accounts(1)
    deliver()
    assert got == [("CREATE", "A1"), ("DELETE", "A1"), ("CREATE", "A1")]
    signals_page = (Path(__file__).parent.parent / "docs" / "signals.md").read_text()
    assert "a record that is undeleted in Salesforce comes as `CREATE`" in " ".join(signals_page.split())


def test_bookkeeping_no_ops_and_own_writes_are_no_changes() -> None:
    insert_accounts(2)
    deliver()
    as_heroku_connect("UPDATE salesforce.account SET _hc_lastop = 'UPDATED', systemmodstamp = now(), name = name")
    as_heroku_connect("UPDATE salesforce.account SET name = 'x' WHERE false")
    as_the_app("UPDATE salesforce.account SET name = 'by the app'")
    assert deliver() == 0


def test_instance_equals_what_the_orm_loads(connect: Any) -> None:
    got: list[Project] = []
    connect(signals.record_created, lambda instance, **kwargs: got.append(instance), Project)
    as_heroku_connect("SET LOCAL TimeZone = 'Europe/Berlin'")
    as_heroku_connect(
        "INSERT INTO salesforce.project__c (sfid, name, description__c, active__c, progress__c, starts_at__c) VALUES "
        "('P1', 'Ünïcode 😀', repeat('x', 5000000), true, 12.5, '2024-06-30 12:00:00.123456'), "
        "('P2', NULL, NULL, NULL, NULL, NULL)"
    )
    deliver()
    for instance in got:
        stored = Project.objects.get(pk=instance.pk)
        for field in Project._meta.concrete_fields:
            assert getattr(instance, field.attname) == getattr(stored, field.attname), field.name
    assert len(got) == 2


def test_raising_receiver_fails_alone_and_its_delivery_is_stored(connect: Any) -> None:
    def bad(instance: Any, **kwargs: Any) -> None:
        Seen.objects.create(event_id="half done", sequence_number=0, entity_name="", change_type="")
        transaction.on_commit(lambda: pytest.fail("a failed receiver's hook ran"))
        raise ValueError("no")

    good: list[str] = []
    connect(signals.record_created, bad, Account)
    connect(signals.record_created, lambda instance, **kwargs: good.append(instance.name), Account)
    insert_accounts(3)
    assert deliver() == 3
    assert good == ["n1", "n2", "n3"]
    assert not Seen.objects.filter(event_id="half done").exists()
    assert [d.error.splitlines()[0] for d in Delivery.objects.all()] == ["ValueError: no"] * 3


def test_receivers_database_error_leaves_transaction_usable(connect: Any) -> None:
    def bad(**kwargs: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")

    connect(signals.record_created, bad, Account)
    insert_accounts(2)
    assert deliver() == 2
    assert Seen.objects.count() == 2
    assert Delivery.objects.count() == 2


def test_async_receivers_and_bulk_receivers_are_called(connect: Any) -> None:
    names: list[str] = []
    pages: list[int] = []

    async def on_create(instance: Account, **kwargs: Any) -> None:
        names.append(instance.name)

    connect(signals.record_created, on_create, Account)
    connect(signals.records_changed, lambda events, **kwargs: pages.append(len(events)), Account)
    insert_accounts(5)
    deliver(BATCH_SIZE=3)
    assert names == ["n1", "n2", "n3", "n4", "n5"]
    assert pages == [3, 2]


def test_compound_model_gets_changes_of_its_salesforce_half(connect: Any) -> None:
    got: list[CompoundModel] = []
    connect(signals.record_updated, lambda instance, **kwargs: got.append(instance), CompoundModel)
    key = "0123456789abcdef0123456789abcdef"
    as_heroku_connect(
        "INSERT INTO salesforce.my_object__c (sfid, external_id__c, data__c) VALUES ('M1', %s, 'a'), ('M2', NULL, 'b')",
        [key],
    )
    parent = SFObjectModel.objects.get(sf_id="M1")
    CompoundModel(hc_model=parent, more_data="ours").save_base(raw=True)
    as_heroku_connect("UPDATE salesforce.my_object__c SET data__c = 'new'")
    deliver()
    assert [(type(i), i.data, i.more_data) for i in got] == [(CompoundModel, "new", "ours")]


def test_truncate_is_reported_as_a_gap(connect: Any, settings: Any) -> None:
    settings.HC_SIGNALS = {"RELOAD_AWARE": False}
    install_capture(Account, "default")
    causes: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: causes.append(event.cause), Account)
    as_heroku_connect("TRUNCATE salesforce.account")
    deliver()
    assert causes == ["truncate"]


def test_transaction_that_commits_late_is_delivered() -> None:
    """A reader that pages by id would skip it: its ids are lower than the delivered ones."""
    late = connection.copy()
    try:
        late.set_autocommit(False)
        with late.cursor() as cursor:
            cursor.execute("SET LOCAL xmlbinary = 'hex'")
            cursor.execute("INSERT INTO salesforce.account (sfid, name) VALUES ('late', 'late')")
        as_heroku_connect("INSERT INTO salesforce.account (sfid, name) VALUES ('early', 'early')")
        assert deliver() == 1
        late.commit()
        assert deliver() == 1
        assert deliver() == 0
        ids = list(Seen.objects.order_by("id").values_list("sequence_number", flat=True))
        assert ids == sorted(ids, reverse=True)
    finally:
        late.close()


def test_effects_and_position_commit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    insert_accounts(4)

    def crash(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Claim, "append", crash)
        with pytest.raises(KeyboardInterrupt):
            deliver()
    assert Seen.objects.count() == 0
    deliver()
    assert Seen.objects.count() == 4


def test_writer_goes_on_after_a_column_is_dropped() -> None:
    as_heroku_connect("ALTER TABLE salesforce.account DROP COLUMN industry")
    insert_accounts(2)
    as_heroku_connect("UPDATE salesforce.account SET name = 'changed', systemmodstamp = now()")
    rows = [(c.operation, "name" in (c.changed or [])) for c in Change.objects.all()]
    assert rows == [("INSERT", False)] * 2 + [("UPDATE", True)] * 2


def test_writer_goes_on_without_the_log_and_a_gap_is_sent(connect: Any) -> None:
    causes: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: causes.append(event.cause), Account)
    deliver()
    causes.clear()
    before = read_standing(LogShard("default", "default")).lost
    as_heroku_connect("ALTER TABLE public.hc_signals_change RENAME TO hc_signals_gone")
    try:
        insert_accounts(2)
    finally:
        as_heroku_connect("ALTER TABLE public.hc_signals_gone RENAME TO hc_signals_change")
    assert Account.objects.count() == 2
    assert read_standing(LogShard("default", "default")).lost == before + 1
    deliver()
    deliver()
    assert causes == ["capture_failed"]


def test_status_shows_drift_and_install_repairs_it() -> None:
    assert status_of(Account, "default").state == "installed"
    as_heroku_connect(
        f"CREATE OR REPLACE FUNCTION public.{function_name(Account)}() RETURNS trigger "
        "LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    assert status_of(Account, "default").state == "outdated"
    assert install_capture(Account, "default").state == "installed"
    name = TRIGGERS[0].get_pgid(Account)
    as_heroku_connect(f"ALTER TABLE salesforce.account DISABLE TRIGGER {name}")
    assert status_of(Account, "default").state == "disabled"
    assert install_capture(Account, "default").state == "installed"
    uninstall_capture(Account, "default")
    assert status_of(Account, "default").state == "missing"
    as_heroku_connect("DROP TABLE salesforce.account")
    assert install_capture(Account, "default").state == "absent"


@pytest.mark.parametrize("search_path", ["public", "public,salesforce"])
def test_pgtriggers_commands_leave_our_triggers_alone(search_path: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('search_path', %s, false)", [search_path])
    try:
        call_command("pgtrigger", "install")
        call_command("pgtrigger", "prune")
    finally:
        connection.close()
    assert status_of(Account, "default").state == "installed"


def test_window_of_exactly_one_full_page_stalls_nothing() -> None:
    for _ in range(3):
        as_heroku_connect("DELETE FROM salesforce.account")
        deliver(BATCH_SIZE=4)
        insert_accounts(4)
        assert deliver(BATCH_SIZE=4) == 4


def test_once_ends_although_changes_keep_arriving(connect: Any) -> None:
    """``hc_listen --once`` delivers the changes that were committed before it, and not those of its own receivers."""
    connect(signals.record_created, lambda **kwargs: insert_behind(), Account)
    writer = connection.copy()

    def insert_behind() -> None:
        with writer.cursor() as cursor:
            cursor.execute("SET xmlbinary = 'hex'; INSERT INTO salesforce.account (sfid) VALUES (gen_random_uuid())")

    as_heroku_connect("ALTER TABLE salesforce.account ALTER sfid TYPE text")
    insert_accounts(5)
    try:
        assert deliver(BATCH_SIZE=2) == 5
        assert deliver(BATCH_SIZE=100) == 5
    finally:
        writer.close()


def test_log_stores_changed_columns_of_an_updates_old_row(captured: HerokuConnect, connect: Any) -> None:
    got: list[Any] = []
    connect(signals.record_updated, lambda event, **kwargs: got.append(event), Account)
    (sfid,) = captured.insert(Account, name='\\ "quoted" \n', industry=None, annual_revenue="1.50")
    captured.update(Account, sfid, name=None, industry="Energy", annual_revenue=None)
    with connection.cursor() as cursor:
        cursor.execute("SELECT changed, old FROM public.hc_signals_log WHERE operation = 'UPDATE'")
        ((changed, old),) = cursor.fetchall()
    assert sorted(changed) == ["annualrevenue", "industry", "name"]
    assert {name: old[name] for name in changed} == {"name": '\\ "quoted" \n', "industry": None, "annualrevenue": 1.5}
    assert set(old) - set(changed) == {"systemmodstamp"}
    deliver()
    assert [event.previous for event in got] == [
        {"name": '\\ "quoted" \n', "industry": None, "annual_revenue": Decimal("1.50")}
    ]
