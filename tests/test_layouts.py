"""Images that have a layout: any writer's session, any type, JSON beside them, an upgrade and the way back."""

import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, OperationalError, connection, models
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture.function_columns import Layout
from hc_signals.log import images
from hc_signals.models import Change, Delivery
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_heroku_connect, as_the_app, deliver, lost
from tests.sfdc.models import Everything
from tests.test_instances import VALUES, state

OLD = "0004"
"""The last migration before layouts."""
LOGGED = (
    "SELECT operation, layout IS NOT NULL, image IS NOT NULL, old IS NOT NULL, new IS NOT NULL "
    "FROM public.hc_signals_change ORDER BY id"
)


def rows(sql: str, params: Any = None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def migrate(target: str | None = None) -> None:
    call_command("migrate", "hc_signals", *([target] if target else []), verbosity=0)


@pytest.fixture(autouse=True, params=[images.FEW, 0], ids=["short pages", "long pages"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read images as those of a short page, then as those of a long one."""
    monkeypatch.setattr(images, "FEW", request.param)


@pytest.fixture
def any_version() -> Iterator[None]:
    """Return to the newest migration at the end."""
    yield
    migrate()


@pytest.fixture
def loaded(connect: Any) -> Callable[[type[models.Model]], list[tuple[str, Any]]]:
    """Return a function that connects a receiver: it collects types of change and states of instances."""

    def start(model: type[models.Model]) -> list[tuple[str, Any]]:
        got: list[tuple[str, Any]] = []
        connect(signals.record_changed, lambda event, instance, **kw: got.append((event.change_type, instance)), model)
        return got

    return start


def test_log_has_no_name_of_a_column(captured: HerokuConnect) -> None:
    (sfid,) = captured.insert(Account, name="a")
    captured.update(Account, sfid, name="b")
    captured.delete(Account, sfid)
    assert rows(LOGGED) == [
        ("INSERT", True, True, False, False),
        ("UPDATE", True, True, True, False),
        ("DELETE", True, True, False, False),
    ]
    created, updated, deleted = Change.objects.order_by("id")
    assert (created.old, created.new["name"]) == (None, "a")
    assert (updated.old["name"], updated.new["name"]) == ("a", "b")
    assert (deleted.old["name"], deleted.new) == ("b", None)


def test_log_for_people_has_numbers_and_moments_of_json(captured: HerokuConnect) -> None:
    captured.insert(Account, name="12", annual_revenue="1.50", number_of_employees=7)
    (change,) = Change.objects.all()
    ((stored,),) = rows("SELECT to_json(a) FROM salesforce.account a")
    assert change.new == {name: stored[name] for name in change.new}
    assert change.new["name"] == "12"


def test_undelivered_changes_survive_an_upgrade_and_its_way_back(
    captured: HerokuConnect, loaded: Any, any_version: None
) -> None:
    got = loaded(Everything)
    sfids = [captured.insert(Everything, values)[0] for values in VALUES]
    captured.update(Everything, sfids[0], number="5")
    migrate(OLD)
    assert {image for (image,) in rows("SELECT (new IS NOT NULL)::text FROM public.hc_signals_change")} == {"true"}
    captured.update(Everything, sfids[1], text="of an old version")
    migrate()
    captured.update(Everything, sfids[2], text="of the new version")
    deliver()
    assert lost() == 0
    last = {instance.pk: instance for _, instance in got}
    assert len(got) == len(VALUES) + 3
    assert {key: state(instance) for key, instance in last.items()} == {
        instance.pk: state(instance) for instance in Everything.objects.all()
    }


def test_stored_deliveries_survive_an_upgrade_and_its_way_back(
    captured: HerokuConnect, connect: Any, any_version: None
) -> None:
    fails = True
    got: list[Any] = []

    def receive(event: Any, instance: Everything, **kwargs: Any) -> None:
        if fails:
            raise LookupError("not yet")
        got.append((state(instance), dict(event.previous)))

    connect(signals.record_changed, receive, Everything)
    (sfid,) = captured.insert(Everything, VALUES[5])
    deliver()
    migrate(OLD)
    migrate()
    captured.update(Everything, sfid, number="1.25")
    deliver()
    assert Delivery.objects.count() == 2
    fails = False
    Delivery.objects.update(state="retry", next_attempt_at="2020-01-01T00:00Z")
    deliver()
    assert [previous for _, previous in got] == [{}, {"number": None}]
    assert got[-1][0] == state(Everything.objects.get())


def test_missing_layout_is_named_and_delivers_nothing(captured: HerokuConnect, loaded: Any) -> None:
    got = loaded(Account)
    captured.insert(Account, name="a")
    ((layout,),) = rows("SELECT layout FROM public.hc_signals_change")
    install_with(["name"])
    as_the_app("DELETE FROM public.hc_signals_layout")
    with pytest.raises(OperationalError, match=f"hc_signals_layout lacks layout {layout}"):
        deliver()
    assert got == []
    assert Delivery.objects.count() == 0


def test_layout_is_found_in_the_capture_function(captured: HerokuConnect, loaded: Any) -> None:
    got = loaded(Account)
    captured.insert(Account, name="a")
    as_the_app("DELETE FROM public.hc_signals_layout")
    deliver()
    assert [instance.name for _, instance in got] == ["a"]


def test_equal_columns_share_a_layout() -> None:
    assert Layout(("id", "sfid")).id == Layout(("id", "sfid"), ("sfid",), "2026-01-01T00:00:00Z").id
    assert Layout(("id", "sfid")).id != Layout(("sfid", "id")).id


def test_two_layouts_in_one_page_are_delivered(captured: HerokuConnect, loaded: Any) -> None:
    got = loaded(Account)
    as_the_app("ALTER TABLE salesforce.account DROP COLUMN industry")
    call_command("hc_triggers", "install", stdout=StringIO())
    (sfid,) = captured.insert(Account, name="without")
    as_the_app("ALTER TABLE salesforce.account ADD COLUMN industry varchar(255)")
    call_command("hc_triggers", "install", stdout=StringIO())
    captured.update(Account, sfid, name="with", industry="Energy")
    assert rows("SELECT count(DISTINCT layout) FROM public.hc_signals_change") == [(2,)]
    deliver()
    assert [(instance.name, instance.industry) for _, instance in got] == [("without", None), ("with", "Energy")]


def test_many_changed_columns_are_typed(captured: HerokuConnect, connect: Any) -> None:
    got: list[dict[str, Any]] = []
    connect(signals.record_updated, lambda event, **kwargs: got.append(dict(event.previous)), Everything)
    values = {name: value for each in VALUES[2:] for name, value in each.items()}
    (sfid,) = captured.insert(Everything, values)
    before = Everything.objects.get()
    captured.update(Everything, sfid, **dict.fromkeys(set(values) - {"external_id", "text_area_long"}))
    deliver()
    assert len(got[0]) > 8
    assert got[0] == {name: getattr(before, Everything._meta.get_field(name).attname) for name in got[0]}


@pytest.mark.parametrize("count", [1, 12], ids=["few columns", "many columns"])
def test_session_of_the_writer_changes_no_value(captured: HerokuConnect, connect: Any, count: int) -> None:
    """Types that Heroku Connect does not use too: text alone would lose blanks, signs, zones, or the kind of JSON."""
    kinds = {
        "char": ("char(5)", "'ab'", "'abc'"),
        "json": ("jsonb", "'\"text\"'", "'{\"a\": [1]}'"),
        "interval": ("interval", "'-1 day -02:03:04'", "'-1 year -2 mons +3 days'"),
        "moment": ("timestamptz", "'2026-03-04 05:06:07+05:45'", "'2026-03-04 05:06:07+00'"),
        "moments": ("timestamp[]", "'{2026-03-04 05:06:07}'", "'{}'"),
        "days": ("daterange", "'[2026-03-04,2026-05-06)'", "NULL"),
        "bytes": ("bytea", "'\\x00ff5c'", "''"),
        "bits": ("bit(3)", "'101'", "'010'"),
        "letter": ('"char"', "'a'", "''"),
        "number": ("numeric", "'NaN'", "'1e-20'"),
        "real": ("real", "'-0'", "'Infinity'"),
        "box": ("jsonb[]", "ARRAY['{\"a\": 1}']::jsonb[]", "'{}'"),
    }
    columns = dict(list(kinds.items())[:count]) if count > 1 else kinds
    as_the_app("; ".join(f'ALTER TABLE salesforce.account ADD COLUMN "{n}" {t}' for n, (t, _, _) in columns.items()))
    names = ", ".join(f'"{name}"' for name in columns)
    try:
        expected: list[Any] = []
        session = (
            "SET LOCAL xmlbinary = 'hex'; SET LOCAL DateStyle = 'SQL, DMY'; SET LOCAL IntervalStyle = 'sql_standard'; "
            "SET LOCAL bytea_output = 'escape'; SET LOCAL TimeZone = 'Asia/Kathmandu'; "
            "SET LOCAL extra_float_digits = -5"
        )
        install_with(list(columns))
        with another(session) as cursor:
            values = ", ".join(first for _, first, _ in columns.values())
            cursor.execute(f"INSERT INTO salesforce.account (sfid, {names}) VALUES ('A1', {values})")
            cursor.execute("COMMIT")
        expected.append(rows(f"SELECT {names} FROM salesforce.account"))
        pairs = [f'"{name}" = {second}' for name, (_, _, second) in columns.items()]
        with another(session) as cursor:
            cursor.execute(f"UPDATE salesforce.account SET {', '.join(pairs[:2] if count == 1 else pairs)}")
            cursor.execute("COMMIT")
        expected.append(rows(f"SELECT {names} FROM salesforce.account"))
        ids = [number for (number,) in rows("SELECT id FROM public.hc_signals_change ORDER BY id")]
        found = read(ids, list(columns))
        assert [repr(row[1 : len(columns) + 1]) for row in found] == [repr(row[0]) for row in expected]
        changed = list(columns)[:2] if count == 1 else list(columns)
        was = read(ids[1:], changed, changed)[0][1 + len(changed) :]
        assert repr(was) == repr(expected[0][0][: len(changed)])
        view = rows(
            f"SELECT {', '.join(f'r.{name}' for name in names.split(', '))} FROM public.hc_signals_log l, "
            "LATERAL json_populate_record(NULL::salesforce.account, l.new) r ORDER BY l.id"
        )
        assert [repr(row) for row in view] == [repr(row[0]) for row in expected], "a stored delivery has this image"
    finally:
        as_the_app("; ".join(f'ALTER TABLE salesforce.account DROP COLUMN IF EXISTS "{name}"' for name in columns))
        call_command("hc_triggers", "install", stdout=StringIO())


def install_with(columns: list[str]) -> None:
    """Install a capture function for columns that the model does not have, too."""
    from hc_signals.capture.function import function_sql
    from hc_signals.tables import mapped_columns

    for statement in function_sql(Account, Layout((*mapped_columns(Account), *columns))):
        as_the_app(statement)


def read(ids: list[int], columns: list[str], old_columns: list[str] | None = None) -> list[Any]:
    found = images.logged_images("default", Account, columns, old_columns or [], ids)
    return [found[number] for number in ids]


def test_migration_waits_for_no_lock(captured: HerokuConnect, any_version: None) -> None:
    """A lock that waits would keep writers from the log for as long, and each of their changes would be lost."""
    migrate(OLD)
    ended = threading.Event()

    def upgrade() -> None:
        try:
            migrate()
        finally:
            connection.close()
            ended.set()

    thread = threading.Thread(target=upgrade)
    with another("BEGIN; SELECT FROM public.hc_signals_change"):
        thread.start()
        for number in range(20):
            captured.insert(Account, name=f"n{number}")
            time.sleep(0.02)
        assert not ended.is_set()
    thread.join(30)
    assert ended.is_set()
    assert lost() == 0
    assert deliver() == 20


def test_old_worker_cannot_store_a_delivery_without_image(captured: HerokuConnect) -> None:
    captured.insert(Account, name="a")
    with pytest.raises(IntegrityError, match="hc_signals_delivery_image_check"):
        as_the_app(
            "INSERT INTO public.hc_signals_delivery (consumer, receiver, signal, sender, state, attempt, error, "
            "change_id, xid, captured_at, table_name, operation, origin, record_key, record_id, old, new) "
            "SELECT 'default', 'a.b', 'record_changed', 'crm.Account', 'retry', 1, '', id, xid, captured_at, "
            "table_name, operation, origin, record_key, record_id, old, new FROM public.hc_signals_change"
        )


def test_commands_name_the_missing_migration(captured: HerokuConnect, any_version: None) -> None:
    migrate(OLD)
    for name in ("hc_listen", "hc_triggers", "hc_tail"):
        with pytest.raises(CommandError, match="of an older version; run `manage"):
            call_command(name, *(["install"] if name == "hc_triggers" else ["--once"] if name == "hc_listen" else []))


def test_json_beside_images_is_delivered_in_order(captured: HerokuConnect, loaded: Any) -> None:
    """Whole rows of the fallback, snapshots and changes of older versions are JSON."""
    got = loaded(Account)
    captured.insert(Account, name="image")
    as_heroku_connect(
        "INSERT INTO public.hc_signals_change "
        "(table_name, operation, origin, record_key, record_id, changed, old, new) "
        "SELECT table_name, 'UPDATE', origin, record_key, record_id, '{name}', '{\"name\": \"image\"}', "
        "json_build_object('id', record_key::integer, 'name', 'json', 'annualrevenue', 1.5) "
        "FROM public.hc_signals_change"
    )
    captured.insert(Account, name="other")
    deliver()
    assert [instance.name for _, instance in got] == ["image", "json", "other"]
    assert str(got[1][1].annual_revenue) == "1.5"
