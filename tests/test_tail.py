"""Reading the log for people: no position moves, every change is read once, and what cannot be read is named."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import ProgrammingError, transaction
from example.crm.models import Account, Contact

from hc_signals.exceptions import ReplayError
from hc_signals.log import tail
from hc_signals.log.append import append_gap
from hc_signals.log.change import format_replay_id
from hc_signals.log.restoring import take_over
from hc_signals.log.rotation import rotate
from hc_signals.log.schema import Cause
from hc_signals.log.tail import Chosen, Place, Reading, read, start, start_at, start_with_newest
from hc_signals.models import Change, Position
from hc_signals.postgres.moments import now
from hc_signals.testing import HerokuConnect
from tests.conftest import another, as_the_app, deliver
from tests.server import own
from tests.test_rotation import age

INSERT = "INSERT INTO salesforce.account (sfid, name) VALUES ('{0}', '{0}')"
HEX = "SET LOCAL xmlbinary = 'hex'"


def names(reading: Reading) -> list[str]:
    return [(found.new or found.old or {}).get("name", "") for found in reading.changes]


@pytest.fixture
def place(captured: HerokuConnect) -> Place:
    """The present of a log with three changes."""
    captured.create(Account, 3)
    return start("default")


def test_changes_are_read_once_and_nothing_is_written(place: Place, captured: HerokuConnect) -> None:
    deliver()
    positions = list(Position.objects.values())
    (sfid,) = captured.insert(Account, name="new")
    captured.update(Account, sfid, name="newer")
    captured.delete(Account, sfid)
    reading = read("default", place)
    assert [found.change.operation for found in reading.changes] == ["INSERT", "UPDATE", "DELETE"]
    assert names(reading) == ["new", "newer", "newer"]
    assert reading.changes[1].old is not None
    assert reading.changes[1].old["name"] == "new"
    assert reading[2:] == (False, 0, ())
    assert read("default", reading.place).changes == []
    assert list(Position.objects.values()) == positions


def test_change_is_read_when_it_commits(place: Place) -> None:
    """A transaction that was open at one read, with the lower ids, is read after those that committed before it."""
    with another() as cursor:
        for statement in (HEX, INSERT.format("late")):
            cursor.execute(statement)
        with transaction.atomic():
            as_the_app(HEX)
        for number in range(3):
            as_the_app(f"{HEX}; {INSERT.format(f'early {number}')}")
            reading = read("default", place)
            assert names(reading) == [f"early {number}"]
            place = Place.of_token(reading.place.token())
        cursor.execute("COMMIT")
    reading = read("default", place)
    assert names(reading) == ["late"]
    assert read("default", reading.place).changes == []


def test_window_is_read_in_pages(place: Place, captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes that commit while the window is open are read behind it."""
    monkeypatch.setattr(tail, "PAGE", 4)
    captured.create(Account, 10)
    found, more = [], True
    while more:
        reading = read("default", place, limit=3)
        assert len(reading.changes) <= 3
        found += [change.change.id for change in reading.changes]
        place, more = reading.place, reading.more
        if len(found) == 3:
            captured.create(Account, 1)
    assert found == list(Change.objects.order_by("id").values_list("id", flat=True)[3:13])
    assert len(read("default", place).changes) == 1


def test_newest_changes_are_read_and_the_others_counted(
    place: Place, captured: HerokuConnect, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured.create(Account, 10)
    newest = list(Change.objects.order_by("id").values_list("id", flat=True))[-3:]
    reading = read("default", place, limit=3, may_skip=True)
    assert ([found.change.id for found in reading.changes], reading.skipped) == (newest, 7)
    assert not reading.more
    assert read("default", reading.place, may_skip=True).changes == []
    monkeypatch.setattr(tail, "PAGE", 5)  # the first five are not even passed
    reading = read("default", place, limit=3, may_skip=True)
    assert ([found.change.id for found in reading.changes], reading.skipped) == (newest, 7)


def test_filters_choose_changes(place: Place, captured: HerokuConnect) -> None:
    account, other = captured.insert(Account, name="a"), captured.insert(Account, name="b")
    captured.insert(Contact, last_name="c")
    captured.update(Account, account[0], industry="1")
    captured.update(Account, other[0], industry="2")
    captured.update(Account, account[0], name="d")
    key = str(Account.objects.get(sf_id=account[0]).pk)

    def chosen(**options: Any) -> int:
        return len(read("default", place, Chosen(**options)).changes)

    assert chosen() == 6
    assert chosen(tables=frozenset({"salesforce.contact"})) == 1
    assert chosen(operations=frozenset({"UPDATE"})) == 3
    assert chosen(records=frozenset({account[0]})) == chosen(records=frozenset({account[0][:15]})) == 3
    assert chosen(records=frozenset({key}), tables=frozenset({"salesforce.account"})) == 3
    assert chosen(records=frozenset({account[0][:14]})) == 0
    assert chosen(columns={"salesforce.account": frozenset({"name"})}, tables=frozenset({"salesforce.account"})) == 3
    assert chosen(columns={"salesforce.account": frozenset({"industry"})}, records=frozenset({other[0]})) == 2


def test_row_of_a_whole_table_is_chosen_by_its_table(place: Place) -> None:
    with transaction.atomic():
        append_gap("default", "salesforce.account", Cause.TRIGGER_MISSING, None)
        append_gap("default", "salesforce.contact", Cause.TRIGGER_MISSING, None)
    tables = frozenset({"salesforce.account"})
    for chosen in (
        Chosen(tables, records=frozenset({"001"})),
        Chosen(tables, columns={"salesforce.account": frozenset({"name"})}),
    ):
        (found,) = read("default", place, chosen).changes
        assert (found.change.operation, found.old, found.new) == ("GAP", None, None)


def test_reader_begins_at_an_older_change(place: Place) -> None:
    ids = list(Change.objects.order_by("id").values_list("id", flat=True))
    moments = dict(Change.objects.values_list("id", "captured_at"))
    for bound in (format_replay_id(place.epoch, ids[1]), moments[ids[1]]):
        reading = read("default", start_at("default", bound))
        assert [found.change.id for found in reading.changes] == ids[1:]
        assert read("default", reading.place)[:1] + reading[2:] == ([], False, 0, ())
    assert read("default", start_at("default", now())).changes == []


def test_replay_id_of_another_log_is_refused(place: Place) -> None:
    with pytest.raises(ReplayError, match="of another database"):
        start_at("default", format_replay_id("0123456789ab", 1))
    with pytest.raises(ReplayError, match="ahead of the log"):
        start_at("default", format_replay_id(place.epoch, 10**9))


@pytest.mark.parametrize("number", [1, 3, 50])
def test_reader_begins_with_the_newest_changes(
    place: Place, captured: HerokuConnect, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "PAGE", 2)
    captured.insert(Contact, last_name="c")
    accounts = frozenset({"salesforce.account"})
    ids = list(Change.objects.filter(table_name="salesforce.account").order_by("id").values_list("id", flat=True))
    found, more, place = [], True, start_with_newest("default", number, Chosen(accounts))
    while more:
        reading = read("default", place, Chosen(accounts))
        found += [each.change.id for each in reading.changes]
        place, more = reading.place, reading.more
    assert found == ids[-number:]
    assert read("default", start_with_newest("default", 5, Chosen(records=frozenset({"none"})))).changes == []


def test_emptied_changes_are_named_once(place: Place, captured: HerokuConnect) -> None:
    captured.create(Account, 2)
    as_the_app(
        "WITH emptied AS (SELECT max(id) AS id FROM public.hc_signals_change) "
        "UPDATE public.hc_signals_control SET emptied_id = emptied.id, emptied_at = clock_timestamp() FROM emptied"
    )
    as_the_app("TRUNCATE public.hc_signals_change")
    reading = read("default", place)
    assert (reading.changes, reading.missed) == ([], (Cause.EMPTIED,))
    assert read("default", reading.place).missed == ()
    assert read("default", start_at("default", now() - timedelta(hours=1))).missed == (Cause.EMPTIED,)
    assert read("default", start_at("default", format_replay_id(place.epoch, 1))).missed == (Cause.EMPTIED,)
    assert read("default", start("default")).missed == ()
    captured.insert(Account, name="next")
    assert names(read("default", reading.place)) == ["next"]


def test_changes_emptied_after_they_were_read_are_not_missed(place: Place, captured: HerokuConnect) -> None:
    captured.create(Account, 2)
    place = read("default", place).place
    age(84)
    deliver()
    assert rotate("default", 72)
    assert read("default", place).missed == ()


def test_uncaptured_statements_are_named_once(place: Place) -> None:
    as_the_app("SELECT public.hc_signals_lose()")
    reading = read("default", place)
    assert reading.missed == (Cause.CAPTURE_FAILED,)
    assert read("default", reading.place).missed == ()


def test_another_server_is_named_and_the_reader_begins_again(place: Place, captured: HerokuConnect) -> None:
    captured.insert(Account, name="not read")
    for elsewhere, cause in (
        (replace(place, server="1-2-3"), Cause.RESTORED),
        (replace(place, timeline=place.timeline and place.timeline + 1), Cause.FAILED_OVER),
    ):
        reading = read("default", elsewhere)
        assert (reading.changes, reading.missed) == ([], (cause,))
        assert read("default", reading.place)[2:] == (False, 0, ())


def test_takeover_is_named_and_the_reader_goes_on(place: Place, captured: HerokuConnect) -> None:
    as_the_app("UPDATE public.hc_signals_control SET timeline = timeline + 1")
    assert take_over("default") is not None
    captured.insert(Account, name="next")
    reading = read("default", place)
    assert (names(reading), reading.missed) == (["next"], (Cause.FAILED_OVER,))


@pytest.mark.parametrize("token", ["", "x", "eyJhIjoxfQ:1:x"])
def test_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="no place in the log"):
        Place.of_token(token)


@pytest.fixture
def reader() -> Iterator[str]:
    """A role that may read the log, and nothing else."""
    name = own("hc_reader")
    as_the_app(
        f"CREATE ROLE {name}; GRANT SELECT ON public.hc_signals_change, public.hc_signals_log, "
        f"public.hc_signals_control TO {name}"
    )
    yield name
    as_the_app(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}")


def test_select_is_all_that_a_reader_needs(place: Place, captured: HerokuConnect, reader: str) -> None:
    captured.insert(Account, name="a")
    as_the_app(f"SET ROLE {reader}; SET default_transaction_read_only = on")
    try:
        reading = read("default", start_at("default", now() - timedelta(hours=1)), may_skip=True)
        assert names(reading)[-1] == "a"
        assert (reading.place.lost, read("default", place).missed) == (None, ())
        with pytest.raises(ProgrammingError, match="permission denied"):
            deliver()
    finally:
        as_the_app("RESET ROLE; RESET default_transaction_read_only")


def test_reading_is_right_in_a_transaction_that_writes(place: Place, captured: HerokuConnect) -> None:
    """As in a request under ATOMIC_REQUESTS: what the transaction itself has captured is read after it has ended."""
    with transaction.atomic():
        as_the_app(f"{HEX}; {INSERT.format('own')}")
        with another(f"BEGIN; {HEX}; {INSERT.format('other')}") as cursor:
            cursor.execute("COMMIT")
        first = read("default", place)
        assert names(first) == ["other"]
        second = read("default", first.place)
        assert names(second) == []
    assert names(read("default", second.place)) == ["own"]


def test_images_are_values_of_json(place: Place, captured: HerokuConnect) -> None:
    captured.insert(Account, name='"\u202eé\x1b[31m')
    (found,) = read("default", place).changes
    assert found.new is not None
    assert json.loads(json.dumps(found.new["name"])) == '"\u202eé\x1b[31m'
