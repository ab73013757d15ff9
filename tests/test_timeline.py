"""The timeline of a record: what the admin shows of its changes, of the calls of receivers, and of the app's writes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.auth.models import User as Login
from django.core.management import call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse
from example.crm.models import Account, CompoundModel, Contact, SFObjectModel

from hc_signals import signals
from hc_signals.admin.links import TimelineMixin, object_timeline_url, salesforce_url
from hc_signals.conf import Conf
from hc_signals.delivery.replay import Replay
from hc_signals.exceptions import ConfigurationError
from hc_signals.log import heard, record, rotation
from hc_signals.log.append import append_gap
from hc_signals.log.schema import Cause
from hc_signals.models import Change, Delivery
from hc_signals.postgres.query import row
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker
from tests.conftest import another, as_heroku_connect, as_the_app, deliver, running_crew
from tests.sfdc.models import EverythingProxy, User
from tests.test_worker_process import wait_until

SFID = "005000000000001AAA"


class Listener:
    """A receiver that records its events; with ``fails`` it raises."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.fails = False

    def __call__(self, event: Any = None, events: Any = (), **kwargs: Any) -> None:
        if self.fails:
            raise ValueError("no")
        self.events += events or [event]


NAME = "tests.test_timeline.Listener"


@pytest.fixture
def listener(connect: Any) -> Listener:
    """A receiver of each change of a user."""
    found = Listener()
    connect(signals.record_changed, found, User)
    return found


@pytest.fixture
def site(captured: HerokuConnect) -> Client:
    """The admin as a superuser sees it."""
    client = Client()
    client.force_login(Login.objects.create_superuser("root"))
    return client


def staff(*codenames: str) -> Client:
    """Return the admin as a user with these permissions sees it."""
    user = Login.objects.create_user(f"staff {len(codenames)}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def address(text: str = SFID, label: str = "sfdc.User") -> str:
    return reverse("admin:hc_signals_change_timeline", args=[label, text])


def again(change: int) -> str:
    return reverse("admin:hc_signals_change_again", args=[change])


def history(site: Client, text: str = SFID, label: str = "sfdc.User") -> Any:
    response = site.get(address(text, label))
    assert response.status_code == 200
    return response.context["history"]


def titles(site: Client, text: str = SFID) -> list[str]:
    return [entry.title for entry in history(site, text).entries]


def heard_by_us(entry: Any) -> list[Any]:
    """Return the calls of the receivers of this module: the example has some, too."""
    return [call for call in entry.calls if call.receiver.startswith("tests.test_timeline.")]


def calls(entry: Any) -> list[tuple[str, int, str]]:
    return [(call.receiver, call.attempt, call.result) for call in heard_by_us(entry)]


def target_of(site: Client, change: int) -> str:
    """Return the value of the form that chooses the receiver of this module."""
    (value,) = (value for value, target in site.get(again(change)).context["targets"] if target.receiver == NAME)
    return str(value)


def due_now() -> None:
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp() WHERE state = 'retry'")


def test_changes_and_their_calls_are_shown(site: Client, captured: HerokuConnect, listener: Listener) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    captured.update(User, SFID, username="<b>grace</b>")
    assert [entry.waiting for entry in history(site).entries] == [(), ()], "no consumer yet"
    deliver()
    response = site.get(address())
    update, create = response.context["history"].entries
    assert (update.title, create.title) == ("UPDATE", "CREATE")
    assert [(line.name, line.old, line.new) for line in update.lines] == [
        ("username", "<del>ada</del>", "<ins>&lt;b&gt;grace&lt;/b&gt;</ins>")
    ]
    assert calls(update) == calls(create) == [(NAME, 1, "ok")]
    text = response.content.decode()
    assert "<b>grace" not in text
    assert text.count("All times on this page") == 1


def test_failure_shows_attempts_and_delivery(site: Client, captured: HerokuConnect, listener: Listener) -> None:
    listener.fails = True
    captured.insert(User, sf_id=SFID, username="ada")
    deliver()
    (delivery,) = Delivery.objects.all()
    response = site.get(address())
    (entry,) = response.context["history"].entries
    assert calls(entry) == [(NAME, 1, "failed")]
    text = response.content.decode()
    assert reverse("admin:hc_signals_delivery_change", args=[delivery.pk]) in text
    assert "next attempt 20" in text
    listener.fails = False
    due_now()
    deliver()
    (entry,) = history(site).entries
    assert calls(entry) == [(NAME, 1, "failed"), (NAME, 2, "ok")]
    assert not entry.deliveries


def test_bulk_receiver_heard_of_each_change(site: Client, captured: HerokuConnect, connect: Any) -> None:
    listener = Listener()
    connect(signals.records_changed, listener, User)
    captured.insert(User, sf_id=SFID, username="ada")
    captured.insert(User, sf_id="005000000000002AAA", username="bob")
    captured.update(User, SFID, username="grace")
    deliver()
    for entry in history(site).entries:
        assert calls(entry) == [(NAME, 1, "ok")]
        assert heard_by_us(entry)[0].remark == "called once for several changes"


def test_failed_bulk_call_failed_for_each_change(site: Client, captured: HerokuConnect, connect: Any) -> None:
    listener = Listener()
    listener.fails = True
    connect(signals.records_changed, listener, User)
    captured.insert(User, sf_id=SFID, username="ada")
    captured.update(User, SFID, username="grace")
    deliver()
    assert [calls(entry) for entry in history(site).entries] == [[(NAME, 1, "failed")]] * 2


def test_late_failure_is_shown_as_failed(site: Client, captured: HerokuConnect, connect: Any) -> None:
    """The receiver has returned when the check finds that it left a setting changed."""

    def leaves_setting(**kwargs: Any) -> None:
        as_cursor = connection.cursor()
        as_cursor.execute("SET DateStyle = 'German'")

    connect(signals.record_created, leaves_setting, User)
    connect(signals.record_changed, lambda **kwargs: Account.objects.count(), User)
    captured.insert(User, sf_id=SFID, username="ada")
    deliver()
    assert sorted(call.result for call in heard_by_us(history(site).entries[0])) == ["failed", "ok"]


def test_replay_is_marked(site: Client, captured: HerokuConnect, listener: Listener) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    deliver()
    run = Replay("default", Conf(), [User], [NAME]).start(None)
    while not run.finished:
        run.page()
    (entry,) = history(site).entries
    assert [call.remark for call in heard_by_us(entry)] == ["", "replayed"]


def test_worker_process_records_its_calls(site: Client, captured: HerokuConnect, listener: Listener) -> None:
    with running_crew():
        captured.insert(User, sf_id=SFID, username="ada")
        wait_until(lambda: heard.calls_of("default", list(Change.objects.values_list("id", flat=True))))
    (entry,) = history(site).entries
    assert calls(entry) == [(NAME, 1, "ok")]
    assert entry.waiting == ()


def test_waiting_consumer_is_named(site: Client, captured: HerokuConnect) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    deliver()
    deliver(CONSUMER="other", SHARDS=4)
    captured.update(User, SFID, username="grace")
    deliver()
    assert [list(entry.waiting) for entry in history(site).entries] == [["other"], []]
    deliver(CONSUMER="other", SHARDS=4)
    assert [list(entry.waiting) for entry in history(site).entries] == [[], []]


def test_gap_and_reload_are_shown_in_between(site: Client, captured: HerokuConnect) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    captured.reload(User, clear="truncate")
    captured.update(User, SFID, username="grace")
    found = titles(site)
    assert found[0] == "UPDATE"
    assert found[-1] == "CREATE"
    append_gap("default", "salesforce.user", Cause.TRIGGER_MISSING, None)
    assert titles(site)[0] == "GAP_OVERFLOW"
    assert "trigger_missing" in history(site).entries[0].note


def test_record_keeps_its_timeline_through_a_reload(site: Client, captured: HerokuConnect) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    before = record.find_record("default", User, SFID).key
    captured.reload(User)
    captured.update(User, SFID, username="grace")
    after = record.find_record("default", User, SFID).key
    assert after != before
    for text in (SFID, SFID[:15], str(after)):
        assert [t for t in titles(site, text) if t in ("CREATE", "UPDATE")] == ["UPDATE", "CREATE"], text


def test_app_writes_and_answers_are_shown(site: Client, captured: HerokuConnect) -> None:
    row = captured.app_insert(Contact, last_name="Acme")
    captured.send_app_writes()
    captured.app_update(Contact, row, last_name="Ajax")
    captured.send_app_writes(refuse="no such <country>")
    sfid = str(record.find_record("default", Contact, str(row)).sfid)
    response = site.get(address(sfid, "crm.Contact"))
    found = [entry.title for entry in response.context["history"].entries]
    assert [title for title in found if ":" in title] == [
        "Salesforce: Failed",
        "Your app: UPDATE",
        "Salesforce: Success",
        "Your app: INSERT",
    ]
    text = response.content.decode()
    assert "no such &lt;country&gt;" in text
    client = staff("view_change", "view_contact")
    hidden = client.get(address(sfid, "crm.Contact"))
    assert not any(":" in entry.title for entry in hidden.context["history"].entries)


def test_changes_before_the_sfid_belong_to_the_record(site: Client, captured: HerokuConnect) -> None:
    as_heroku_connect("INSERT INTO salesforce.user (username) VALUES ('ada')")
    assert titles(site, "1") == ["CREATE"], "it has no sfid yet"
    as_heroku_connect("UPDATE salesforce.user SET sfid = %s", [SFID])
    as_heroku_connect("UPDATE salesforce.user SET username = 'grace'")
    assert titles(site) == ["UPDATE", "CREATE"]
    as_heroku_connect("DELETE FROM salesforce.user")
    for text in (SFID, "1"):
        assert titles(site, text) == ["DELETE", "UPDATE", "CREATE"]


def test_id_of_an_earlier_record_does_not_mix_them(site: Client, captured: HerokuConnect) -> None:
    as_heroku_connect("INSERT INTO salesforce.user (id, sfid, username) VALUES (7, %s, 'ada')", [SFID])
    as_heroku_connect("DELETE FROM salesforce.user")
    as_heroku_connect("INSERT INTO salesforce.user (id, username) VALUES (7, 'bob')")
    assert titles(site, "7") == ["CREATE"]
    assert titles(site) == ["DELETE", "CREATE"]


def fill(count: int, every: int = 1) -> None:
    """Add changes; every one, or every n-th, is of the record."""
    as_the_app(
        """INSERT INTO public.hc_signals_change
           (table_name, operation, origin, record_key, record_id, changed, old, new)
        SELECT 'salesforce.user', 'UPDATE', 'heroku_connect', n::text,
            CASE WHEN n %% %s = 0 THEN %s ELSE 'x' || n END, '{username}',
            json_build_object('username', n), json_build_object('username', n + 1)
        FROM generate_series(1, %s) n""",
        [every, SFID, count],
    )


def test_pages_of_many_changes_show_each_once(site: Client) -> None:
    fill(10_000)
    found: list[int] = []
    url: str | None = address()
    for _ in range(3):
        assert url
        response = site.get(url)
        entries = response.context["history"].entries
        assert len(entries) == 50
        found += [entry.change for entry in entries]
        url = response.context["older"]
    ids = list(Change.objects.order_by("-id").values_list("id", flat=True)[:150])
    assert found == ids


def test_rare_record_is_found_by_the_index(site: Client) -> None:
    """The chore summarizes all full pages, and leaves the newest ones to writers."""
    fill(30_000, every=10_000)
    done: list[int] = []
    after = [0] * 8
    while done != after:
        done, after = after, record.summarize("default", after)
    assert sum(done) > 2
    assert len(history(site).entries) == 3
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off; SET enable_indexscan = off")
        cursor.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) SELECT id FROM public.hc_signals_change WHERE record_id = %s", [SFID]
        )
        plan = str(cursor.fetchone()[0])
        cursor.execute("RESET enable_seqscan; RESET enable_indexscan")
    assert "record_idx" in plan
    rechecked = [int(part.split(",")[0].split("}")[0]) for part in plan.split("'Rows Removed by Index Recheck': ")[1:]]
    assert sum(rechecked) < 25_000


def test_hostile_values_are_shortened_and_escaped(site: Client, captured: HerokuConnect) -> None:
    captured.insert(User, sf_id=SFID, username="\u202e<script>")
    as_the_app(
        "UPDATE public.hc_signals_change SET layout = NULL, "
        "new = json_build_object('username', repeat('<i>é', 25000)), "
        "note = json_build_object('cause', '<script>')"
    )
    response = site.get(address())
    assert len(response.content) < 40_000
    assert b"<i>" not in response.content
    assert b"<script>" not in response.content


@pytest.mark.parametrize("text", ["nothing", "'; DROP TABLE", "\u202e<script>", "x" * 255, "99999999999999"])
def test_unknown_record_has_an_empty_timeline(site: Client, text: str) -> None:
    response = site.get(address(text))
    assert response.status_code == 200
    assert response.context["history"].entries == []
    assert b"<script>" not in response.content


@pytest.mark.parametrize("url", [address(label="no.Model"), address(label="auth.User"), address("x" * 300)])
def test_other_addresses_are_not_found(site: Client, url: str) -> None:
    assert site.get(url).status_code == 404


def test_search_goes_to_the_timeline(site: Client) -> None:
    url = reverse("admin:hc_signals_change_timelines")
    assert "sfdc.User" in site.get(url).content.decode()
    assert site.get(url, {"model": "sfdc.User", "record": f" {SFID} "}).headers["Location"] == address()


def test_proxy_has_the_timeline_of_its_table(site: Client, captured: HerokuConnect) -> None:
    captured.insert(EverythingProxy, sf_id="a00000000000001AAA")
    label = EverythingProxy._meta.label
    assert [entry.title for entry in history(site, "a00000000000001AAA", label).entries] == ["CREATE"]


def test_compound_record_has_the_timeline_of_its_parent(
    site: Client, captured: HerokuConnect, rf: RequestFactory
) -> None:
    captured.insert(SFObjectModel, sf_id="a01000000000001AAA")
    request: Any = rf.get("/")
    request.user, request.current_app = Login.objects.get(), "admin"
    url = object_timeline_url(request, CompoundModel(sf_id="a01000000000001AAA"))
    assert url == address("a01000000000001AAA", "crm.CompoundModel")
    assert "CREATE" in [entry.title for entry in site.get(url).context["history"].entries]


def test_timeline_takes_both_permissions(captured: HerokuConnect) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    allowed = staff("view_change", "view_user")
    assert allowed.get(address()).status_code == 200
    assert "Deliver again" not in allowed.get(address()).content.decode()
    change = Change.objects.get()
    assert allowed.get(again(change.pk)).status_code == 403
    Login.objects.all().delete()
    assert staff("view_change").get(address()).status_code == 403
    assert staff("view_change", "redeliver_change").get(again(change.pk)).status_code == 403
    Login.objects.all().delete()
    assert staff("view_user").get(address()).status_code == 403


def test_change_is_delivered_again_in_order(site: Client, captured: HerokuConnect, listener: Listener) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    deliver()
    change = Change.objects.get()
    value = target_of(site, change.pk)
    response = site.post(again(change.pk), {"target": value}, follow=True)
    assert [str(message) for message in response.context["messages"]] == [
        f"The worker calls {NAME} for change {change.pk}."
    ]
    deliver()
    assert [(event.sequence_number, event.replayed) for event in listener.events] == [
        (change.pk, False),
        (change.pk, True),
    ]
    assert [call.remark for call in heard_by_us(history(site).entries[0])] == ["", "replayed"]
    assert LogEntry.objects.get().change_message == f"Delivered again to {NAME}."


def test_change_waits_for_an_earlier_failure(site: Client, captured: HerokuConnect, listener: Listener) -> None:
    listener.fails = True
    captured.insert(User, sf_id=SFID, username="ada")
    deliver()
    listener.fails = False
    value = target_of(site, Change.objects.get().pk)
    site.post(again(Change.objects.get().pk), {"target": value})
    assert list(Delivery.objects.order_by("id").values_list("state", flat=True)) == ["retry", "parked"]
    due_now()
    deliver()
    deliver()
    assert [event.replayed for event in listener.events] == [False, True]


def test_redelivery_needs_its_permission_and_token(captured: HerokuConnect, listener: Listener) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    url = again(Change.objects.get().pk)
    client = staff("view_change", "view_user", "redeliver_change")
    value = target_of(client, Change.objects.get().pk)
    assert client.post(url, {"target": value}).status_code == 403, "without the token"
    client.handler.enforce_csrf_checks = False
    assert client.post(url, {"target": "no|such|receiver"}).status_code == 302
    assert not Delivery.objects.exists()
    assert client.post(url, {"target": value}).status_code == 302
    assert Delivery.objects.count() == 1
    Login.objects.all().delete()
    viewer = staff("view_change", "view_user")
    viewer.handler.enforce_csrf_checks = False
    assert viewer.post(url, {"target": value}).status_code == 403
    assert Delivery.objects.count() == 1


def test_record_page_links_to_the_timeline(site: Client, captured: HerokuConnect) -> None:
    captured.insert(Account, sf_id=SFID, name="Acme")
    url = address(label="crm.Account")
    assert f'href="{url}"' in site.get(reverse("admin:crm_account_change", args=[1])).content.decode()
    login = Login.objects.get()
    assert "timeline" not in site.get(reverse("admin:auth_user_change", args=[login.pk])).content.decode().lower()
    assert url in site.get(reverse("admin:hc_signals_change_changelist")).content.decode()


def test_mixin_links_to_the_timeline(site: Client, captured: HerokuConnect, rf: RequestFactory) -> None:
    class Own(TimelineMixin, admin.ModelAdmin):  # type: ignore[type-arg]
        pass

    captured.insert(Account, sf_id=SFID, name="Acme")
    request: Any = rf.get("/")
    request.user, request.current_app = Login.objects.get(), "admin"
    response: Any = Own(Account, admin.site).change_view(request, "1")
    assert address(label="crm.Account") in response.render().content.decode()
    request.user = Login.objects.create_user("none")
    assert object_timeline_url(request, Account.objects.get()) == ""


def test_salesforce_is_linked_by_schema(site: Client, captured: HerokuConnect, settings: Any) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    assert "my.salesforce.com" not in site.get(address()).content.decode()
    settings.HC_SIGNALS = {"SALESFORCE_URL": {"salesforce": "https://one.my.salesforce.com/", "other": "http://two"}}
    assert f'href="https://one.my.salesforce.com/{SFID}"' in site.get(address()).content.decode()
    assert salesforce_url(User, "x/../y") == salesforce_url(User, None) == ""
    for wrong in ("javascript:alert(1)", "https://a/b", "ftp://a", {"salesforce": 3}, 7):
        with pytest.raises(ConfigurationError, match="SALESFORCE_URL"):
            Conf(SALESFORCE_URL=wrong)  # type: ignore[arg-type]


def test_calls_of_every_kind_are_stored_together(captured: HerokuConnect) -> None:
    mail, index = SimpleNamespace(name="mail"), SimpleNamespace(name="index")
    calls = heard.Heard("default", "web", 0)
    calls.add([1], [mail, index], [0.001], 1, in_bulk=False, is_replay=False)  # the process ended before the second
    calls.add([2, 3], [index], [0.002], 1, in_bulk=True, is_replay=False)
    calls.add([4], [mail, index], [0.003, 0.004], 1, in_bulk=False, is_replay=False)
    calls.add([6], [index], [0.006], 1, in_bulk=False, is_replay=True)
    calls.add([5], [mail], failing := [0.005], 3, in_bulk=False, is_replay=False)
    calls.fail("mail", failing)
    heard.append_calls(calls)
    found = heard.calls_of("default", range(1, 7))
    assert [(each.change_id, each.receiver, each.microseconds) for each in found] == [
        (1, "mail", 1000),
        (2, "index", 2000),
        (3, "index", 2000),
        (4, "mail", 3000),
        (4, "index", 4000),
        (5, "mail", 5000),
        (6, "index", 6000),
    ]
    assert [each.attempt for each in found] == [1, 1, 1, 1, 1, 3, 1]
    assert [each.change_id for each in found if each.failed] == [5]
    assert [each.change_id for each in found if each.in_bulk] == [2, 3]
    assert [each.change_id for each in found if each.is_replay] == [6]


def test_setting_switches_the_calls_off(captured: HerokuConnect, listener: Listener) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    deliver(RECORD_CALLS=False)
    assert len(listener.events) == 1
    assert heard.calls_of("default", [Change.objects.get().pk]) == []


def test_old_calls_are_emptied_under_a_snapshot(captured: HerokuConnect, listener: Listener) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    deliver()
    as_the_app("UPDATE public.hc_signals_heard SET bucket = (public.hc_signals_bucket() + 1) % 8")
    with another("SELECT pg_current_xact_id()"):
        assert len(rotation.rotate_calls("default", 72)) == 1
    assert rotation.rotate_calls("default", 72) == []
    assert heard.calls_of("default", [Change.objects.get().pk]) == []


@pytest.fixture
def downgraded(captured: HerokuConnect) -> Iterator[None]:
    """The database without migration 0004, which returns at the end."""
    call_command("migrate", "hc_signals", "0003", verbosity=0)
    yield
    call_command("migrate", "hc_signals", verbosity=0)


def test_database_without_the_migration_is_refused(
    downgraded: None, site: Client, captured: HerokuConnect, listener: Listener
) -> None:
    captured.insert(User, sf_id=SFID, username="ada")
    with pytest.raises(ConfigurationError, match="of an older version; run `manage"):
        deliver()
    assert listener.events == []
    page = site.get(address())
    assert page.status_code == 200
    assert "manage.py migrate hc_signals" in page.content.decode()


def test_upgrade_and_downgrade_lose_nothing(captured: HerokuConnect, listener: Listener, site: Client) -> None:
    call_command("migrate", "hc_signals", "0003", verbosity=0)
    captured.insert(User, sf_id=SFID, username="ada")
    call_command("migrate", "hc_signals", verbosity=0)
    assert titles(site) == ["CREATE"], "in a bucket without the index"
    captured.update(User, SFID, username="grace")
    call_command("migrate", "hc_signals", "0003", verbosity=0)
    call_command("migrate", "hc_signals", verbosity=0)
    deliver()
    assert [event.change_type for event in listener.events] == ["CREATE", "UPDATE"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'hc\\_signals\\_change\\_%\\_record\\_idx'")
        assert cursor.fetchone()[0] == 7, "the current bucket is not empty"


def test_downgrade_lets_a_page_end(captured: HerokuConnect) -> None:
    """A worker has read its page, and wants to append the calls while the migration wants the log."""

    def downgrade() -> None:
        try:
            call_command("migrate", "hc_signals", "0003", verbosity=0)
        finally:
            connection.close()

    def is_downgrading() -> bool:
        active = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND starts_with(query, '-- Removes 05_calls')"
        return row("default", active) is not None

    call_command("migrate", "hc_signals", "0004", verbosity=0)
    try:
        with ThreadPoolExecutor(1) as pool:
            with another("SELECT FROM public.hc_signals_change LIMIT 1") as page:
                migration = pool.submit(downgrade)
                wait_until(is_downgrading)
                page.execute("LOCK TABLE public.hc_signals_heard IN ROW EXCLUSIVE MODE")
            migration.result(timeout=60)
    finally:
        call_command("migrate", "hc_signals", verbosity=0)


def test_running_worker_survives_the_downgrade(captured: HerokuConnect, listener: Listener) -> None:
    worker = Worker("default", Conf())
    captured.insert(User, sf_id=SFID, username="ada")
    worker.deliver_once()
    try:
        with running_crew():
            call_command("migrate", "hc_signals", "0003", verbosity=0)
            captured.update(User, SFID, username="grace")
            call_command("migrate", "hc_signals", verbosity=0)
            wait_until(lambda: len(listener.events) == 2)
    finally:
        call_command("migrate", "hc_signals", verbosity=0)
