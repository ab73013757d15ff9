"""Measures how long each drift lasts under a real hc_listen, and how long a run takes that repairs it."""

import logging
import os
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import django

os.environ.pop("DATABASE_URL", None)  # a separate server: every table is dropped
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
ROWS, ROUNDS = 2000, 9


def main() -> None:
    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from example.crm.models import Account

    from hc_signals.capture.repairing import Repairs
    from hc_signals.conf import Conf
    from hc_signals.tables import connected_models
    from hc_signals.testing import HerokuConnect
    from tests.test_watch import DRIFTS

    logging.getLogger("hc_signals").setLevel(logging.CRITICAL)
    heroku = HerokuConnect()
    call_command("migrate", verbosity=0)
    heroku.create_tables()
    call_command("hc_triggers", "install", verbosity=0)
    heroku.bulk_load(Account, ROWS)
    repairs = Repairs("default", Conf(), connected_models())
    repairs.run()
    idle = statistics.median(seconds(repairs.run) for _ in range(50))
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        version = cursor.fetchone()[0]
    print(f"PostgreSQL {version}, {len(connected_models())} tables, {ROWS} rows in the one that drifts")
    print(f"a run that finds nothing: {idle * 1000:.1f} ms, one statement\n")
    runs = {}
    for drift, (_, happen) in DRIFTS.items():
        runs[drift] = statistics.median(after(lambda h=happen: h(heroku), repairs.run) for _ in range(ROUNDS))
    clear_reread()
    heroku.bulk_load(Account, ROWS)
    print("| drift | cause | gap reported after | a run that repairs it |\n|---|---|---|---|")
    process = listen()
    try:
        for drift, (cause, happen) in DRIFTS.items():
            waited = seconds_until_gap(lambda h=happen: h(heroku))
            print(f"| {drift} | `{cause}` | {waited:.1f} s | {runs[drift] * 1000:.0f} ms |", flush=True)
    finally:
        process.terminate()
        output = process.communicate()[0]
        assert "failed" not in output, output
    measure_reread(heroku)


def seconds(act: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def after(happen: Callable[[], Any], act: Callable[[], Any]) -> float:
    happen()
    return seconds(act)


def clear_reread() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("UPDATE public.hc_signals_table SET reread_since = NULL, reread_after = NULL")


def listen() -> Any:
    from django.db import connection

    from tests.test_worker_process import start

    process = start("hc_listen", "--start-at", "latest", TEST_DATABASE=connection.settings_dict["NAME"])
    time.sleep(5)
    return process


def seconds_until_gap(happen: Callable[[], Any]) -> float:
    """Cause a drift soon after a run, which is the worst case; return the seconds until the gap is in the log."""
    from hc_signals.models import Change

    gaps = Change.objects.filter(operation="GAP")
    time.sleep(1)
    before = gaps.count()
    happen()
    begin = time.time()
    while gaps.count() == before:
        time.sleep(0.1)
        assert time.time() - begin < 90
    note = gaps.order_by("-id")[0].note
    return datetime.fromisoformat(note["until"]).timestamp() - begin


def measure_reread(heroku: Any) -> None:
    from example.crm.models import Account

    from hc_signals.capture.repairing import Repairs
    from hc_signals.capture.rereading import Rereading
    from hc_signals.conf import Conf
    from hc_signals.models import Change
    from hc_signals.tables import connected_models

    clear_reread()
    heroku.bulk_load(Account, 10 * ROWS)
    heroku.recreate_table(Account)
    Repairs("default", Conf(), connected_models()).run()
    before = Change.objects.count()
    took = seconds(lambda: Rereading("default", connected_models()).read_for(600))
    rows = Change.objects.count() - before
    assert rows == len(heroku.sfids(Account))
    print(f"\nreread: {rows} rows in {took:.1f} s, {rows / took:.0f} a second")


if __name__ == "__main__":
    main()
