"""The check, hc_listen and hc_status name models without a receiver, whose changes are counted."""

from collections.abc import Callable
from typing import Any

import pytest
from example.crm.models import Account, CompoundModel, Contact, SFObjectModel

from hc_signals import signals
from hc_signals.checks import project
from hc_signals.conf import Conf
from hc_signals.delivery.listeners import unheard_models
from hc_signals.delivery.routing import SIGNALS
from hc_signals.observability.judge import examine
from hc_signals.tables import connected_models
from hc_signals.testing import HerokuConnect
from hc_signals.worker.loop import Worker
from tests.conftest import as_the_app
from tests.sfdc.models import EverythingProxy, User
from tests.test_metrics import counted  # noqa: F401  (a fixture)
from tests.test_worker_process import start


@pytest.fixture(autouse=True)
def no_receivers(disconnected: None) -> None:
    for signal in SIGNALS.values():
        signal.receivers = []
        signal.sender_receivers_cache.clear()


def receive(**kwargs: Any) -> None: ...


def lines(using: str = "default") -> list[tuple[str, str, str]]:
    """Return the lines of hc_status about receivers: verdict, text, problem."""
    found = examine(using, Conf(), ask_heroku=False)
    return [(str(each.verdict), each.text, each.problem) for each in found if each.name == "receivers"]


def test_receivers_of_proxies_and_children_count() -> None:
    assert unheard_models(Conf()) == connected_models()
    signals.record_created.connect(receive, sender=EverythingProxy)
    signals.record_deleted.connect(receive, sender=CompoundModel)
    signals.gap_detected.connect(receive)
    heard = set(connected_models()) - set(unheard_models(Conf()))
    assert {model._meta.label for model in heard} == {"sfdc.Everything", "crm.SFObjectModel"}
    assert Account not in unheard_models(Conf(APPLY_ON_DELETE=True))
    signals.record_changed.connect(receive)
    assert unheard_models(Conf()) == []


def test_check_names_the_apps_without_receivers() -> None:
    def found() -> list[str]:
        return [message.msg for message in project.check_unheard()]

    assert found() == [
        "No receiver is connected to any model of the app 'crm' (crm.Account, crm.Contact, crm.Project, "
        "crm.SFObjectModel): their changes reach no receiver.",
        "No receiver is connected to any model of the app 'sfdc' (sfdc.User, sfdc.Everything, sfdc.Animal, sfdc.Dog, "
        "sfdc.Wide, sfdc.Visit): their changes reach no receiver.",
    ]
    signals.record_created.connect(receive, sender=Account)
    assert len(found()) == 1, "an app in which one model has a receiver is left out"
    signals.record_updated.connect(receive, sender=User)
    assert found() == []


def test_status_has_a_line_of_receivers_for_each_model(captured: HerokuConnect) -> None:
    assert {(verdict, problem) for verdict, _, problem in lines()} == {("warn", "receivers-none")}
    for number in range(5):
        signals.record_created.connect(receive, sender=Account, dispatch_uid=f"{number}")
    assert len(lines()) == len(connected_models())
    name = f"{__name__}.receive"
    assert lines()[0] == ("ok", f"crm.Account: {name}#0, {name}#1, {name}#2 and 2 more", "")
    assert lines()[1] == ("ok", "crm.Contact: none, its changes reach no receiver", "")


def test_changes_without_a_receiver_are_counted(
    captured: HerokuConnect,
    counted: Callable[..., Any],  # noqa: F811
) -> None:
    signals.record_created.connect(receive, sender=Account)
    captured.create(Account, 2)
    captured.create(Contact, 3)
    as_the_app(
        "INSERT INTO hc_signals_change (table_name, operation, origin, note) "
        """VALUES ('salesforce.contact', 'GAP', 'heroku_connect', '{"cause": "paused"}')"""
    )
    worker = Worker("default", Conf())
    worker.deliver_once()
    assert (worker.delivered, worker.unheard) == (6, 3)
    assert counted("changes_unheard_total", model="crm.Contact") == 3
    assert counted("changes_unheard_total", model="crm.Account") is None
    assert worker.pulse.tally is None


def test_changes_of_a_page_that_is_cut_short_are_counted_once(captured: HerokuConnect) -> None:
    captured.create(SFObjectModel, 7)
    worker = Worker("default", Conf(MAX_TRANSACTION_SECONDS=0.000001))
    worker.deliver_once()
    assert (worker.delivered, worker.unheard) == (7, 7)


def test_hc_listen_names_the_models_without_a_receiver(captured: HerokuConnect) -> None:
    captured.create(Account, 2)
    process = start("hc_listen", "--once", FORGOTTEN_RECEIVERS="1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "No receiver is connected for crm.Account, crm.Contact, crm.Project, " in output
    assert "import the module with the receivers in ready() of its AppConfig." in output
    assert "hc_listen: 2 changes delivered, 2 of them to no receiver; stopped." in output


def test_hc_listen_is_silent_if_all_models_have_receivers(captured: HerokuConnect) -> None:
    captured.create(Account, 2)
    output, _ = start("hc_listen", "--once").communicate(timeout=60)
    assert "o receiver" not in output
    assert "hc_listen: 2 changes delivered; stopped." in output
