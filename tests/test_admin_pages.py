"""The admin's pages about our own tables: their contents, their permissions, and the cost of a page of a large log."""

import html
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User as Login
from django.db import connection
from django.forms import modelform_factory
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve, reverse
from django.utils.timezone import get_current_timezone
from example.crm.models import Account, Contact

from hc_signals import signals
from hc_signals.admin import capture, delivery_errors, log_window, positions
from hc_signals.capture import pausing
from hc_signals.capture.install import uninstall_capture
from hc_signals.capture.status import status_of
from hc_signals.models import Change, Delivery, TriggerLog, TriggerLogArchive
from hc_signals.postgres.locks import CLAIMS
from hc_signals.postgres.moments import now
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver
from tests.sfdc.models import User
from tests.test_triggerlog_admin import login

PAGES = ("change", "delivery", "position", "connectedtable")
SFID = "005000000000001AAA"


def address(page: str, kind: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:hc_signals_{page}_{kind}", args=args)


def content(client: Client, page: str, **params: Any) -> str:
    response = client.get(address(page), params)
    assert response.status_code == 200
    return response.content.decode()


def shown(client: Client, **params: Any) -> list[int]:
    response = client.get(address("change"), params)
    assert response.status_code == 200
    return [change.id for change in response.context["cl"].result_list]


def messages(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def fill(count: int, sfid: str = SFID) -> None:
    """Add changes to the log, one a second; every thousandth is of the record, each other one of its own record."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT setval('public.hc_signals_change_id_seq', 1, false)")
        cursor.execute(
            """INSERT INTO public.hc_signals_change
               (captured_at, table_name, operation, origin, record_key, record_id, changed, old, new)
            SELECT now() - make_interval(secs => %(count)s - n), 'salesforce.user', 'UPDATE', 'heroku_connect', n::text,
                CASE WHEN n %% 1000 = 0 THEN %(sfid)s ELSE 'x' || n END, '{username}',
                json_build_object('id', n, 'username', 'before'), json_build_object('id', n, 'username', 'after')
            FROM generate_series(1, %(count)s) n""",
            {"count": count, "sfid": sfid},
        )
        cursor.execute("ANALYZE public.hc_signals_change")


def rows_read(sql: str) -> int:
    """Return how many rows of the log a query reads, those that it filters out too."""

    def of(node: dict[str, Any]) -> float:
        below = sum(of(child) for child in node.get("Plans", []))
        if "Relation Name" not in node:
            return below
        return below + node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        (plan,) = cursor.fetchone()
    return round(of((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]))


@pytest.fixture
def site(captured: HerokuConnect) -> Iterator[Client]:
    """The admin as a superuser sees it."""
    client = Client()
    client.force_login(Login.objects.create_superuser("root"))
    yield client


@pytest.mark.parametrize("params", [{}, {"q": SFID}, {"operation": "DELETE"}, {"since": "1h", "q": "nothing"}])
def test_page_of_the_log_reads_a_window_of_it(
    site: Client, monkeypatch: pytest.MonkeyPatch, params: dict[str, str]
) -> None:
    monkeypatch.setattr(log_window, "SEARCHED", 1000)
    fill(8000)
    with CaptureQueriesContext(connection) as queries:
        assert site.get(address("change"), params).status_code == 200
    reads = [
        query["sql"] for query in queries if "hc_signals_change" in query["sql"] and "to_regclass" not in query["sql"]
    ]
    assert reads
    assert not any("COUNT(" in sql.upper() for sql in reads)
    assert sum(map(rows_read, reads)) <= 1000 + 300, reads
    assert len(queries) < 15


def test_older_pages_show_each_change_once(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_window, "SEARCHED", 150)
    fill(460)
    with connection.cursor() as cursor:  # a gap among the ids
        cursor.execute("DELETE FROM public.hc_signals_change WHERE id BETWEEN 20 AND 200")
    found: list[int] = []
    url: str | None = address("change")
    while url:
        log = site.get(url).context["cl"]
        found += [change.id for change in log.result_list]
        url = log.older_url and address("change") + log.older_url
    assert found == [*range(460, 200, -1), *range(19, 0, -1)]


def test_search_continues_below_its_window(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_window, "SEARCHED", 700)
    fill(2500)
    response = site.get(address("change"), {"q": SFID})
    assert response.context["cl"].result_count == 1
    text = response.content.decode()
    assert "1 change found among ids 1801 to 2500, captured " in text
    (link,) = re.findall(r'href="([^"]+)" class="showall"', text)
    assert "q=005" in link
    assert "among ids 1101 to 1800" in site.get(address("change") + link.replace("&amp;", "&")).content.decode()


def test_search_finds_a_record_by_part_of_its_sfid_or_by_its_id(site: Client) -> None:
    fill(1000)
    for part in (SFID, f" {SFID[:15]} ", SFID[:14], SFID[-5:], "00000"):
        assert shown(site, q=part) == [1000], part
    assert shown(site, q=SFID[-4:]) == [], "too short: many sfids have it"
    assert shown(site, q="17") == [17]
    assert shown(site, q="unknown") == []


def test_search_finds_a_record_by_part_of_its_name(site: Client, captured: HerokuConnect) -> None:
    """The name is in the new image of a creation or an update, and in the old one of a deletion."""
    acme, other = captured.insert(Account, {"name": "Acme 100%"}, {"name": "Bolt"})
    (ada,) = captured.insert(Contact, last_name="Acmeson")
    captured.update(Account, other, industry="Retail")
    captured.delete(Account, acme)
    created, bolt, contact, updated, deleted = Change.objects.values_list("id", flat=True)
    assert shown(site, q="acme") == [deleted, contact, created]
    assert shown(site, q="100%") == [deleted, created]
    assert shown(site, q="0_%") == [], "no wildcards"
    assert shown(site, q="bolt") == [updated, bolt]
    assert ada


def test_list_shows_the_name_of_each_record(site: Client, captured: HerokuConnect) -> None:
    (sfid,) = captured.insert(Account, name="Acme")
    captured.delete(Account, sfid)
    assert content(site, "change").count('<span class="hc-name">Acme</span>') == 2


def test_change_and_its_deliveries_link_to_each_other(site: Client, receiver: "Receiver") -> None:
    change = Change.objects.earliest("id")
    links = [
        *re.findall(r'href="([^"]+)">1 stored delivery', content(site, "change")),
        *re.findall(r'href="([^"]+)">1 retry', detail(site, change)[0]),
    ]
    assert links[-1].endswith(f"delivery/?change_id={change.id}")
    assert len(links) == 4
    assert "1 delivery" in site.get(links[-1]).content.decode()
    assert shown(site, failure="parked") == [Change.objects.latest("id").id]
    assert shown(site, failure="dead") == []


def test_filters_keep_matching_changes(site: Client) -> None:
    fill(8000)
    assert len(shown(site, table_name="salesforce.user")) == 100
    assert shown(site, table_name="salesforce.account") == []
    assert shown(site, operation="INSERT") == []
    here = get_current_timezone()
    until = now().astimezone(here) - timedelta(minutes=14)
    assert shown(site, since="15m", until=f"{until:%Y-%m-%dT%H:%M:%S}")[-1] > 7090
    until = now().astimezone(here) - timedelta(seconds=4000)
    first = shown(site, until=f"{until:%Y-%m-%dT%H:%M:%S}")[0]
    assert abs(first - 4000) < 60, "the time zone is that of the admin"
    assert shown(site, until="2000-01-01T00:00") == []
    assert shown(site, until="2999-01-01T00:00")[0] == 8000
    assert shown(site, p="not a number")[0] == 8000
    assert shown(site, p="5")[0] == 4
    assert shown(site, p="9" * 30)[0] == 8000


def test_lists_show_change_types_and_models(site: Client, receiver: "Receiver") -> None:
    for text in (content(site, "change", operation="INSERT"), content(site, "delivery")):
        assert "CREATE" in text
        assert "sfdc.User" in text
        assert ">INSERT<" not in text
        assert "salesforce.user<" not in text
    assert "?operation=TRUNCATE" in (text := content(site, "change"))
    assert "GAP_OVERFLOW (truncate)" in text


@pytest.mark.parametrize("params", [{"until": "yesterday"}, {"until": "2026-13-99T00:00"}])
def test_invalid_time_leads_back_to_the_list(site: Client, params: dict[str, str]) -> None:
    response = site.get(address("change"), params)
    assert response.status_code == 302


@pytest.mark.parametrize(
    ("page", "params"),
    [("change", {"old__icontains": "x"}), ("delivery", {"new__x": "1"}), ("change", {"table_name": "\x00"})],
)
def test_unknown_conditions_are_refused(site: Client, page: str, params: dict[str, str]) -> None:
    assert site.get(address(page), params).status_code == 400


def test_empty_log_has_pages(site: Client) -> None:
    text = content(site, "change")
    assert "0 changes found" in text
    assert "no older ones" in text
    assert shown(site, since="1h") == []
    assert "No consumer yet" in content(site, "position")
    assert "0 deliveries" in content(site, "delivery")


def detail(client: Client, change: Any) -> tuple[str, dict[str, Any]]:
    response = client.get(address("change", "change", change.id))
    assert response.status_code == 200
    return response.content.decode(), {line.name: line for line in response.context["lines"]}


def test_change_shows_old_and_new_of_each_field(site: Client, captured: HerokuConnect) -> None:
    (sfid,) = captured.insert(Account, name="<b>Acme</b>", industry="Energy")
    captured.update(Account, sfid, name="Bolt & Co", industry=None)
    captured.delete(Account, sfid)
    created, updated, deleted = Change.objects.filter(operation__in=["INSERT", "UPDATE", "DELETE"])
    text, lines = detail(site, updated)
    assert (lines["name"].old, lines["name"].new) == ("<del>&lt;b&gt;Acme&lt;/b&gt;</del>", "<ins>Bolt &amp; Co</ins>")
    assert list(lines)[:3] == ["name", "industry", "system_mod_stamp"], "first the changed fields"
    assert "<ins>" not in lines["system_mod_stamp"].new
    assert lines["name"].changed
    assert "NULL" in lines["industry"].new
    assert not lines["annual_revenue"].changed
    assert "<b>Acme" not in text
    assert "Unchanged fields" in text
    assert detail(site, created)[1]["name"].new == "<span>&lt;b&gt;Acme&lt;/b&gt;</span>"
    assert detail(site, deleted)[1]["name"].old == "<span>Bolt &amp; Co</span>"
    summary = content(site, "change", operation="UPDATE")
    assert "<del>&lt;b&gt;Acme&lt;/b&gt;</del> → <ins>Bolt &amp; Co</ins>" in summary


def test_long_texts_show_the_words_that_differ(site: Client, captured: HerokuConnect) -> None:
    long = "Once upon a time " * 5000
    (sfid,) = captured.insert(User, username="u")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE public.hc_signals_change SET operation = 'UPDATE', changed = '{username}', layout = NULL, "
            "old = json_build_object('username', %s::text), new = json_build_object('username', %s::text)",
            [long + "there was a cat." + long, long + "there was a <dog>." + long],
        )
    text, lines = detail(site, Change.objects.get())
    assert "there was a <del>cat</del>." in lines["username"].old
    assert "there was a <ins>&lt;dog&gt;</ins>." in lines["username"].new
    assert " characters … " in lines["username"].old
    assert len(text) < 30_000
    assert sfid


def test_long_different_texts_are_shortened(site: Client) -> None:
    fill(1)
    words = [" ".join(f"{letter}{n * 7919 % 10007}" for n in range(20_000)) for letter in "ab"]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE public.hc_signals_change SET layout = NULL, old = json_build_object('username', %s::text), "
            "new = json_build_object('username', %s::text)",
            words,
        )
    assert len(detail(site, Change.objects.get())[0]) < 30_000


def test_change_without_record_model_or_image_is_shown(site: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO public.hc_signals_change (table_name, operation, origin, note, new) VALUES "
            "('salesforce.account', 'GAP', 'heroku_connect', '{\"cause\": \"paused\"}', NULL), "
            "('salesforce.gone__c', 'INSERT', 'heroku_connect', NULL, '{\"name\": [1, true]}')"
        )
    assert "cause: paused" in content(site, "change")
    gap, gone = Change.objects.all()
    assert "paused" in detail(site, gap)[0]
    assert detail(site, gone)[1]["name"].new == "<span>[1, true]</span>"
    assert "salesforce.gone__c" in content(site, "change")
    missing = site.get(address("change", "change", 10**20), follow=True)
    assert "Perhaps it was deleted" in messages(missing)[0]


class Receiver:
    failing = True

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, instance: Any, **kwargs: Any) -> None:
        if self.failing:
            raise ValueError("no <way>")
        self.done.append(instance.username)


@pytest.fixture
def receiver(captured: HerokuConnect, connect: Any) -> Receiver:
    """A failed delivery of each of two records, and a parked one behind the first."""
    found = Receiver()
    connect(signals.record_changed, found, User)
    sfids = captured.insert(User, {"username": "a"}, {"username": "b"})
    captured.update(User, sfids[0], username="A")
    deliver()
    return found


def act(client: Client, action: str, *deliveries: Any, **data: Any) -> Any:
    selected = {"action": action, "index": 0, "_selected_action": [each.pk for each in deliveries]}
    return client.post(address("delivery"), selected | data, follow=True)


def test_deliveries_show_error_and_payload(site: Client, receiver: Receiver) -> None:
    text = content(site, "delivery")
    assert "3 deliveries" in text
    assert "ValueError: no &lt;way&gt;" in text
    assert "waits for an earlier one" in text
    assert "2 deliveries" in content(site, "delivery", state__exact="retry")
    assert "3 deliveries" in content(site, "delivery", receiver="tests.test_admin_pages.Receiver", sender="sfdc.User")
    assert "0 deliveries" in content(site, "delivery", consumer="unknown")
    first = Delivery.objects.earliest("id")
    assert "1 delivery" in content(site, "delivery", change_id=first.change_id)
    page = site.get(address("delivery", "change", first.id)).content.decode()
    assert "tests/test_admin_pages.py" in page, "the traceback"
    assert "Retry now" in page
    assert '<td data-label="New"><span>a</span></td>' in page


def test_retry_calls_the_receiver_again(site: Client, receiver: Receiver) -> None:
    receiver.failing = False
    Delivery.objects.filter(state="retry").update(state="dead", attempt=10, next_attempt_at=None)
    answer = act(site, "retry", *Delivery.objects.all())
    assert messages(answer) == ["2 deliveries are due now; parked ones follow theirs."]
    deliver()
    assert sorted(receiver.done) == ["A", "a", "b"]
    assert LogEntry.objects.filter(change_message="Retried.").count() == 3


def test_discard_asks_first_and_releases_parked_deliveries(site: Client, receiver: Receiver) -> None:
    first = Delivery.objects.earliest("id")
    asked = act(site, "discard", first).content.decode()
    assert "1 of tests.test_admin_pages.Receiver (retry)" in asked
    assert Delivery.objects.count() == 3
    assert messages(act(site, "discard", first, confirmed="Yes")) == ["1 deliveries discarded."]
    receiver.failing = False
    deliver()
    assert receiver.done == ["A"]
    assert LogEntry.objects.get().object_id == str(first.id)


def test_select_all_discards_the_filtered_deliveries(site: Client, receiver: Receiver) -> None:
    first = Delivery.objects.earliest("id")
    url = address("delivery") + "?state__exact=retry"
    data = {"action": "discard", "index": 0, "_selected_action": [first.pk], "select_across": 1}
    asked = site.post(url, data).content.decode()
    assert "2 of " in asked
    assert 'name="select_across" value="1"' in asked
    site.post(url, data | {"confirmed": "Yes"})
    assert Delivery.objects.get().state == "retry", "the parked one"


# -- grouped by error --------------------------------------------------------------------------------------------------

ERRORS = "admin:hc_signals_delivery_errors"
PATH = "tests.test_admin_pages.Receiver"


def store(count: int, error: str = "ValueError: order {} of Ada", **values: Any) -> None:
    """Store failed deliveries, each with a number of its own in its error; the traceback names it too."""
    for number in range(count):
        text = error.format(number) + f"\nTraceback {number}"
        known = {"consumer": "default", "receiver": "crm.a", "signal": "record_updated", "sender": "sfdc.User"}
        row = {"table_name": "salesforce.user", "operation": "UPDATE", "origin": "heroku_connect", "state": "retry"}
        about = {"attempt": 1, "change_id": number, "captured_at": now(), "record_id": f"r{number}"}
        insert_delivery({**known, **row, **about, "error": text, **values})


def insert_delivery(row: dict[str, Any]) -> None:
    names = ", ".join(row)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO public.hc_signals_delivery (xid, {names}) VALUES ('1', {', '.join(['%s'] * len(row))})",
            list(row.values()),
        )


def groups(client: Client, **params: Any) -> list[tuple[str, str, int, int]]:
    page = client.get(reverse(ERRORS), params)
    found = [each["group"] for each in page.context["groups"]]
    return [(group.receiver, group.error, group.retry, group.dead) for group in found]


def test_errors_are_grouped_without_their_numbers(site: Client) -> None:
    store(3)
    store(2, state="dead", attempt=10)
    store(1, "KeyError: 'x'", receiver="crm.b", consumer="other")
    store(4, "", state="parked")
    assert groups(site) == [("crm.a", "ValueError: order # of Ada", 3, 2), ("crm.b", "KeyError: 'x'", 1, 0)]
    assert groups(site, consumer="other") == [("crm.b", "KeyError: 'x'", 1, 0)]
    assert groups(site, state__exact="dead") == [("crm.a", "ValueError: order # of Ada", 0, 2)]
    assert groups(site, receiver="crm.c") == []
    text = content(site, "delivery", consumer="other")
    assert f'href="{reverse(ERRORS)}?consumer=other"' in text, "the filters are kept"


def test_action_on_an_error_asks_first(site: Client) -> None:
    store(3)
    store(1, "KeyError: 'x'")
    data = {"receiver": "crm.a", "sender": "sfdc.User", "error": "ValueError: order # of Ada", "action": "discard"}
    asked = site.post(reverse(ERRORS), data).content.decode()
    assert "<b>3</b> deliveries of sfdc.User" in asked
    command = "manage.py hc_deliveries discard --receiver crm.a --model sfdc.User --error 'ValueError: order # of Ada'"
    assert command in html.unescape(asked)
    assert Delivery.objects.count() == 4
    answer = site.post(reverse(ERRORS) + "?consumer=default", data | {"confirmed": "Yes"}, follow=True)
    assert messages(answer) == ["3 deliveries are discarded."]
    assert answer.redirect_chain[0][0].endswith("?consumer=default")
    assert Delivery.objects.get().error.startswith("KeyError")
    entry = LogEntry.objects.get()
    assert entry.object_repr == "3 deliveries to crm.a: ValueError: order # of Ada"


def test_retry_of_an_error_calls_the_receiver_again(site: Client, receiver: Receiver) -> None:
    receiver.failing = False
    data = {"receiver": PATH, "sender": "sfdc.User", "error": "ValueError: no <way>", "action": "retry"}
    answer = site.post(reverse(ERRORS), data | {"confirmed": "Yes"}, follow=True)
    assert messages(answer) == ["2 deliveries are due now; parked ones follow theirs."]
    deliver()
    assert sorted(receiver.done) == ["A", "a", "b"]


def test_action_ends_before_the_request_does(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_errors, "SECONDS", -1)
    monkeypatch.setattr("hc_signals.delivery.interventions.PIECE", 2)
    store(5)
    data = {"receiver": "crm.a", "sender": "sfdc.User", "error": "ValueError: order # of Ada", "action": "retry"}
    data["confirmed"] = "Yes"
    for left in (3, 1):
        answer = site.post(reverse(ERRORS), data)
        assert messages(answer)[1] == f"{left} are left: the time was up. Go on below."
        (data["after"],) = re.findall(r'name="after" value="(\d+)"', answer.content.decode())
    assert messages(site.post(reverse(ERRORS), data, follow=True)) == [
        "1 deliveries are due now; parked ones follow theirs."
    ]
    assert Delivery.objects.filter(next_attempt_at__lte=now()).count() == 5


def test_action_on_errors_gives_up_while_a_worker_is_busy(
    site: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, other_worker: Any
) -> None:
    monkeypatch.setattr("hc_signals.delivery.interventions.CLAIM_SECONDS", 0.1)
    data = {"receiver": PATH, "sender": "sfdc.User", "error": "ValueError: no <way>", "action": "discard"}
    with other_worker():
        answer = site.post(reverse(ERRORS), data | {"confirmed": "Yes"})
    assert messages(answer) == ["Nothing was done: canceling statement due to lock timeout [55P03]. Try again."]
    assert Delivery.objects.count() == 3


@pytest.mark.parametrize(
    "data",
    [
        {"action": "discard", "confirmed": "Yes"},
        {"action": "discard", "receiver": "crm.a", "confirmed": "Yes"},
        {"action": "discard", "receiver": "crm.a\x00", "error": "x", "confirmed": "Yes"},
    ],
)
def test_action_without_receiver_and_error_is_refused(site: Client, data: dict[str, str]) -> None:
    store(1)
    assert site.post(reverse(ERRORS), data).status_code == 400
    assert Delivery.objects.count() == 1


def test_action_on_errors_needs_its_own_permission(captured: HerokuConnect) -> None:
    store(2)
    data = {"receiver": "crm.a", "sender": "sfdc.User", "error": "ValueError: order # of Ada", "confirmed": "Yes"}
    reader = login("view_delivery", "view_user", "change_delivery")
    assert reader.post(reverse(ERRORS), data | {"action": "discard"}).status_code == 403
    assert reader.post(reverse(ERRORS), data).status_code == 403
    assert "Discard" not in reader.get(reverse(ERRORS)).content.decode()
    assert reader.post(reverse(ERRORS), data | {"action": "retry"}).status_code == 302
    assert Delivery.objects.count() == 2


def test_errors_of_hidden_models_are_left_out(captured: HerokuConnect) -> None:
    store(2)
    data = {"receiver": "crm.a", "sender": "sfdc.User", "error": "ValueError: order # of Ada", "confirmed": "Yes"}
    reader = login("view_delivery", "delete_delivery")
    assert groups(reader) == []
    answer = reader.post(reverse(ERRORS), data | {"action": "discard"}, follow=True)
    assert messages(answer) == ["0 deliveries are discarded."]
    assert Delivery.objects.count() == 2


def test_retry_gives_up_while_a_worker_is_busy(
    site: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, other_worker: Any
) -> None:
    monkeypatch.setattr("hc_signals.delivery.interventions.CLAIM_SECONDS", 0.1)
    with other_worker():
        answer = act(site, "retry", *Delivery.objects.all())
    assert messages(answer) == ["Nothing was done: canceling statement due to lock timeout [55P03]. Try again."]


@pytest.fixture
def other_worker() -> Any:
    """Another connection that claims the shard for the length of a block."""
    here = connection.settings_dict

    @contextmanager
    def claimed() -> Iterator[Any]:
        options = {"host": here["HOST"], "port": here["PORT"] or None, "user": here["USER"]}
        with psycopg.connect(dbname=here["NAME"], password=here["PASSWORD"] or None, **options) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s, hashtext('default 0'))", [CLAIMS])
            yield other

    return claimed


def test_consumers_show_their_backlog(site: Client, captured: HerokuConnect, receiver: Receiver) -> None:
    captured.create(Contact, 5)
    text = content(site, "position")
    assert "<h2>default" in text
    assert "5 undelivered changes, the oldest" in text
    assert "1 worker;" in text
    assert "no worker" not in text
    assert "2 retry" in text
    (link,) = re.findall(r'href="([^"]+)">2 retry', text)
    assert "2 deliveries" in site.get(link.replace("&amp;", "&")).content.decode()
    deliver(SHARDS=3)
    text = content(site, "position")
    assert "0 undelivered changes" in text
    assert [f"""<td data-label="Shard">{shard}</td>""" in text for shard in range(4)] == [True, True, True, False]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO public.hc_signals_position (consumer, shard, shards, seen, floor_id, floor_xid, lost) "
            "VALUES ('gone', 0, 1, '1:1:', 0, '1', 0)"
        )
    assert "no worker" in content(site, "position")


def test_backlog_of_a_shard_is_counted_up_to_a_limit(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "COUNT_LIMIT", 100)
    fill(8000)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO public.hc_signals_position (consumer, shard, shards, seen, floor_id, floor_xid, lost) "
            "SELECT 'default', n, 8, '1:1:', 0, '1', 0 FROM generate_series(0, 7) n"
        )
    with CaptureQueriesContext(connection) as queries:
        text = content(site, "position")
    assert text.count(">more than 100</td>") == 8
    counts = [query["sql"] for query in queries if "count(*)" in query["sql"] and "hc_signals_change" in query["sql"]]
    assert len(counts) >= 9
    assert max(map(rows_read, counts)) < 3000


def test_restored_database_is_named(site: Client) -> None:
    deliver()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE public.hc_signals_control SET system_identifier = system_identifier + 1")
        try:
            assert "was restored from another server" in content(site, "position")
        finally:
            cursor.execute("UPDATE public.hc_signals_control SET system_identifier = system_identifier - 1")


def test_drift_is_repaired_on_one_table_or_on_all(site: Client, captured: HerokuConnect) -> None:
    assert "Every table that exists is captured" in content(site, "connectedtable")
    for model in (Account, Contact, User):
        uninstall_capture(model, "default")
    captured.drop_table(User)
    text = content(site, "connectedtable")
    assert "2 of " in text
    assert "have drifted" in text
    assert "the table does not exist yet" in text
    answer = site.post(address("connectedtable"), {"model": "crm.Account"}, follow=True)
    assert messages(answer) == ["crm.Account: installed."]
    assert status_of(Contact, "default").state == "missing"
    assert messages(site.post(address("connectedtable"), follow=True)) == ["crm.Contact: installed."]
    assert messages(site.post(address("connectedtable"), {"model": "x.Y"}, follow=True)) == [
        "There is no connected model 'x.Y'."
    ]


def test_paused_capture_and_orphans_are_shown(site: Client) -> None:
    assert "paused" not in content(site, "connectedtable")
    pausing.pause("default")
    with connection.cursor() as cursor:
        cursor.execute("ALTER SCHEMA salesforce RENAME TO renamed")
        try:
            text = content(site, "connectedtable")
        finally:
            cursor.execute("ALTER SCHEMA renamed RENAME TO salesforce")
    assert "Capture is paused since " in text
    assert "renamed.account" in text
    assert "orphan" in text


def test_locked_table_does_not_keep_others_from_repair(
    site: Client, monkeypatch: pytest.MonkeyPatch, other_worker: Any
) -> None:
    monkeypatch.setattr("hc_signals.capture.install.LOCK_TIMEOUT", "100ms")
    for model in (Account, Contact):
        uninstall_capture(model, "default")
    with other_worker() as other:
        other.execute("LOCK TABLE salesforce.account IN ROW EXCLUSIVE MODE")
        answer = site.post(address("connectedtable"), follow=True)
    assert messages(answer) == [
        "crm.Account: not installed: canceling statement due to lock timeout [55P03]. Try again.",
        "crm.Contact: installed.",
    ]


def test_repair_ends_before_the_request_does(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "REPAIR_SECONDS", -1)
    uninstall_capture(Account, "default")
    answer = site.post(address("connectedtable"), follow=True)
    assert messages(answer) == ["Not all tables were tried: the time is up. Try again."]


def test_repair_has_a_transaction_per_table(site: Client) -> None:
    assert "default" in resolve(address("connectedtable")).func._non_atomic_requests  # type: ignore[attr-defined]


def test_repair_needs_a_csrf_token(captured: HerokuConnect) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(Login.objects.create_superuser("root"))
    uninstall_capture(Account, "default")
    assert client.post(address("connectedtable")).status_code == 403
    assert status_of(Account, "default").state == "missing"


@pytest.mark.parametrize("page", PAGES)
def test_page_needs_its_permission(page: str, captured: HerokuConnect) -> None:
    assert Client().get(address(page)).status_code == 302
    assert login().get(address(page)).status_code == 403
    assert login("view_user").post(address(page)).status_code == 403
    reader = login(f"view_{page}")
    assert reader.get(address(page)).status_code == 200
    assert reader.get(reverse("admin:index")).status_code == 200


@pytest.mark.parametrize("page", PAGES)
def test_users_cannot_add_edit_or_delete_rows(page: str, site: Client, receiver: Receiver) -> None:
    key = {"delivery": Delivery, "position": Change}.get(page, Change).objects.latest("id").pk  # type: ignore[attr-defined]
    assert site.get(address(page, "add")).status_code == 403
    for kind in ("change", "delete"):
        answer = site.post(address(page, kind, key), {"post": "yes"})
        assert answer.status_code in (302, 403), "403, or: there is no such row"
    assert Delivery.objects.count() == 3
    assert Change.objects.count() == 3


def test_viewer_of_deliveries_cannot_act(receiver: Receiver) -> None:
    before = list(Delivery.objects.values())
    reader = login("view_delivery")
    act(reader, "retry", *Delivery.objects.all())
    act(reader, "discard", *Delivery.objects.all(), confirmed="Yes")
    act(login("view_delivery", "change_delivery"), "discard", *Delivery.objects.all(), confirmed="Yes")
    assert list(Delivery.objects.values()) == before
    page = reader.get(address("delivery", "change", before[0]["id"])).content.decode()
    assert "Retry now" not in page
    assert "Discard" not in page


def test_viewer_of_triggers_cannot_install(captured: HerokuConnect) -> None:
    uninstall_capture(Account, "default")
    reader = login("view_connectedtable")
    assert "Install" not in content(reader, "connectedtable")
    assert reader.post(address("connectedtable")).status_code == 403
    assert status_of(Account, "default").state == "missing"
    mender = login("view_connectedtable", "install_connectedtable")
    assert messages(mender.post(address("connectedtable"), follow=True)) == ["crm.Account: installed."]


# -- what the user may see, and what texts may do ----------------------------------------------------------------------

SECRET = "Ada Lovelace"


@pytest.fixture
def secret(captured: HerokuConnect, connect: Any) -> str:
    """A value in the log, in a failed delivery, in its error and in the trigger log; return the record's sfid."""

    def fail(instance: Any, **kwargs: Any) -> None:
        raise ValueError(f"no {instance.username}")

    connect(signals.record_changed, fail, User)
    (sfid,) = captured.insert(User, username=SECRET)
    captured.update(User, sfid, username=f"{SECRET}!")
    deliver()
    for model in (TriggerLog, TriggerLogArchive):
        values = {"values": f'"username"=>"{SECRET}"', "old": f'"id"=>"1", "username"=>"{SECRET}"'}
        model.objects.create(
            id=1, action="UPDATE", state="FAILED", table_name="user", record_id=1, sf_message=f"no {SECRET}", **values
        )
    return sfid


def own_addresses() -> dict[str, str]:
    """Return every address of our admin by the name of its page, with a row or a record where it needs one."""
    models = [model for model in admin.site._registry if model._meta.app_label == "hc_signals"]
    change = Change.objects.latest("id")
    found = {}
    for model in models:
        key = model._base_manager.order_by("pk").values_list("pk", flat=True).last()
        known = {"object_id": key, "label": "sfdc.User", "text": change.record_id, "number": change.id}
        for pattern in admin.site.get_model_admin(model).urls:
            if pattern.name is not None:
                arguments = {name: known[name] for name in pattern.pattern.converters}
                found[pattern.name] = reverse(f"admin:{pattern.name}", kwargs=arguments)
    return found


READERS = ("change", "delivery", "position", "connectedtable", "triggerlog", "triggerlogarchive")


def test_view_only_staff_see_no_value_they_may_not_see(secret: str) -> None:
    """They may view all our pages, and not the model of the records."""
    reader = login(*(f"view_{page}" for page in READERS))
    for name, url in own_addresses().items():
        for params in ({}, {"q": SECRET}, {"q": "Ada"}, {"all": "username"}, {"e": "1"}):
            text = reader.get(url, params, follow=True).content.decode()
            assert SECRET not in text.replace(f'value="{SECRET}"', ""), (name, params)
    assert shown(reader, q="Ada") == []
    assert "Hidden: you may not view sfdc.User." in content(reader, "change")
    both = login(*(f"view_{page}" for page in READERS), "view_user")
    seen = [name for name, url in own_addresses().items() if SECRET in both.get(url, follow=True).content.decode()]
    assert {name.removeprefix("hc_signals_") for name in seen} >= {
        *("change_change", "change_changelist", "delivery_change", "delivery_changelist", "delivery_errors"),
        *("triggerlog_change", "triggerlog_changelist", "triggerlogarchive_change", "triggerlogarchive_changelist"),
    }


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_view_only_staff_write_nothing(secret: str, method: str) -> None:
    reader = login(*(f"view_{page}" for page in READERS), "view_user")
    before = [list(model.objects.values()) for model in (Delivery, TriggerLog, TriggerLogArchive)]
    addresses = own_addresses()
    assert len(addresses) > 30
    for name, url in addresses.items():
        for action in ("retry", "discard", "ignore", "delete_selected", "") if method == "post" else ("retry",):
            data = {"action": action, "_selected_action": "1", "confirmed": "Yes", "state": "IGNORED", "post": "yes"}
            if method == "post":
                answer = reader.post(url, data)
            else:
                kind = "application/x-www-form-urlencoded"
                answer = getattr(reader, method)(url, urlencode(data), content_type=kind)
            # Django 6.1 reads the object before it asks for the right to change it.
            is_absent = answer.status_code == 302 and answer["Location"] == reverse("admin:index")
            assert answer.status_code in (403, 405) or is_absent, (name, action)
    assert [list(model.objects.values()) for model in (Delivery, TriggerLog, TriggerLogArchive)] == before


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_read_only_record_refuses_forged_requests(site: Client, captured: HerokuConnect, method: str) -> None:
    """Also those of a superuser; Django asks the router first, which raises."""
    captured.insert(Account, name="Acme")
    account = Account.objects.get()
    data = {"name": "Bolt", "post": "yes", "action": "delete_selected", "_selected_action": account.pk}
    for kind, arguments in {"changelist": [], "add": [], "change": [1], "delete": [1], "history": [1]}.items():
        url = reverse(f"admin:crm_account_{kind}", args=[account.pk] * len(arguments))
        assert getattr(site, method)(url, data).status_code == 403, kind
    assert site.get(reverse("admin:crm_account_change", args=[account.pk])).status_code == 200
    assert Account.objects.get().name == "Acme"


def test_form_of_a_read_only_record_is_invalid(captured: HerokuConnect) -> None:
    captured.insert(Account, name="Acme")
    form = modelform_factory(Account, fields=["name"])({"name": "Bolt"}, instance=Account.objects.get())
    assert not form.is_valid()
    assert "crm.Account is a read-only model" in str(form.non_field_errors())


HOSTILE = "<script>alert()</script>\u202egpj\u202c zero\u200bwidth \ufeff\u2066"


def test_hostile_texts_are_escaped_and_visible(site: Client, captured: HerokuConnect) -> None:
    (sfid,) = captured.insert(Account, name="Acme")
    captured.update(Account, sfid, name=HOSTILE)
    store(1, "ValueError: " + HOSTILE)
    change, delivery = Change.objects.latest("id"), Delivery.objects.get()
    urls = [
        *(address("change"), address("change", "change", change.pk), reverse(ERRORS)),
        *(address("delivery"), address("delivery", "change", delivery.pk)),
    ]
    for url in urls:
        text = re.sub('value="[^"]*"', "", site.get(url).content.decode())
        assert "&lt;script&gt;alert()" in text, url
        assert "<script>alert" not in text, url
        assert not set("\u202e\u202c\u200b\ufeff\u2066") & set(text), url
        assert '<span class="hc-sign" title="zero width space">U+200B</span>' in text, url


def test_long_value_has_a_link_to_all_of_it(site: Client, captured: HerokuConnect) -> None:
    (sfid,) = captured.insert(Account, name="x")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE public.hc_signals_change SET layout = NULL, new = json_build_object('name', repeat('a b', 33333))"
        )
    url = address("change", "change", Change.objects.get().pk)
    text = site.get(url).content.decode()
    assert '<a href="?all=name">show all 99999 characters</a>' in text
    assert len(text) < 30_000
    assert "a b" * 33333 in site.get(url, {"all": "name"}).content.decode()
    assert len(content(site, "change")) < 60_000
    assert sfid


def test_every_page_names_one_time_zone(site: Client, receiver: Receiver) -> None:
    """A record's own times are in that zone too, although Heroku Connect stores them in UTC."""
    for name, url in own_addresses().items():
        if name.endswith(("changelist", "_change", "errors")):
            page = site.get(url, follow=True)
            if page.request["PATH_INFO"].startswith("/admin/hc_signals/"):
                assert page.content.decode().count("All times on this page: ") == 1, name
    change = Change.objects.latest("id")
    stamp = str(change.new["systemmodstamp"])
    here = datetime.fromisoformat(stamp).replace(tzinfo=UTC).astimezone(get_current_timezone())
    line = detail(site, change)[1]["system_mod_stamp"]
    assert f"<span>{here:%Y-%m-%d %H:%M:%S}" in line.new


def test_history_is_linked_where_there_is_one(site: Client, receiver: Receiver) -> None:
    change, first = Change.objects.latest("id"), Delivery.objects.earliest("id")
    assert "historylink" not in detail(site, change)[0]
    page = address("delivery", "change", first.pk)
    assert "historylink" not in site.get(page).content.decode()
    act(site, "retry", first)
    assert "historylink" in site.get(page).content.decode()
    assert 'name="_save"' not in site.get(page).content.decode()


def test_delivery_shows_record_attempts_and_commands(site: Client, captured: HerokuConnect, connect: Any) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError("no")

    connect(signals.record_created, fail, Account)
    captured.insert(Account, name="Acme")
    deliver()
    first, account = Delivery.objects.get(), Account.objects.get()
    page, change = address("delivery", "change", first.pk), address("change", "change", first.change_id)
    record = reverse("admin:crm_account_change", args=[account.pk])
    text = site.get(page).content.decode()
    for link in (record, change):
        assert f'href="{link}"' in text
    assert "1 of 10, 9 left" in text
    assert re.search(r"in \d+ s<div", text)
    for action in ("show", "retry", "discard"):
        assert f"<code>manage.py hc_deliveries {action} {first.pk}</code>" in text
    assert f'href="{record}"' in site.get(change).content.decode()
    captured.drop_table(Account)
    assert record not in site.get(change).content.decode(), "the table is gone"
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE public.hc_signals_change")
    text = site.get(page).content.decode()
    for link in (record, change):
        assert link not in text
    assert "Acme" in text


@pytest.mark.parametrize("page", PAGES)
def test_page_without_its_table_says_what_to_do(page: str, site: Client) -> None:
    tables = ("log", "change", "position", "delivery")
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE public.hc_signals_{table} RENAME TO hidden_{table}")
        try:
            assert "run <code>manage.py migrate hc_signals</code>" in content(site, page)
            assert "run <code>manage.py migrate" in site.post(address(page)).content.decode()
            answer = site.get(address(page, "change", 1), follow=True)
            assert "Perhaps it was deleted" in messages(answer)[0]
        finally:
            for table in tables:
                cursor.execute(f"ALTER TABLE public.hidden_{table} RENAME TO hc_signals_{table}")


def test_app_list_names_the_pages(site: Client) -> None:
    text = site.get(reverse("admin:app_list", args=["hc_signals"])).content.decode()
    for name in ("Changes", "Deliveries", "Consumers and shards", "Capture triggers"):
        assert name in text
