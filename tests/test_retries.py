"""A failing receiver is retried alone. Later changes of the record wait in order; all other changes are delivered."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.db.models.signals import post_save

from hc_signals import signals
from hc_signals.capture.install import install_capture
from hc_signals.conf import Conf
from hc_signals.delivery.failures import FailureStore
from hc_signals.exceptions import RedeliveryError
from hc_signals.log.claims import claim_all
from hc_signals.log.position import LogShard
from hc_signals.models import Change, Delivery
from hc_signals.testing import HerokuConnect
from tests.conftest import as_heroku_connect, as_the_app, deliver
from tests.sfdc.models import Animal, Dog, Everything, EverythingProxy, User


class Flaky:
    """A receiver that fails while ``failing`` is True; it records its calls and the events that it accepted."""

    def __init__(self) -> None:
        self.failing = True
        self.calls: list[Any] = []
        self.done: list[Any] = []

    def __call__(self, event: Any = None, instance: Any = None, events: Any = (), **kwargs: Any) -> None:
        arrived = [(e.change_type, e.instance.username, e.attempt) for e in events or [event]]
        self.calls += arrived
        if self.failing:
            raise ValueError("not yet")
        self.done += arrived


@pytest.fixture
def flaky() -> Flaky:
    return Flaky()


def deliver_all(**conf: Any) -> None:
    """Deliver and retry until nothing is due."""
    for _ in range(50):
        deliver(RETRY_SECONDS=0.0001, RETRY_MAX_SECONDS=0.0001, **conf)


def states() -> list[tuple[str, int]]:
    return list(Delivery.objects.values_list("state", "attempt"))


def test_only_the_failing_receiver_is_called_again(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    others: list[str] = []
    connect(signals.record_created, flaky, User)
    connect(signals.record_created, lambda instance, **kwargs: others.append(instance.username), User)
    captured.insert(User, username="a")
    deliver(RETRY_SECONDS=0.0001)
    assert states() == [("retry", 1)]
    flaky.failing = False
    deliver_all()
    assert flaky.done == [("CREATE", "a", 2)]
    assert others == ["a"]
    assert states() == []


def test_later_changes_of_a_failed_record_wait_in_order(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    seen: list[Any] = []
    connect(signals.record_changed, flaky, User)
    connect(signals.record_changed, lambda instance, **kwargs: seen.append(instance.username), User)
    (sfid,) = captured.insert(User, username="a")
    deliver()
    captured.update(User, sfid, username="b")
    captured.update(User, sfid, username="c")
    deliver()
    assert states() == [("retry", 1), ("parked", 0), ("parked", 0)]
    assert len(flaky.calls) == 1, "not called for later changes"
    flaky.failing = False
    captured.insert(User, username="other")
    deliver()
    assert flaky.done == [("CREATE", "other", 1)], "another record of the same receiver does not wait"
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now() WHERE state = 'retry'")
    captured.delete(User, sfid)
    deliver_all()
    assert flaky.done[1:] == [("CREATE", "a", 2), ("UPDATE", "b", 1), ("UPDATE", "c", 1), ("DELETE", "c", 1)]
    assert seen == ["a", "b", "c", "other", "c"]
    assert states() == []


def test_record_goes_on_after_the_last_attempt(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    def only_a_fails(instance: Any, **kwargs: Any) -> None:
        flaky.failing = instance.username == "a"
        flaky(instance=instance, **kwargs)

    connect(signals.record_changed, only_a_fails, User)
    (sfid,) = captured.insert(User, username="a")
    captured.update(User, sfid, username="b")
    deliver_all(MAX_ATTEMPTS=3)
    assert [attempt for kind, name, attempt in flaky.calls if name == "a"] == [1, 2, 3]
    assert flaky.done == [("UPDATE", "b", 1)]
    assert states() == [("dead", 3)]
    (dead,) = Delivery.objects.all()
    assert dead.error.startswith("ValueError: not yet\n")
    assert "in __call__" in dead.error
    assert (dead.receiver, dead.signal, dead.sender) == (
        "tests.test_retries.test_record_goes_on_after_the_last_attempt.<locals>.only_a_fails",
        "record_changed",
        "sfdc.User",
    )


def test_single_attempt_leaves_the_delivery_dead(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    connect(signals.record_changed, flaky, User)
    (sfid,) = captured.insert(User, username="a")
    captured.update(User, sfid, username="b")
    deliver_all(MAX_ATTEMPTS=1)
    assert states() == [("dead", 1), ("dead", 1)]


def test_backoff_doubles_and_is_capped(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    connect(signals.record_created, flaky, User)
    captured.insert(User, username="a")
    waits = []
    for _ in range(5):
        deliver(RETRY_SECONDS=100.0, RETRY_MAX_SECONDS=400.0)
        (kept,) = Delivery.objects.extra(select={"wait": "extract(epoch FROM next_attempt_at - clock_timestamp())"})
        waits.append(float(kept.wait))
        as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp()")
    for wait, longest in zip(waits, [100, 200, 400, 400, 400], strict=True):
        assert longest * 0.45 < wait <= longest


def test_writes_of_a_failed_retry_are_rolled_back(captured: HerokuConnect, connect: Any) -> None:
    def bad(**kwargs: Any) -> None:
        from tests.sfdc.models import Note

        Note.objects.create(text="half")
        raise ValueError("no")

    connect(signals.record_created, bad, User)
    captured.insert(User, username="a")
    deliver_all(MAX_ATTEMPTS=4)
    from tests.sfdc.models import Note

    assert Note.objects.count() == 0
    assert states() == [("dead", 4)]


def test_bulk_receivers_are_retried_per_record(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    connect(signals.records_changed, flaky, User)
    sfids = captured.insert(User, {"username": "a"}, {"username": "b"})
    deliver()
    assert states() == [("retry", 1), ("retry", 1)]
    flaky.failing = False
    captured.update(User, sfids[0], username="A")
    captured.insert(User, username="c")
    deliver()
    assert flaky.done == [("CREATE", "c", 1)]
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now() WHERE state = 'retry'")
    deliver_all()
    assert flaky.done[1:] == [("CREATE", "a", 2), ("CREATE", "b", 2), ("UPDATE", "A", 1)]


def test_djangos_signals_proxies_and_gaps_are_retried(captured: HerokuConnect, connect: Any, settings: Any) -> None:
    settings.HC_SIGNALS = {"RELOAD_AWARE": False}
    install_capture(Everything, "default")
    failing = True
    done: list[Any] = []

    def receiver(sender: Any, instance: Any = None, **kwargs: Any) -> None:
        if failing:
            raise ValueError("no")
        done.append((sender, type(instance)))

    def on_gap(sender: Any, event: Any, **kwargs: Any) -> None:
        receiver(sender)

    connect(post_save, receiver, Everything)
    connect(signals.record_created, receiver, EverythingProxy)
    connect(signals.gap_detected, on_gap, Everything)
    captured.create(Everything)
    as_heroku_connect("TRUNCATE salesforce.everything__c")
    deliver(DJANGO_SIGNALS=True)
    assert len(states()) == 3
    failing = False
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    deliver_all(DJANGO_SIGNALS=True)
    kinds = [(Everything, Everything), (EverythingProxy, EverythingProxy), (Everything, type(None))]
    assert sorted(map(str, done)) == sorted(map(str, kinds))


def test_child_instance_is_built_again(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    got: list[str] = []

    def receiver(instance: Any, event: Any, **kwargs: Any) -> None:
        if event.attempt == 1:
            raise ValueError("no")
        got.append(f"{instance.name} {instance.breed}")

    connect(signals.record_updated, receiver, Dog)
    key = "00000000000000000000000000000007"
    (sfid,) = captured.insert(Animal, external_id=key, name="Rex")
    captured.insert(Dog, animal_id=key, breed="Boxer")
    captured.update(Animal, sfid, name="Max")
    deliver_all()
    assert got == ["Max Boxer"]


def test_stored_change_outlives_the_log(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    connect(signals.record_updated, flaky, User)
    (sfid,) = captured.insert(User, username="a")
    captured.update(User, sfid, username="b")
    deliver()
    as_the_app("TRUNCATE public.hc_signals_change")
    flaky.failing = False
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    deliver_all()
    assert flaky.done == [("UPDATE", "b", 2)]
    assert Change.objects.count() == 0


@pytest.fixture
def renamed(captured: HerokuConnect, connect: Any, flaky: Flaky) -> Iterator[None]:
    signals.record_created.connect(flaky, sender=User)
    captured.insert(User, username="a")
    deliver()
    signals.record_created.disconnect(flaky, sender=User)
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    yield
    signals.record_created.disconnect(flaky, sender=User)


@pytest.mark.usefixtures("renamed")
def test_missing_receiver_is_the_error_of_its_delivery() -> None:
    deliver()
    (kept,) = Delivery.objects.all()
    assert "is not connected to record_created of sfdc.User any more: renamed or removed?" in kept.error
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now(), sender = 'sfdc.Gone'")
    deliver()
    (kept,) = Delivery.objects.all()
    assert "there is no connected model sfdc.Gone any more" in kept.error


@pytest.mark.parametrize("shards", [1, 3])
def test_gap_of_every_table_is_retried_for_its_receiver(captured: HerokuConnect, connect: Any, shards: int) -> None:
    failing, calls, others = True, [], []

    def fails(sender: Any, event: Any, **kwargs: Any) -> None:
        calls.append((sender, event.cause, event.attempt, event.event_id))
        if failing:
            raise ValueError("not yet")

    connect(signals.gap_detected, fails, User)
    connect(signals.gap_detected, fails, Everything)
    connect(signals.gap_detected, lambda event, **kwargs: others.append(event.cause), User)
    deliver(SHARDS=shards)
    as_the_app("SELECT public.hc_signals_lose()")
    deliver(SHARDS=shards)
    as_the_app("""UPDATE public.hc_signals_position SET gap = '{"cause": "made up", "since": null}' WHERE shard = 0""")
    deliver(SHARDS=shards)
    assert states() == [("retry", 1)] * 4
    assert others == ["capture_failed", "made up"]
    first, failing = set(calls), False
    assert len(first) == len({event_id for *_, event_id in first}) == 4
    calls.clear()
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    deliver_all(SHARDS=shards)
    assert {(sender, cause, 1, event_id) for sender, cause, attempt, event_id in calls if attempt == 2} == first
    assert states() == []
    assert len(calls) == 4
    assert others == ["capture_failed", "made up"]


def test_failure_that_cannot_be_stored_is_an_error(captured: HerokuConnect) -> None:
    captured.insert(User, username="a")
    with transaction.atomic():
        (claim,) = claim_all([LogShard("default", "default")])
        (change,), _ = claim.page(claim.open_window(), 10)
    as_the_app("DELETE FROM public.hc_signals_change")
    with pytest.raises(RedeliveryError, match=r"a\.b failed on change .* its delivery cannot be stored"):
        FailureStore("default", Conf(), 0).add(change, "a.b", "record_created", "sfdc.User", ValueError())
    assert states() == []


def test_value_is_delivered_when_it_fits_its_column_again(captured: HerokuConnect, connect: Any, flaky: Flaky) -> None:
    flaky.failing = False
    connect(signals.record_created, flaky, User)
    captured.insert(User, username="eight")
    as_heroku_connect('ALTER TABLE salesforce."user" ALTER username TYPE integer USING 8')
    deliver()
    assert flaky.done == []
    as_heroku_connect('ALTER TABLE salesforce."user" ALTER username TYPE varchar(80)')
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    deliver_all()
    assert flaky.done == [("CREATE", "eight", 2)]


def test_unconvertible_old_value_fails_its_retry_alone(
    captured: HerokuConnect, connect: Any, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(value: str, *args: Any) -> str:
        if value == "old":
            raise ValueError("no such name")
        return value

    connect(signals.record_updated, flaky, User)
    for sfid in captured.insert(User, {"username": "old"}, {"username": "fine"}):
        captured.update(User, sfid, username="new")
    deliver()
    flaky.failing = False
    monkeypatch.setattr(User._meta.get_field("username"), "from_db_value", convert, raising=False)
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = now()")
    deliver()
    assert flaky.done == [("UPDATE", "new", 2)]
    assert "no such name" in Delivery.objects.get().error


@pytest.mark.parametrize("attempts", [1000, 2], ids=["it succeeds", "it is dead"])
def test_kill_between_two_deliveries_strands_no_parked_one(
    captured: HerokuConnect, connect: Any, flaky: Flaky, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """With ATOMIC = False, the deletion and the release of the next delivery still commit together."""
    connect(signals.record_changed, flaky, User)
    (user,) = captured.insert(User, username="a")
    deliver(ATOMIC=False, RETRY_SECONDS=0.0001)
    captured.poll(User, [{"sf_id": user, "username": "b"}])
    deliver(ATOMIC=False, RETRY_SECONDS=1000.0)

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    flaky.failing = attempts == 2
    as_the_app("UPDATE hc_signals_delivery SET next_attempt_at = now()")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hc_signals.delivery.failures.release", die)
        deliver(ATOMIC=False, MAX_ATTEMPTS=attempts)
    flaky.failing = False
    deliver_all(ATOMIC=False)
    assert flaky.done[-1][1] == "b"
    assert "parked" not in {state for state, _ in states()}
