"""Several shards, also while their number changes: no change is lost, repeated, or out of order in its record."""

from typing import Any

import pytest
from django.db import connection
from example.crm.models import Account, Seen

from hc_signals import signals
from hc_signals.log import positions
from hc_signals.log.position import LogShard, Standing
from hc_signals.models import Position
from hc_signals.testing import HerokuConnect
from tests.conftest import another, deliver


def test_shards_deliver_each_change_once_and_in_order(captured: HerokuConnect, connect: Any) -> None:
    got: dict[str, list[str]] = {}

    def on_change(instance: Account, **kwargs: Any) -> None:
        got.setdefault(instance.sf_id, []).append(instance.name)

    connect(signals.record_changed, on_change, Account)
    sfids = captured.insert(Account, *({"name": "0"} for _ in range(20)))
    for number in range(1, 6):
        captured.poll(Account, [{"sf_id": sfid, "name": str(number)} for sfid in sfids])
    assert deliver(SHARDS=4, BATCH_SIZE=7) == 120
    assert all(names == ["0", "1", "2", "3", "4", "5"] for names in got.values())
    assert len(got) == 20
    assert len({position.shard for position in Position.objects.all()}) == 4


@pytest.mark.parametrize("numbers", [[1, 3, 2, 5, 1], [4, 1, 4], [2, 7]])
def test_number_of_shards_changes_within_a_window(captured: HerokuConnect, numbers: list[int]) -> None:
    written = 0
    for shards in numbers:
        captured.create(Account, 30)
        written += 30
        for _ in range(2):  # leave a window unfinished
            worker_page(shards)
        deliver(SHARDS=shards, BATCH_SIZE=4)
        captured.create(Account, 10)
        written += 10
    deliver(SHARDS=numbers[-1])
    assert Seen.objects.count() == Seen.objects.values("event_id").distinct().count() == written
    assert {position.shards for position in Position.objects.all()} == {numbers[-1]}


def worker_page(shards: int) -> None:
    """Deliver one page of the first shard only, so that the shards have different positions."""
    from hc_signals.conf import Conf
    from hc_signals.worker.loop import Worker

    worker = Worker("default", Conf(SHARDS=shards, BATCH_SIZE=4))
    worker.prepare()
    worker.shards[0].deliver_page()


def test_worker_with_the_old_number_delivers_nothing(captured: HerokuConnect, caplog: pytest.LogCaptureFixture) -> None:
    from hc_signals.conf import Conf
    from hc_signals.worker.loop import Worker

    old = Worker("default", Conf(SHARDS=2))
    captured.create(Account, 5)
    old.deliver_once()
    captured.create(Account, 5)
    assert deliver(SHARDS=3) == 5
    captured.create(Account, 5)
    old.deliver_once()
    assert old.delivered == 5
    assert "has taken over with SHARDS = 3; this one has 2 and delivers nothing" in caplog.text
    assert deliver(SHARDS=3) == 5


def test_loss_survives_another_number_of_shards(
    captured: HerokuConnect, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted after the first shard's standing was read, and before that of the other one."""
    causes: list[str] = []
    connect(signals.gap_detected, lambda event, **kwargs: causes.append(event.cause), Account)
    captured.create(Account, 5)
    deliver(SHARDS=2)
    read_standing, losses = positions.read_standing, ["SELECT public.hc_signals_lose()"]

    def read(shard: LogShard) -> Standing:
        standing = read_standing(shard)
        if standing.position.target is not None and losses:  # the common window is open
            with another(losses.pop()) as cursor:
                cursor.db.rollback()
        return standing

    monkeypatch.setattr(positions, "read_standing", read)
    deliver(SHARDS=1)
    assert not losses
    assert causes == ["capture_failed"]


def test_late_commit_survives_another_number_of_shards(captured: HerokuConnect) -> None:
    late = connection.copy()
    try:
        late.set_autocommit(False)
        with late.cursor() as cursor:
            cursor.execute("SET LOCAL xmlbinary = 'hex'; INSERT INTO salesforce.account (sfid) VALUES ('late')")
        captured.create(Account, 5)
        assert deliver(SHARDS=1) == 5
        assert deliver(SHARDS=3) == 0
        late.commit()
    finally:
        late.close()
    assert deliver(SHARDS=3) == 1
    assert deliver(SHARDS=2) == 0
