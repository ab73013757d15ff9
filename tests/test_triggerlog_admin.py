"""The admin of the trigger log: lists, forms, actions, permissions, and the cost of large tables."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.contrib.auth.models import User as Login
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from hc_signals.admin import base, trigger_log
from hc_signals.heroku.trigger_log.words import WriteAlgorithm
from hc_signals.models import TriggerLog, TriggerLogArchive
from hc_signals.tables import quoted_table, table_label
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, as_the_app
from tests.test_triggerlog import BOTH, archive, failed_log


def changelist(log_model: Any = TriggerLog) -> str:
    return reverse(f"admin:hc_signals_{log_model._meta.model_name}_changelist")


def change_page(log: Any) -> str:
    return reverse(f"admin:hc_signals_{log._meta.model_name}_change", args=[log.pk])


def row(
    log_model: Any, number: int, state: str = "FAILED", table: str = "contact", record: int = 1, **rest: Any
) -> Any:
    return log_model.objects.create(id=number, action="UPDATE", state=state, table_name=table, record_id=record, **rest)


def act(client: Client, action: str, *logs: Any) -> list[str]:
    """Run an action on the rows; return its messages."""
    data = {"action": action, "_selected_action": [log.pk for log in logs]}
    response = client.post(changelist(type(logs[0])), data, follow=True)
    assert response.status_code == 200
    return [str(message) for message in response.context["messages"]]


def shown(client: Client, log_model: Any, **params: Any) -> list[int]:
    response = client.get(changelist(log_model), params)
    assert response.status_code == 200
    return [log.pk for log in response.context["cl"].result_list]


def login(*codenames: str) -> Client:
    user = Login.objects.create_user(f"user {codenames}", password=None, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def site(heroku: HerokuConnect) -> Iterator[Client]:
    """The admin as a superuser sees it."""
    client = Client()
    client.force_login(Login.objects.create_superuser("root"))
    yield client


@pytest.fixture
def merged_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger_log.TriggerLogAdminBase, "write_algorithm", WriteAlgorithm.MERGE_WRITES)


@BOTH
def test_admin_has_django_heroku_connects_options(log_model: Any) -> None:
    options = admin.site.get_model_admin(log_model)
    assert options.date_hierarchy == "created_at"
    assert options.list_per_page == 100
    assert options.show_full_result_count is False


@BOTH
def test_filters_and_search_keep_matching_rows(log_model: Any, site: Client) -> None:
    row(log_model, 1, record=12, sf_id="003000000000001AAA", created_at="2026-01-02T03:04:05Z")
    row(log_model, 2, record=112, table="gone__c", sf_message="REQUIRED_FIELD_MISSING: Name")
    row(log_model, 3, "NEW")
    assert sorted(shown(site, log_model)) == [1, 2, 3]
    assert shown(site, log_model, state__exact="NEW") == [3]
    assert shown(site, log_model, action__exact="INSERT") == []
    assert shown(site, log_model, table_name="gone__c") == [2]
    assert shown(site, log_model, q="12") == [1], "the whole number, not a part of it"
    assert shown(site, log_model, q="003000000000001") == [1], "15 characters find 18"
    assert shown(site, log_model, q="003000000000001aaa") == [], "ids differ by case"
    assert shown(site, log_model, q="field_missing") == [2]
    assert shown(site, log_model, created_at__year="2026") == [1]


@BOTH
def test_table_filter_offers_connected_tables_and_the_chosen(log_model: Any, site: Client) -> None:
    text = site.get(changelist(log_model), {"table_name": "gone__c"}).content.decode()
    for table in ("account", "contact", "user", "gone__c"):
        assert f"table_name={table}" in text, table
    assert "table_name=crm_seen" not in text


@BOTH
def test_cells_link_to_similar_rows(log_model: Any, site: Client) -> None:
    row(log_model, 1, record=1)
    row(log_model, 2, "NEW", record=1)
    row(log_model, 3, "NEW", record=2)
    row(log_model, 4, table="account", record=1)
    cells = dict.fromkeys(("table_link", "record_link", "state_link"), "")
    text = site.get(changelist(log_model), {"id__exact": 1}).content.decode()
    for name in cells:
        link = re.search(rf'class="field-{name}[^"]*"><a href="([^"]+)">([^<]+)</a>', text)
        assert link is not None, name
        cells[name] = link[2]
        ids = [log.pk for log in site.get(link[1].replace("&amp;", "&")).context["cl"].result_list]
        assert sorted(ids) == {"table_link": [1, 2, 3], "record_link": [1, 2], "state_link": [1, 4]}[name], name
    assert cells == {"table_link": "contact", "record_link": "1", "state_link": "Failed"}
    assert "table_name=contact&amp;record_id__exact=1" in site.get(change_page(log_model(pk=1))).content.decode()


def test_text_from_salesforce_is_escaped(site: Client) -> None:
    row(TriggerLog, 1, table="<b>", sf_message="<script>alert(1)</script>")
    for page in (changelist(), change_page(TriggerLog(pk=1))):
        text = site.get(page).content.decode()
        assert "<script>alert" not in text
        assert "<b>" not in text


@BOTH
def test_form_changes_the_state_alone(log_model: Any, site: Client) -> None:
    log = row(log_model, 1, sf_message="as it was")
    form = site.get(change_page(log)).context["adminform"].form
    assert list(form.fields) == ["state"]
    log_model.objects.update(values="newer")
    answer = site.post(change_page(log), {"state": "IGNORED", "sf_message": "x", "record_id": 2, "values": "x"})
    assert answer.status_code == 302
    assert list(log_model.objects.values_list("state", "sf_message", "record_id", "values")) == [
        ("IGNORED", "as it was", 1, "newer")
    ]


STATES = ["FAILED", "IGNORE", "IGNORED", "MERGED", "NEW", "PENDING", "READONLY", "REQUEUE", "REQUEUED", "SUCCESS"]


@BOTH
def test_only_a_failed_row_has_a_form(log_model: Any, site: Client) -> None:
    """Heroku Connect sets all states but one: a user may mark a refused write as done."""
    for number, state in enumerate(STATES, 1):
        log = row(log_model, number, state)
        text = site.get(change_page(log)).content.decode()
        assert ('name="_save"' in text) == ('<select name="state"' in text) == (state == "FAILED"), state
        if state != "FAILED":
            assert site.post(change_page(log), {"state": "IGNORED"}).status_code == 403, state
    assert list(log_model.objects.order_by("id").values_list("state", flat=True)) == STATES


@BOTH
def test_forged_state_is_refused(log_model: Any, site: Client) -> None:
    log = row(log_model, 1)
    for state in {*STATES, "NONSENSE"} - {"FAILED", "IGNORED"}:
        answer = site.post(change_page(log), {"state": state})
        assert answer.status_code == 200, state
        assert answer.context["errors"], state
    assert log_model.objects.get().state == "FAILED"


def test_live_row_becomes_new_with_merged_writes(site: Client, merged_writes: None) -> None:
    live, archived = row(TriggerLog, 1), row(TriggerLogArchive, 1)
    for log in (live, archived):
        site.post(change_page(log), {"state": "NEW"})
        log.refresh_from_db()
    assert (live.state, archived.state) == ("NEW", "FAILED")


@BOTH
def test_list_begins_with_the_newest_row(log_model: Any, site: Client) -> None:
    for number in (1, 2, 3):
        row(log_model, number)
    assert shown(site, log_model) == [3, 2, 1]


ANSWER = "FIELD_CUSTOM_VALIDATION_EXCEPTION: \u202eno e-mail"


def failed_update(log_model: Any) -> Any:
    old = '"id"=>"1", "email"=>"old@example.com", "lastname"=>"Grace"'
    return row(log_model, 1, values='"email"=>"<b>new@example.com"', old=old, sf_message=ANSWER)


@BOTH
def test_values_are_a_table_of_fields(log_model: Any, site: Client) -> None:
    page = site.get(change_page(failed_update(log_model)))
    lines = {line.name: line for line in page.context["lines"]}
    assert next(iter(lines)) == "email"
    assert lines["email"].old == "<del>old@example.com</del>"
    assert lines["email"].new == "<ins>&lt;b&gt;new@example.com</ins>"
    assert not lines["last_name"].changed
    text = page.content.decode()
    assert "=&gt;" not in text, "no hstore"
    assert '<span class="hc-sign" title="right-to-left override">U+202E</span>no e-mail' in text


@BOTH
def test_values_need_the_view_permission_of_the_model(log_model: Any, heroku: HerokuConnect) -> None:
    log, name = failed_update(log_model), log_model._meta.model_name
    reader, both = login(f"view_{name}"), login(f"view_{name}", "view_contact")
    for client, is_seen in ((reader, False), (both, True)):
        for text in (
            client.get(change_page(log)).content.decode(),
            client.get(changelist(log_model)).content.decode(),
        ):
            assert ("no e-mail" in text) == is_seen
        assert ("example.com" in client.get(change_page(log)).content.decode()) == is_seen
        assert shown(client, log_model, q="e-mail") == [1] * is_seen
    assert "Hidden: you may not view crm.Contact." in reader.get(change_page(log)).content.decode()


def test_text_that_is_no_hstore_is_shown_as_it_is(site: Client) -> None:
    text = site.get(change_page(row(TriggerLog, 1, values="no <hstore>"))).content.decode()
    assert "at character 0" in text
    assert "no &lt;hstore&gt;</pre>" in text


@BOTH
def test_page_of_a_failed_row_has_the_actions(log_model: Any, site: Client) -> None:
    name = log_model._meta.model_name
    failed, done = row(log_model, 1), row(log_model, 2, "SUCCESS")
    assert 'value="retry">Send again' in site.get(change_page(failed)).content.decode()
    assert "Send again" not in site.get(change_page(done)).content.decode()
    assert "Send again" not in login(f"view_{name}").get(change_page(failed)).content.decode()


@BOTH
def test_users_cannot_add_or_delete_rows(log_model: Any, site: Client) -> None:
    log = row(log_model, 1)
    name = f"admin:hc_signals_{log_model._meta.model_name}"
    assert site.get(reverse(f"{name}_add")).status_code == 403
    assert site.post(reverse(f"{name}_delete", args=[1]), {"post": "yes"}).status_code == 403
    data = {"action": "delete_selected", "_selected_action": [log.pk]}
    assert site.post(changelist(log_model), data).status_code == 403
    assert log_model.objects.count() == 1


def test_save_does_not_restore_an_archived_row(site: Client, heroku: HerokuConnect) -> None:
    log = failed_log(heroku)
    page = change_page(log)
    archive(log)
    answer = site.post(page, {"state": "NEW"}, follow=True)
    assert [message.level_tag for message in answer.context["messages"]] == ["warning"]
    assert not TriggerLog.objects.exists()


# -- actions -----------------------------------------------------------------------------------------------------------


@BOTH
def test_ignore_changes_failed_rows_only(log_model: Any, site: Client) -> None:
    states = ["FAILED", "NEW", "SUCCESS", "PENDING", "FAILED"]
    logs = [row(log_model, number, state) for number, state in enumerate(states, 1)]
    assert act(site, "ignore", *logs[:4]) == ["1 failed change ignored."]
    assert list(log_model.objects.values_list("state", flat=True)) == ["IGNORED", "NEW", "SUCCESS", "PENDING", "FAILED"]
    assert act(site, "ignore", logs[1]) == ["0 failed changes ignored."]


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("action", ["INSERT", "UPDATE"])
def test_retry_resends_with_ordered_writes(site: Client, heroku: HerokuConnect, action: str, archived: bool) -> None:
    log: Any = failed_log(heroku, action)
    log = archive(log) if archived else log
    assert act(site, "retry", log) == ["1 failed change to be sent again."]
    log.refresh_from_db()
    assert log.state == "REQUEUED"
    again = TriggerLog.objects.exclude(state="REQUEUED").get()
    assert (again.action, again.state) == (action, "NEW")
    if action == "UPDATE":
        assert again.values_as_dict == {"lastname": "Grace"}, "a subset of the columns stays one"


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("action", ["INSERT", "UPDATE", "DELETE"])
def test_retry_resends_with_merged_writes(
    site: Client, heroku: HerokuConnect, merged_writes: None, action: str, archived: bool
) -> None:
    log: Any = failed_log(heroku, action)
    log = archive(log) if archived else log
    assert act(site, "retry", log) == ["1 failed change to be sent again."]
    log.refresh_from_db()
    assert log.state == ("REQUEUED" if archived else "NEW")
    again = TriggerLog.objects.get()
    assert (again.action, again.state, again.values) == (action, "NEW", log.values)


@BOTH
def test_retry_changes_failed_rows_only(log_model: Any, site: Client) -> None:
    logs = [row(log_model, number, state) for number, state in enumerate(["NEW", "PENDING", "SUCCESS"], 1)]
    assert act(site, "retry", *logs) == ["0 failed changes to be sent again."]
    assert list(log_model.objects.values_list("state", flat=True)) == ["NEW", "PENDING", "SUCCESS"]


def test_failing_row_does_not_keep_others_from_retry(site: Client, heroku: HerokuConnect) -> None:
    good = failed_log(heroku)
    logs = [
        row(TriggerLog, 101, table="gone__c", values='"a"=>"1"'),
        row(TriggerLog, 102, record=4711, values='"a"=>"1"'),
        row(TriggerLog, 103, record=good.record_id, values="no hstore"),
    ]
    first, *errors = act(site, "retry", good, *logs)
    assert first == "1 failed change to be sent again."
    assert [error.split("] ", 1)[0] + "]" for error in errors] == [str(log).split("] ")[0] + "]" for log in logs]
    for error, part in zip(
        errors, ["table salesforce.gone__c", "no record with id 4711", "at character 0"], strict=True
    ):
        assert part in error
    assert list(TriggerLog.objects.filter(pk__gt=100).values_list("state", flat=True)) == ["FAILED"] * 3
    good.refresh_from_db()
    assert good.state == "REQUEUED"


def test_two_retries_at_once_send_a_row_once(site: Client, heroku: HerokuConnect) -> None:
    """The second retry waits for the lock of the first, then finds that the row is not FAILED any more."""
    log = failed_log(heroku)
    barrier = threading.Barrier(2)

    def retry() -> None:
        client = Client()
        client.force_login(Login.objects.get())
        barrier.wait(10)
        act(client, "retry", log)
        connection.close()

    threads = [threading.Thread(target=retry) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert list(TriggerLog.objects.values_list("state", flat=True)) == ["REQUEUED", "NEW"]


@pytest.mark.parametrize("action", ["ignore", "retry"])
def test_actions_lock_their_rows(site: Client, heroku: HerokuConnect, action: str) -> None:
    log = failed_log(heroku)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        act(site, action, log)
    assert any("FOR UPDATE" in query["sql"] and "'FAILED'" in query["sql"] for query in queries)


@BOTH
def test_actions_and_pages_need_their_permissions(log_model: Any, heroku: HerokuConnect) -> None:
    log = row(log_model, 1)
    name = log_model._meta.model_name
    outsider, viewer, editor = login(), login(f"view_{name}"), login(f"view_{name}", f"change_{name}")
    assert outsider.get(changelist(log_model)).status_code == 403
    assert shown(viewer, log_model) == [1]
    assert 'name="action"' not in viewer.get(changelist(log_model)).content.decode()
    assert viewer.post(change_page(log), {"state": "NEW"}).status_code == 403
    for action in ("ignore", "retry"):
        assert viewer.post(changelist(log_model), {"action": action, "_selected_action": [1]}).status_code == 403
    assert log_model.objects.get().state == "FAILED"
    assert act(editor, "ignore", log) == ["1 failed change ignored."]


# -- large tables ------------------------------------------------------------------------------------------------------


@BOTH
def test_list_is_counted_up_to_the_bound(log_model: Any, site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "COUNTED_ROWS", 150)
    table = log_model._meta.db_table
    as_the_app(
        f'INSERT INTO "{table}" (id, action, state, table_name, record_id) '
        "SELECT n, 'UPDATE', 'FAILED', 'contact', n FROM generate_series(1, 300) n"
    )
    with CaptureQueriesContext(connection) as queries:
        page = site.get(changelist(log_model))
    counts = [q["sql"] for q in queries if "COUNT(" in q["sql"] and "_trigger_log" in q["sql"]]
    assert counts
    assert all("LIMIT 150" in sql for sql in counts), counts
    assert not any("DISTINCT" in q["sql"] and "table_name" in q["sql"] for q in queries)
    assert (len(page.context["cl"].result_list), page.context["cl"].result_count) == (100, 150)
    assert len(shown(site, log_model, p=2)) == 50


def test_select_all_acts_on_the_counted_rows(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "COUNTED_ROWS", 150)
    as_heroku_connect(
        "INSERT INTO salesforce._trigger_log_archive (id, action, state, table_name, record_id) "
        "SELECT n, 'UPDATE', CASE WHEN n <= 50 THEN 'NEW' ELSE 'FAILED' END, 'contact', n "
        "FROM generate_series(1, 300) n"
    )
    data = {"action": "ignore", "_selected_action": [1], "select_across": "1"}
    answer = site.post(changelist(TriggerLogArchive), data, follow=True)
    assert [str(message) for message in answer.context["messages"]] == ["150 failed changes ignored."]
    assert TriggerLogArchive.objects.filter(state="IGNORED").count() == 150


@BOTH
def test_admin_names_an_absent_log(log_model: Any, heroku: HerokuConnect, admin_client: Client) -> None:
    as_the_app(f"DROP TABLE {quoted_table(log_model)} CASCADE")
    response = admin_client.get(changelist(log_model), {"state__exact": "FAILED"})
    assert response.status_code == 200
    assert f"There is no table <code>{table_label(log_model)}</code>" in response.text
    assert admin_client.get(change_page(log_model(pk=1)), follow=True).status_code == 200
    assert login().get(changelist(log_model)).status_code == 403


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_dumpdata_skips_an_absent_log(heroku: HerokuConnect, options: list[str], tmp_path: Path) -> None:
    row(TriggerLog, 1)
    file = tmp_path / "dump.json"
    call_command("dumpdata", *options, exclude=["sfdc", "pghistory"], output=str(file), verbosity=0)
    assert '"hc_signals.triggerlog"' in file.read_text()
    for log_model in (TriggerLog, TriggerLogArchive):
        as_the_app(f"DROP TABLE {quoted_table(log_model)} CASCADE")
    call_command("dumpdata", *options, exclude=["sfdc", "pghistory"], output=str(file), verbosity=0)
    assert '"hc_signals.triggerlog' not in file.read_text()
