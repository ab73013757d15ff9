"""hc_deliveries lists, shows, retries and discards failed deliveries."""

import io
import re
import shlex
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from hc_signals import signals
from hc_signals.delivery.stored import Choice
from hc_signals.models import Delivery
from hc_signals.testing import HerokuConnect
from tests.conftest import deliver
from tests.sfdc.models import User


def command(*arguments: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command("hc_deliveries", *arguments, stdout=out, **options)
    return out.getvalue()


class Receiver:
    failing = True
    done: list[str] = []

    def __call__(self, instance: Any, **kwargs: Any) -> None:
        if self.failing:
            raise ValueError("no")
        self.done.append(instance.username)


@pytest.fixture
def receiver(captured: HerokuConnect, connect: Any) -> Receiver:
    """Two records with a dead or a retried delivery each; a parked one is behind the first."""
    found = Receiver()
    found.done = []
    connect(signals.record_changed, found, User)
    sfids = captured.insert(User, {"username": "a"}, {"username": "b"})
    captured.update(User, sfids[0], username="A")
    deliver()
    return found


def test_list_and_show_print_deliveries(receiver: Receiver) -> None:
    listed = command("list").splitlines()
    assert listed[-1] == "3 deliveries"
    assert "tests.test_deliveries_command.Receiver (record_changed): ValueError" in listed[0]
    assert "parked" in listed[2]
    assert "waits for an earlier one" in listed[2]
    assert command("list", limit=1).splitlines()[-1] == "3 deliveries, 1 shown"
    assert command("list", state="parked").splitlines()[-1] == "1 deliveries"
    assert command("list", model="sfdc.Nothing") == "0 deliveries\n"
    first = Delivery.objects.first()
    assert first is not None
    shown = command("show", str(first.id), values=True)
    assert "ValueError: no" in shown
    assert "'username': 'a'" in shown


def test_show_quotes_no_value_unless_asked(receiver: Receiver) -> None:
    first, second = Delivery.objects.order_by("id")[0], Delivery.objects.order_by("id")[2]
    shown = command("show", str(first.pk))
    assert f"    delivery: {first.pk}, retry\n" in shown
    assert f"      record: sfdc.User {first.record_id}\n" in shown
    assert "    attempts: 1 of 10, 9 left\n" in shown
    assert re.search(r"next attempt: 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d C[SD]T\n", shown), shown
    assert '       error: ValueError\n   traceback: \n  File "' in shown
    assert 'raise ValueError("no")' in shown, "the line of the source"
    assert "ValueError: no" not in shown and "username': 'a'" not in shown
    assert "next attempt: after an earlier delivery of the record" in command("show", str(second.pk))
    Delivery.objects.filter(pk=first.pk).update(state="dead", attempt=10, next_attempt_at=None)
    shown = command("show", str(first.pk))
    assert "10 of 10, 0 left" in shown
    assert f"next attempt: none, unless by `manage.py hc_deliveries retry {first.pk}`" in shown


def test_retry_makes_deliveries_due(receiver: Receiver) -> None:
    receiver.failing = False
    assert "2 deliveries are due now" in command("retry", all=True)
    deliver()
    assert receiver.done == ["a", "b", "A"] or receiver.done == ["a", "A", "b"]
    assert Delivery.objects.count() == 0


def test_dead_delivery_gets_its_attempts_again(receiver: Receiver) -> None:
    Delivery.objects.filter(state="retry").update(state="dead", attempt=10)
    receiver.failing = False
    command("retry", state="dead")
    deliver()
    assert sorted(receiver.done) == ["A", "a", "b"]


def test_discard_releases_parked_deliveries(receiver: Receiver) -> None:
    first = Delivery.objects.first()
    assert first is not None
    assert command("discard", str(first.id)) == "1 deliveries discarded.\n"
    receiver.failing = False
    deliver()
    assert receiver.done == ["A"]
    command("discard", receiver="tests.test_deliveries_command.Receiver")
    assert Delivery.objects.count() == 0


def test_errors_are_listed_and_chosen_by_their_kind(receiver: Receiver) -> None:
    path = "tests.test_deliveries_command.Receiver"
    Delivery.objects.filter(state="retry").update(error="ValueError: order 17 of 2026-11-29\nTraceback")
    listed = command("errors")
    assert f"2 sfdc.User -> {path}: 2 retry, 0 dead, first failed from" in listed
    assert "ValueError: order # of #-#-#\n1 kinds of errors" in listed
    assert command("list", error="ValueError: order # of #-#-#").splitlines()[-1] == "2 deliveries"
    assert command("list", error="ValueError: order # of #-#-#", consumer="no").splitlines()[-1] == "0 deliveries"
    assert command("discard", error="ValueError: order # of #-#-#") == "2 deliveries discarded.\n"
    assert Delivery.objects.get().state == "retry", "the parked one is released"


def test_command_of_a_choice_chooses_the_same(receiver: Receiver) -> None:
    """The admin prints these command lines: a shell splits them, and the command finds the same deliveries."""
    first = Delivery.objects.first()
    assert first is not None
    for choice in (
        Choice(ids=[first.id]),
        Choice(receiver=first.receiver, sender="sfdc.User", error="ValueError: no", state="retry", consumer="default"),
    ):
        _, _, *words = shlex.split(choice.command("list"))
        assert command(*words).splitlines()[-1] == f"{choice.deliveries('default').count()} deliveries"
    assert Choice().command("retry") == "manage.py hc_deliveries retry --all"


@pytest.mark.parametrize(
    ("arguments", "options", "message", "code"),
    [
        (["show", "999999"], {}, "There is no delivery 999999", 1),
        (["show"], {}, "No id was given", 2),
        (["retry"], {}, "or say --all", 2),
        (["discard"], {}, "or say --all", 2),
        (["list"], {"database": "nope"}, "'nope' doesn't exist", 1),
    ],
)
def test_mistakes(receiver: Receiver, arguments: list[str], options: dict[str, Any], message: str, code: int) -> None:
    with pytest.raises(CommandError, match=message) as error:
        command(*arguments, **options)
    assert error.value.returncode == code
    assert Delivery.objects.count() == 3
