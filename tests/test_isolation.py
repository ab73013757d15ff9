"""Receivers of one page are isolated from one another, whatever their first query is."""

import sys
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from django.db.models.signals import post_init, post_save
from django.test.utils import CaptureQueriesContext
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery.identity import receiver_path
from hc_signals.delivery.isolation import careful
from hc_signals.delivery.shard import Outcome
from hc_signals.log import claims
from hc_signals.models import Change, Delivery
from hc_signals.worker.loop import Worker
from tests.conftest import as_heroku_connect, deliver, running_crew
from tests.test_worker_process import wait_until


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin like a new process, which does not know yet which receivers break transactions."""
    monkeypatch.setattr(careful, "_in_advance", set())
    monkeypatch.setattr(careful, "_breaks", Counter())


pytestmark = pytest.mark.usefixtures("captured")


def insert_accounts(count: int) -> None:
    as_heroku_connect(
        "INSERT INTO salesforce.account (sfid, name) SELECT 'A' || g, 'n' || g FROM generate_series(1, %s) g", [count]
    )


def seen(event: Any) -> None:
    Seen.objects.create(event_id=f"mine {event.event_id}", sequence_number=0, entity_name="", change_type="")


def seen_changes() -> set[int]:
    found = Seen.objects.filter(event_id__startswith="mine ").values_list("event_id", flat=True)
    return {int(event_id.split()[1].split("-")[0]) for event_id in found}


def log_ids() -> list[int]:
    return list(Change.objects.values_list("id", flat=True))


def _by_orm(event: Any) -> None:
    seen(event)


def _many(event: Any) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO crm_seen (event_id, sequence_number, entity_name, change_type) VALUES (%s, 0, '', '')",
            [[f"mine {event.event_id}"], [f"mine {event.event_id} again"]],
        )


def _after_a_streamed_read(event: Any) -> None:
    list(Account.objects.iterator(chunk_size=2))
    seen(event)


def _in_a_block(event: Any) -> None:
    with transaction.atomic():
        seen(event)


def _after_several_statements(event: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 7; SELECT 8")
        assert cursor.fetchone() == (7,)
        assert cursor.nextset()
        assert cursor.fetchone() == (8,)
    seen(event)


def _after_an_error_that_it_survives(event: Any) -> None:
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")
    seen(event)


@pytest.mark.parametrize(
    "write",
    [_by_orm, _many, _after_a_streamed_read, _in_a_block, _after_several_statements, _after_an_error_that_it_survives],
)
def test_failed_receivers_writes_alone_are_rolled_back(connect: Any, write: Callable[[Any], None]) -> None:
    def every_other_fails(instance: Account, event: Any, **kwargs: Any) -> None:
        write(event)
        if instance.name in ("n2", "n4"):
            raise RuntimeError

    connect(signals.record_created, every_other_fails, Account)
    insert_accounts(5)
    assert deliver() == 5
    first, _, third, _, fifth = sorted(log_ids())
    assert seen_changes() == {first, third, fifth}
    assert Delivery.objects.count() == 2


def _misspelled(event: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELEC 1")


def _misspelled_past_django(event: Any) -> None:
    connection.connection.execute("SELEC 1")


def _misspelled_copy(event: Any) -> None:
    with connection.cursor() as cursor, cursor.copy("COPY crm_seen FROM STDINN"):
        pass


@pytest.mark.parametrize("query", [_misspelled, _misspelled_past_django, _misspelled_copy])
@pytest.mark.parametrize("names", [["n1"], ["n2", "n3"]])
def test_unparsable_first_query_fails_its_receiver_alone(
    connect: Any, query: Callable[[Any], None], names: list[str]
) -> None:
    def misspells(instance: Account, event: Any, **kwargs: Any) -> None:
        if instance.name in names:
            query(event)
        seen(event)

    connect(signals.record_created, misspells, Account)
    insert_accounts(4)
    assert deliver() == 4
    assert len(seen_changes()) == 4 - len(names)
    others = Seen.objects.exclude(event_id__startswith="mine ")
    assert others.count() == 4, "the writes of the example's receiver, right before, are kept"

    careful._in_advance.clear()  # another process makes the retries
    Delivery.objects.filter(state="retry").update(next_attempt_at=Now())
    assert deliver() == 0
    assert list(Delivery.objects.values_list("state", "attempt")) == [("retry", 2)] * len(names)
    assert len(seen_changes()) == 4 - len(names)


def _twice_by_orm(event: Any) -> None:
    seen(event)
    seen(event)


def _twice_by_hand(event: Any) -> None:
    with connection.cursor() as cursor:
        for _ in range(2):
            cursor.execute(
                "INSERT INTO crm_seen (event_id, sequence_number, entity_name, change_type) VALUES (%s, 0, '', '')",
                [f"mine {event.event_id}"],
            )


@pytest.mark.parametrize("query", [_twice_by_orm, _twice_by_hand, _misspelled])
def test_swallowed_database_error_fails_its_receiver_alone(connect: Any, query: Callable[[Any], None]) -> None:
    def swallows(instance: Account, event: Any, **kwargs: Any) -> None:
        if instance.name != "n2":
            seen(event)
            return
        with suppress(DatabaseError):
            query(event)

    connect(signals.record_created, swallows, Account)
    insert_accounts(4)
    assert deliver() == 4
    assert len(seen_changes()) == 3
    assert "went on after an error of the database" in Delivery.objects.get().error


def test_receiver_that_breaks_its_page_is_logged_once(connect: Any, caplog: Any) -> None:
    calls: list[str] = []

    def misspells(instance: Account, event: Any, **kwargs: Any) -> None:
        calls.append(instance.name)
        if instance.name in ("n2", "n3"):
            _misspelled(event)

    connect(signals.record_created, misspells, Account)
    insert_accounts(4)
    deliver()
    assert calls == ["n1", "n2", "n1", "n2", "n3", "n4"]
    assert caplog.text.count("broke the transaction of its page") == 1


def test_hooks_of_a_failed_receiver_go_with_its_writes(connect: Any) -> None:
    hooks: list[str] = []

    def swallows(instance: Account, event: Any, **kwargs: Any) -> None:
        transaction.on_commit(lambda: hooks.append(instance.name))
        if instance.name == "n2":
            with suppress(DatabaseError):
                _twice_by_hand(event)

    connect(signals.record_created, swallows, Account)
    insert_accounts(3)
    deliver()
    assert hooks == ["n1", "n3"]


def test_replay_isolates_receivers(connect: Any) -> None:
    fails: list[bool] = []

    def misspells(instance: Account, event: Any, **kwargs: Any) -> None:
        if fails and instance.name == "n2":
            _misspelled(event)
        seen(event)

    connect(signals.record_created, misspells, Account)
    insert_accounts(3)
    deliver()
    Seen.objects.all().delete()
    fails.append(True)
    call_command("hc_replay", "--since", "1h", "--receiver", receiver_path(misspells), verbosity=0)
    assert len(seen_changes()) == 2
    assert Delivery.objects.count() == 1


def test_resharding_isolates_receivers(connect: Any) -> None:
    def misspells(instance: Account, event: Any, **kwargs: Any) -> None:
        if instance.name == "n3":
            _misspelled(event)
        seen(event)

    connect(signals.record_created, misspells, Account)
    deliver()
    insert_accounts(4)
    worker = Worker("default", Conf(BATCH_SIZE=2))
    assert worker.shards[0].deliver_page() is Outcome.MORE  # the resharding takes over its window
    deliver(SHARDS=2)
    assert len(seen_changes()) == 3
    assert Delivery.objects.count() == 1


def _exits() -> None:
    sys.exit(3)


def _is_cancelled() -> None:
    raise CancelledError


class _Silent(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def _raises_what_has_no_text() -> None:
    raise _Silent


def _raises_what_is_no_text() -> None:
    raise RuntimeError("a surrogate \udc80 and a nul \x00")


def _rolls_back() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ROLLBACK")


def _rolls_back_and_writes() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ROLLBACK")
    Seen.objects.create(event_id="mine 999-left", sequence_number=0, entity_name="", change_type="")


def _marks_for_rollback() -> None:
    transaction.set_rollback(True)


@pytest.mark.parametrize(
    "fail",
    [
        _exits,
        _is_cancelled,
        _raises_what_has_no_text,
        _raises_what_is_no_text,
        _rolls_back,
        _rolls_back_and_writes,
        _marks_for_rollback,
    ],
)
def test_receiver_that_fails_in_an_unusual_way_fails_alone(connect: Any, fail: Callable[[], None]) -> None:
    connect_one_that_fails(connect, fail)
    assert deliver() == 3
    assert len(seen_changes()) == 2
    assert Delivery.objects.get().attempt == 1


def connect_one_that_fails(connect: Any, fail: Callable[[], None]) -> None:
    """Connect a receiver that writes, and fails at the second of three changes."""

    def fails(instance: Account, event: Any, **kwargs: Any) -> None:
        seen(event)
        if instance.name == "n2":
            fail()

    connect(signals.record_created, fails, Account)
    insert_accounts(3)


def _closes() -> None:
    connection.close()


def _is_terminated() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize("fail", [_closes, _is_terminated])
def test_receiver_that_always_loses_connection_fails_alone(connect: Any, fail: Callable[[], None]) -> None:
    connect_one_that_fails(connect, fail)
    with running_crew():
        wait_until(lambda: len(seen_changes()) == 2)
    assert "it was not called again" in Delivery.objects.get().error


def test_receivers_of_post_save_and_bulk_fail_alone(connect: Any) -> None:
    def breaks(**kwargs: Any) -> None:
        _rolls_back()

    connect(post_save, breaks, Account)
    connect(signals.records_changed, breaks, Account)
    connect(signals.record_created, lambda event, **kwargs: seen(event), Account)
    insert_accounts(2)
    assert deliver(DJANGO_SIGNALS=["crm.Account"]) == 2
    assert len(seen_changes()) == 2
    assert Delivery.objects.count() == 4


def test_error_in_post_init_fails_only_that_record(connect: Any) -> None:
    def refuse(sender: Any, instance: Account, **kwargs: Any) -> None:
        if instance.name == "n2":
            raise LookupError("not this one")

    connect(post_init, refuse, Account)
    connect(signals.record_created, lambda event, **kwargs: seen(event), Account)
    insert_accounts(3)
    assert deliver() == 3
    assert len(seen_changes()) == 2
    receivers = Delivery.objects.count()  # the example has one as well
    Delivery.objects.update(next_attempt_at=Now())
    assert deliver() == 0
    assert list(Delivery.objects.values_list("attempt", "state")) == [(2, "retry")] * receivers
    assert "LookupError: not this one" in Delivery.objects.first().error  # type: ignore[union-attr]


class _Unsendable:
    pass


@pytest.mark.parametrize("params", [[_Unsendable()], [1, 2, 3], ["nul \x00"]])
def test_first_query_that_cannot_be_sent_fails_alone(connect: Any, params: list[Any]) -> None:
    def first_fails(instance: Account, event: Any, **kwargs: Any) -> None:
        if instance.name != "n2":
            seen(event)
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", params)

    connect(signals.record_created, first_fails, Account)
    insert_accounts(3)
    assert deliver() == 3
    assert len(seen_changes()) == 2
    assert Delivery.objects.count() == 1


def test_receiver_is_isolated_after_a_query_that_was_not_sent(connect: Any) -> None:
    def second_way(event: Any, **kwargs: Any) -> None:
        with connection.cursor() as cursor, pytest.raises(Exception, match=r"."):
            cursor.execute("SELECT %s", [_Unsendable()])
        seen(event)
        raise RuntimeError

    connect(signals.record_created, second_way, Account)
    insert_accounts(2)
    assert deliver() == 2
    assert not seen_changes()
    assert Delivery.objects.count() == 2


def test_writing_receiver_adds_no_round_trip(connect: Any) -> None:
    connect(signals.record_created, lambda event, **kwargs: seen(event), Account)

    insert_accounts(20)
    with CaptureQueriesContext(connection) as captured:
        assert deliver() == 20
    sent = [query["sql"] for query in captured]
    # The example's own receiver writes as well; and one message reads the images.
    assert sum("SAVEPOINT hc_signals" in sql or "crm_seen" in sql for sql in sent) == 41


def test_page_begins_its_transaction_in_its_first_message(connect: Any) -> None:
    connect(signals.record_created, lambda event, **kwargs: None, Account)
    notices: list[Any] = []
    connection.connection.add_notice_handler(notices.append)
    insert_accounts(1)
    with CaptureQueriesContext(connection) as captured:
        assert deliver() == 1
    (first,) = (query["sql"] for query in captured if "hc_signals_claim(" in query["sql"])
    assert first.startswith("BEGIN; ")
    assert not notices, "psycopg had sent BEGIN before"


def test_savepoints_are_released(connect: Any) -> None:
    depths: list[int] = []

    def look(event: Any, **kwargs: Any) -> None:
        seen(event)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND pid = pg_backend_pid()")
            depths.append(cursor.fetchone()[0])

    connect(signals.record_created, look, Account)
    insert_accounts(20)
    deliver()
    # The transaction's own id, and one of each open subtransaction that has written.
    assert len(depths) == 20
    assert max(depths) <= 3


def test_late_failure_found_by_our_statement_parks_the_next(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two changes the worker confirms its claim, and that message also checks the last call's settings."""
    monkeypatch.setattr(claims, "CONFIRM_SECONDS", -1.0)
    called: list[str] = []

    def leaves_a_setting(instance: Account, **kwargs: Any) -> None:
        called.append(str(instance.name))
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL search_path = pg_catalog")

    connect(signals.record_changed, leaves_a_setting, Account)
    insert_accounts(1)
    as_heroku_connect("UPDATE salesforce.account SET name = 'second'")
    deliver()
    assert called == ["n1"]
    assert sorted(Delivery.objects.values_list("state", flat=True)) == ["parked", "retry"]
