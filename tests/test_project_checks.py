"""System checks of a project: each problem has its id, a healthy project has none, and docs/checks.md lists them."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pgtrigger
import pytest
from django.contrib import admin
from django.core import checks
from django.db import connection, connections
from django.db.models.signals import post_delete, post_save
from django.test import override_settings
from example.crm.models import Account, CompoundModel, Contact, Project, Seen

from hc_signals.capture.triggers import TRIGGERS
from hc_signals.checks import ALL, database
from hc_signals.db.models import HerokuConnectModel
from hc_signals.signals import record_updated
from hc_signals.testing import HerokuConnect
from tests.sfdc.models import EverythingProxy, User

pytestmark = pytest.mark.usefixtures("disconnected")

ROOT = Path(__file__).parent.parent
PREFIX = "hc_signals."


def found(**kwargs: Any) -> list[tuple[str, str]]:
    messages = [(str(message.id), message.msg) for message in checks.run_checks(**kwargs)]
    return [(check_id.removeprefix(PREFIX), said) for check_id, said in messages if check_id.startswith(PREFIX)]


def receive(**kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"SHARD": 1}, "HC_SIGNALS has the unknown key 'SHARD'; did you mean 'SHARDS'?"),
        ({"BATCH_SIZE": "x"}, "HC_SIGNALS['BATCH_SIZE'] is 'x'; expected int, for example 1000."),
        *(
            ({key: ["crm.Missing"]}, f"HC_SIGNALS[{key!r}] names 'crm.Missing', which is no connected model")
            for key in ("DJANGO_SIGNALS", "APPLY_ON_DELETE", "RELOAD_AWARE")
        ),
    ],
)
def test_e001_reports_a_wrong_setting(setting: dict[str, Any], message: str) -> None:
    with override_settings(HC_SIGNALS=setting):
        ((check_id, said),) = found()
    assert check_id == "E001"
    assert said.startswith(message)


def test_w001_reports_receivers_that_are_never_called() -> None:
    for sender in (Seen, HerokuConnectModel, Account, EverythingProxy, CompoundModel, None, instance := Account()):
        record_updated.connect(receive, sender=sender)
    path = "tests.test_project_checks.receive is connected to record_updated of"
    assert sorted(found()) == [
        ("W001", f"{path} a sender that is not a model class, perhaps an instance: it is never called."),
        ("W001", f"{path} example.crm.models.Seen, which is not a connected model: it is never called."),
        ("W001", f"{path} hc_signals.db.models.base.HerokuConnectModel, which is abstract: it is never called."),
    ]
    assert instance, "Django keeps its id() only"


def test_w002_reports_receivers_of_djangos_own_signals() -> None:
    for sender in (Account, EverythingProxy, CompoundModel, Seen, None):
        post_save.connect(receive, sender=sender)
    post_delete.connect(receive, sender=Account)
    names = [re.findall(r"Django's (\w+) of ([\w.]+)", message)[0] for check_id, message in found()]
    assert sorted(names) == [
        ("post_delete", "crm.Account"),
        ("post_save", "crm.Account"),
        ("post_save", "sfdc.EverythingProxy"),
    ]
    with override_settings(HC_SIGNALS={"DJANGO_SIGNALS": ["crm.Account", "sfdc.Everything"]}):
        assert found() == []


@pytest.mark.parametrize(
    ("database", "sign"),
    [
        ({"PORT": "6432"}, "port 6432"),
        ({"HOST": "my-pgbouncer.internal"}, "my-pgbouncer.internal"),
        ({"HOST": "ec2.example.com", "PORT": 5433}, "DATABASE_CONNECTION_POOL_URL"),
        ({"OPTIONS": {"pool": True}}, "OPTIONS['pool'] lends 4 connections, fewer than SHARDS = 8"),
        ({"OPTIONS": {"pool": {"max_size": 8}}}, ""),
        ({"HOST": "ec2.example.com", "PORT": "5432"}, ""),
    ],
    ids=str,
)
def test_w003_reports_a_pooler(database: dict[str, Any], sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_CONNECTION_POOL_URL", "postgres://u:p@ec2.example.com:5433/d")
    monkeypatch.setattr(connections["default"], "settings_dict", {**connection.settings_dict, **database})
    with override_settings(HC_SIGNALS={"SHARDS": 8}):
        messages = found()
    assert [check_id for check_id, _ in messages] == ["W003"] * bool(sign)
    assert all(sign in message for _, message in messages)


def test_w003_one_direct_alias_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled = {**connection.settings_dict, "PORT": "6432"}
    monkeypatch.setitem(connections.settings, "pooled", pooled)
    assert found() == []
    monkeypatch.setattr(connections["default"], "settings_dict", pooled)
    assert [check_id for check_id, _ in found()] == ["W003", "W003"]


class FirstRouter:
    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


@pytest.mark.parametrize(
    "routers", [[], ["tests.test_project_checks.FirstRouter", "hc_signals.db.router.HerokuConnectRouter"]]
)
def test_w004_reports_a_missing_router(routers: list[str]) -> None:
    with override_settings(DATABASE_ROUTERS=routers):
        ((check_id, message),) = found()
    assert check_id == "W004"
    assert "crm.Account" in message
    assert "crm.Contact" not in message


def test_w005_reports_an_admin_that_offers_writes() -> None:
    class ProjectInline(admin.TabularInline[Any, Any]):
        model = Project

        def has_delete_permission(self, *args: Any, **kwargs: Any) -> bool:
            return False

    class ContactAdmin(admin.ModelAdmin[Any]):
        inlines = [ProjectInline]

    site = admin.AdminSite("other")
    site.register(User)
    site.register(Contact, ContactAdmin)
    messages = found()
    site.unregister([User, Contact])  # all_sites has every site that is not collected yet
    assert [check_id for check_id, _ in messages] == ["W005", "W005"]
    assert "ModelAdmin lets users add, change, delete records of sfdc.User, which is read-only" in messages[0][1]
    assert "ProjectInline lets users add, change records of crm.Project" in messages[1][1]


def test_w006_reports_a_retention_below_the_poll_interval() -> None:
    with override_settings(HC_SIGNALS={"RETENTION_HOURS": 0.5, "POLL_INTERVAL": 3600}):
        ((check_id, message),) = found()
    assert check_id == "W006"
    assert "RETENTION_HOURS'] is 0.5, shorter than POLL_INTERVAL (3600 seconds)" in message


class Box:
    def take(self, **kwargs: Any) -> None: ...


def test_w011_reports_receivers_that_share_a_name() -> None:
    boxes = [Box(), Box(), Box()]
    record_updated.connect(boxes[0].take, sender=Account)
    record_updated.connect(boxes[1].take, sender=Contact)
    assert found() == []
    record_updated.connect(boxes[2].take, sender=Account)
    ((check_id, message),) = found()
    assert check_id == "W011"
    assert message.startswith("2 receivers of crm.Account share the name tests.test_project_checks.Box.take:")
    record_updated.disconnect(boxes[2].take, sender=Account)
    record_updated.connect(boxes[2].take, sender=Account, dispatch_uid="box 2")
    assert found() == []


def test_w012_reports_a_table_that_django_manages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found() == []
    monkeypatch.setattr(Seen, "sf_object_name", "Seen__c", raising=False)
    ((check_id, message),) = found()
    assert check_id == "W012"
    assert message.startswith("crm.Seen has an sf_object_name, but Django manages its table")


def test_w016_reports_triggers_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = pgtrigger.Protect(name="keep", operation=pgtrigger.Delete)
    monkeypatch.setattr(Seen._meta, "triggers", [trigger], raising=False)
    assert found() == []
    monkeypatch.setattr(Account._meta, "triggers", [trigger], raising=False)
    ((check_id, message),) = found()
    assert check_id == "W016"
    assert message.startswith("crm.Account has triggers of django-pgtrigger (keep). `pgtrigger install` skips them")
    with override_settings(DATABASE_ROUTERS=[], SILENCED_SYSTEM_CHECKS=["hc_signals.W004"]):
        assert "W016" not in [check_id for check_id, _ in found()]


def test_w007_and_w008_report_missing_log_and_capture(captured: HerokuConnect) -> None:
    assert found(databases=["default"]) == []
    assert found() == []
    captured.recreate_table(Account)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE salesforce.contact DISABLE TRIGGER {TRIGGERS[0].get_pgid(Contact)}")
    assert [(check_id, message.split(" are not ")[0]) for check_id, message in found(databases=["default"])] == [
        ("W008", "Changes of salesforce.account on 'default'"),
        ("W008", "Changes of salesforce.contact on 'default'"),
    ]
    assert found(tags=["hc_signals"]) == found() == []
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE public.hc_signals_change RENAME TO elsewhere")
    try:
        assert [check_id for check_id, _ in found(databases=["default"])] == ["W007"]
        captured.drop_schemas()
        assert found(databases=["default"]) == []
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE public.elsewhere RENAME TO hc_signals_change")


def test_w009_reports_a_database_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any) -> None:
    monkeypatch.setitem(connections.settings, "nowhere", {**connection.settings_dict, "NAME": "no_such_database"})
    with django_db_blocker.unblock():
        (message,) = database.check_capture(databases=["nowhere"])
    assert message.id == "hc_signals.W009"
    assert message.msg.startswith("The database 'nowhere' could not be checked: ")
    assert "no_such_database" in message.msg


def test_docs_list_each_id_once() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hc_signals").rglob("*.py"))
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    listed = Counter(re.findall(r"^\| `(hc_signals\.[EW]\d+)` \| .+ \| .+ \|$", page, re.M))
    assert set(listed.values()) == {1}
    assert set(listed) == set(re.findall(r'"(hc_signals\.[EW]\d+)"', code))


def test_all_checks_are_registered() -> None:
    registered = checks.registry.registry.get_checks()
    assert {check for check, _ in ALL} <= set(registered)
