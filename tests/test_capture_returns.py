"""Every way in which capture stops and starts again, with the cause and the reread that docs/drift.md promises."""

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from example.crm.models import Account

from hc_signals import signals
from hc_signals.capture import orphans
from hc_signals.capture.function import function_name, function_sql
from hc_signals.capture.function_columns import Layout
from hc_signals.capture.install import install_capture, install_sql, run_in_turn
from hc_signals.capture.reloads import finish_reloads
from hc_signals.capture.repairing import Repairs
from hc_signals.capture.rereading import Rereading
from hc_signals.capture.status import find_tables, status_of
from hc_signals.conf import Conf
from hc_signals.delivery.shard import Shard
from hc_signals.models import Change
from hc_signals.postgres.moments import now
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker
from tests.conftest import as_heroku_connect, as_the_app, deliver, in_utc
from tests.pages import ROOT

TABLE = "salesforce.account"
CAPTURE = function_name(Account)
WITHOUT_ACCOUNT = [model for model in connected_models() if model is not Account]
Step = Callable[[HerokuConnect], Any]


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("hc_triggers", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def look(**conf: Any) -> None:
    """Check, repair and reread as a worker that has just started."""
    Repairs("default", Conf(**conf), connected_models()).run()
    Rereading("default", connected_models()).read_for(30)


def source() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", [CAPTURE])
        return str(cursor.fetchone()[0])


def replace_function(body: str) -> None:
    as_the_app(
        f"CREATE OR REPLACE FUNCTION public.{CAPTURE}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $hc_edited$ {body} $hc_edited$"
    )


def without_account(heroku: HerokuConnect) -> None:
    Worker("default", Conf(), WITHOUT_ACCOUNT).deliver_once()


def older_function(heroku: HerokuConnect) -> None:
    columns = tuple(c for c in find_tables([Account], "default")[0].layout(Account).columns if c != "name")
    for statement in function_sql(Account, Layout(columns)):
        as_the_app(statement)


def recreate_schema(heroku: HerokuConnect) -> None:
    heroku.drop_schemas()
    heroku.create_tables()


def set_reload_aware(value: bool) -> Step:
    def step(heroku: HerokuConnect) -> None:
        settings.HC_SIGNALS = {"RELOAD_AWARE": value}
        look()

    return step


def set_origins(*rules: Any) -> Step:
    def step(heroku: HerokuConnect) -> None:
        settings.HC_SIGNALS = {"ORIGINS": list(rules)}

    return step


def create_by_another_tool(heroku: HerokuConnect) -> str:
    at = in_utc(now())
    columns = "sfid, createddate, systemmodstamp"
    insert = f"INSERT INTO salesforce.account ({columns}) VALUES ('x', %s, %s)"
    as_the_app(f"SET LOCAL application_name = 'airbyte'; {insert}", [at, at])
    return "x"


def write_as_replica(heroku: HerokuConnect) -> None:
    as_heroku_connect("SET LOCAL session_replication_role = replica; UPDATE salesforce.account SET name = 'replica'")


def nothing(heroku: HerokuConnect) -> None:
    """Do nothing: the worker repairs it."""


def create(heroku: HerokuConnect) -> str:
    return heroku.create(Account, 1)[0]


def create_in_renamed(heroku: HerokuConnect) -> str:
    at = in_utc(now())
    columns = "sfid, createddate, systemmodstamp"
    as_heroku_connect(f"INSERT INTO salesforce.account_away ({columns}) VALUES ('away', %s, %s)", [at, at])
    return "away"


@dataclass(frozen=True)
class Way:
    """Capture stops, a record changes, capture starts again; then a worker checks."""

    off: Step
    back: Step = nothing
    change: Callable[[HerokuConnect], str] = create
    """Changes a record and returns its sfid."""


def sql(statement: str) -> Step:
    return lambda heroku: as_the_app(statement)


def triggers_command(*arguments: str) -> Step:
    return lambda heroku: command(*arguments)


WAYS = {
    "`hc_triggers pause`, then `resume`": Way(triggers_command("pause"), triggers_command("resume")),
    "`hc_triggers pause --remove`, then `resume`": Way(
        triggers_command("pause", "--remove"), triggers_command("resume")
    ),
    "`hc_triggers uninstall crm.Account`, then `install`": Way(
        triggers_command("uninstall", "crm.Account"), triggers_command("install")
    ),
    "`hc_triggers uninstall --all`, then `install`": Way(
        triggers_command("uninstall", "--all"), triggers_command("install")
    ),
    "`hc_triggers uninstall`, then the output of `hc_triggers sql` by hand": Way(
        triggers_command("uninstall", "crm.Account"),
        lambda heroku: run_in_turn("default", lambda: install_sql(Account)),
    ),
    "a model is removed from the code, its capture by `hc_triggers uninstall --orphans`, "
    "and the model is added again": Way(lambda heroku: orphans.remove(WITHOUT_ACCOUNT, "default")),
    "a model is removed from the code and added again, its capture stays": Way(nothing, without_account),
    "a trigger is missing, or was created again by hand": Way(
        sql(f"DROP FUNCTION public.{CAPTURE} CASCADE"), lambda heroku: install_capture(Account, "default")
    ),
    "a trigger is disabled, or was (a silent reload), or was replaced by hand": Way(
        sql("ALTER TABLE salesforce.account DISABLE TRIGGER ALL"),
        sql("ALTER TABLE salesforce.account ENABLE TRIGGER ALL"),
    ),
    "the function was altered, or a trigger calls another function": Way(
        lambda heroku: replace_function("BEGIN RETURN NULL; END"), triggers_command("install")
    ),
    "the function lacks a column that model and table have": Way(older_function),
    "the table is renamed, written to, and renamed back": Way(
        sql("ALTER TABLE salesforce.account RENAME TO account_away"),
        sql("ALTER TABLE salesforce.account_away RENAME TO account"),
        create_in_renamed,
    ),
    "another table has the same name": Way(lambda heroku: heroku.recreate_table(Account)),
    "the schema is dropped and created again": Way(recreate_schema),
    "the table has another file, and no `TRUNCATE` is in the log: a silent reload, `VACUUM FULL`, `CLUSTER`, or an "
    "`ALTER TABLE` that rewrites the table": Way(sql("TRUNCATE salesforce.account")),
    "`RELOAD_AWARE` is changed": Way(set_reload_aware(False), set_reload_aware(True)),
    "`ORIGINS` gets a rule that the triggers lack, after its tool has begun to write": Way(
        nothing, set_origins("heroku_connect", {"application_name": "airbyte"}), create_by_another_tool
    ),
    "the function was generated by another release or for other fields, but covers every column": Way(
        sql(f"ALTER FUNCTION public.{CAPTURE}() SET lock_timeout = '9s'")
    ),
    "a session with `session_replication_role = replica`": Way(write_as_replica),
}
LEFT_OUT = {
    "`migrate hc_signals zero`, then `migrate` and `hc_triggers install`": "tests/test_install.py",
    "the database is restored from a dump, or copied": "tests/test_restore.py",
    "`ORIGINS` loses a rule, or has its rules in another order": "tests/test_origins.py",
    "an unlogged table, emptied by a crash of the server or a failover": "tests/test_kinds_of_tables.py",
}


def documented() -> dict[str, tuple[str | None, bool]]:
    """Return the table of docs/drift.md: by way the cause (None: no gap), and True if rows are read again."""
    page = (ROOT / "docs" / "drift.md").read_text(encoding="utf-8")
    table = page.partition("<!-- ways -->")[2].partition("<!-- end of ways -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.strip().splitlines()[2:]]
    return {way: (None if cause == "no gap" else cause.strip("`"), again == "yes") for way, cause, again in rows}


def test_docs_list_every_way() -> None:
    assert set(documented()) == {*WAYS, *LEFT_OUT}


@pytest.mark.fault(
    "capture stops and starts again, in any of the ways of `docs/drift.md`",
    outcome="gap, and changed rows are read again; or nothing was missed",
)
@pytest.mark.parametrize("way", WAYS)
def test_change_without_capture_is_reported_or_captured(
    captured: HerokuConnect, connect: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a gap that spans the change and by a reread, or as an ordinary change; docs/drift.md says which."""
    monkeypatch.setattr(settings, "HC_SIGNALS", {}, raising=False)  # to restore it at the end
    cause, is_reread = documented()[way]
    captured.create(Account, 1)
    look()
    deliver()
    gaps: list[Any] = []
    heard: list[tuple[str, str]] = []
    connect(signals.gap_detected, lambda event, **kwargs: gaps.append(event), Account)
    connect(signals.record_changed, lambda event, **kwargs: heard.append((event.record_id, event.change_type)), Account)
    WAYS[way].off(captured)
    before = now()
    sfid = WAYS[way].change(captured)
    after = now()
    WAYS[way].back(captured)
    look()
    look()
    deliver()
    assert [gap.cause for gap in gaps] == ([cause] if cause else [])
    assert status_of(Account, "default").state == "installed"
    # The gap of a missing model begins exactly with the first skipped change.
    assert all(gap.since <= (after if cause == "model_missing" else before) for gap in gaps)
    assert all(gap.until >= after for gap in gaps)
    again = {change_type for record, change_type in heard if record == sfid and change_type.startswith("GAP_")}
    # The row was created before the gap, so the reread cannot know that it is new.
    assert again == ({"GAP_UPDATE" if cause == "model_missing" else "GAP_CREATE"} if is_reread else set())
    assert is_reread or (sfid, "CREATE") in heard, "captured"


def test_missing_model_is_a_gap_for_its_consumer_only(captured: HerokuConnect, connect: Any) -> None:
    """Another service on the same database has the model, and receives each change."""
    heard: list[tuple[str, str]] = []
    worker = Worker("default", Conf(CONSUMER="other"))
    worker.deliver_once()
    without_account(captured)
    captured.create(Account, 1)
    without_account(captured)
    Repairs("default", Conf(CONSUMER="other"), connected_models()).run()
    assert Change.objects.filter(operation="GAP").count() == 0, "the other consumer misses nothing"
    look()
    look()
    connect(signals.gap_detected, lambda event, **kwargs: heard.append(("gap", event.cause)), Account)
    deliver()
    assert heard == [("gap", "model_missing")]
    worker.deliver_once()
    assert heard == [("gap", "model_missing")]


def test_rolled_back_page_keeps_the_gap_of_a_missing_model(captured: HerokuConnect) -> None:
    """The skipped changes are recorded in the page's transaction, so the second attempt records them again."""
    captured.create(Account, 1)
    worker = Worker("default", Conf(), WITHOUT_ACCOUNT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shard, "_advance", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            worker.deliver_once()
    worker.deliver_once()
    look()
    assert [change.note["cause"] for change in Change.objects.filter(operation="GAP")] == ["model_missing"]


def test_reload_aware_can_change_during_a_reload(captured: HerokuConnect, settings: Any, connect: Any) -> None:
    """Records that come back before the change send nothing; later ones, and missing ones, send their change."""
    heard: list[tuple[str, str]] = []
    sfids = captured.create(Account, 20)
    look()
    deliver()
    connect(signals.record_changed, lambda event, **kwargs: heard.append((event.change_type, event.record_id)), Account)
    connect(signals.gap_detected, lambda event, **kwargs: heard.append(("GAP", event.cause)), Account)
    as_heroku_connect("CREATE TABLE public.kept AS SELECT * FROM salesforce.account")
    as_heroku_connect("DELETE FROM kept WHERE sfid = %s", [sfids[19]])
    try:
        as_heroku_connect("TRUNCATE salesforce.account")
        as_heroku_connect("INSERT INTO salesforce.account SELECT * FROM kept WHERE sfid < %s", [sfids[5]])
        settings.HC_SIGNALS = {"RELOAD_AWARE": False}
        look()
        as_heroku_connect("INSERT INTO salesforce.account SELECT * FROM kept WHERE sfid = %s", [sfids[5]])
        settings.HC_SIGNALS = {}
        look()
        as_heroku_connect(
            "INSERT INTO salesforce.account SELECT * FROM public.kept WHERE sfid BETWEEN %s AND %s", sfids[6:19:12]
        )
    finally:
        as_heroku_connect("DROP TABLE public.kept")
    as_the_app("UPDATE public.hc_signals_reload SET cleared_at = cleared_at - interval '1 day'")
    as_the_app("UPDATE public.hc_signals_refill SET at = at - interval '1 day'")
    finish_reloads("default", Conf())
    deliver()
    assert heard == [("CREATE", sfids[5]), ("DELETE", sfids[19])]
