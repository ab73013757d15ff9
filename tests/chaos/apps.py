"""The workers' side of a chaos run: receivers that write the ledger and sometimes fail; wrong readers."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from django.apps import AppConfig

_of_thread = threading.local()
_WRITE = """
INSERT INTO chaos_ledger (consumer, record, operation, version, event_id, transaction)
SELECT %s, unnest(%s::text[]), unnest(%s::text[]), unnest(%s::integer[]), unnest(%s::text[]), unnest(%s::xid8[])
"""


class ChaosConfig(AppConfig):
    name = "tests.chaos"
    label = "chaos"

    def ready(self) -> None:
        from example.crm import receivers
        from example.crm.models import Account

        from hc_signals.signals import gap_detected, record_changed, records_changed

        record_changed.disconnect(receivers.keep_ledger)
        if os.environ["CHAOS_CONSUMER"] == "pages":
            records_changed.connect(keep_page, sender=Account)
        else:
            record_changed.connect(keep_change, sender=Account)
        gap_detected.connect(keep_gap, sender=Account)
        if "CHAOS_OUTSIDE" in os.environ:
            record_changed.connect(keep_outside, sender=Account)
            gap_detected.connect(keep_outside, sender=Account)
        if "CHAOS_MISBEHAVIOURS" in os.environ:
            from tests.chaos.misbehaviours import misbehave

            record_changed.connect(misbehave, sender=Account)
        mutation = os.environ.get("CHAOS_MUTATION")
        if mutation:
            from tests.chaos import mutations

            getattr(mutations, mutation)()
        if "CHAOS_RECORD" in os.environ:
            record()


def record() -> None:
    """Record the steps of this process."""
    from tests.chaos.recorder import Recorder, record_worker

    names = ("CONSUMER", "SHARDS", "ATOMIC")
    about = {name.lower(): os.environ[f"CHAOS_{name}"] for name in names}
    file = Path(os.environ["CHAOS_RECORD"]) / f"{about['consumer']}-{os.getpid()}-{time.monotonic_ns()}.jsonl"
    record_worker(Recorder(file, **about))


def keep_change(event: Any, using: str, **kwargs: Any) -> None:
    """Append one change; the call fails for one change in fifty, once or twice."""
    _write([event], using)
    chance = _chance(event)
    if chance % 50 == 0 and event.attempt <= 1 + chance % 4 // 2:
        raise RuntimeError("chaos: this receiver fails now")


def keep_page(events: Any, using: str, **kwargs: Any) -> None:
    """Append a page of changes; the call fails for one page in about twenty, so its changes are retried one by one."""
    _write(events, using)
    if events[0].attempt == 1 and _chance(events[0]) % 20 == 0:
        raise RuntimeError("chaos: this receiver fails now")


def keep_gap(event: Any, using: str, **kwargs: Any) -> None:
    """Append a gap."""
    from django.db import connections

    with connections[using].cursor() as cursor:
        cursor.execute("INSERT INTO chaos_gap VALUES (%s, %s)", [os.environ["CHAOS_CONSUMER"], event.cause])


def keep_outside(event: Any, **kwargs: Any) -> None:
    """Append a change or a gap to a file, which survives the loss of worker and server."""
    line = {"gap": event.cause, "since": str(event.since)} if event.cause else {"record": event.record_id}
    line |= {"replay_id": event.replay_id, "event_id": event.event_id}
    with open(os.environ["CHAOS_OUTSIDE"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _write(events: Any, using: str) -> None:
    from django.db import connections

    lines = [
        (e.record_id, e.change_type, e.instance.number_of_employees, e.event_id, e.transaction_key) for e in events
    ]
    line = [os.environ["CHAOS_CONSUMER"], *map(list, zip(*lines, strict=True))]
    if os.environ["CHAOS_ATOMIC"] == "False":
        _elsewhere().execute(_WRITE, line)
        return
    with connections[using].cursor() as cursor:
        cursor.execute(_WRITE, line)


def _elsewhere() -> Any:
    """Return this thread's connection to another service, whose data survive the loss of the worker."""
    if not hasattr(_of_thread, "service") or _of_thread.service.closed:
        _of_thread.service = psycopg.connect(os.environ["CHAOS_SERVICE"], autocommit=True)
    return _of_thread.service


def _chance(event: Any) -> int:
    return int(hashlib.sha256(event.event_id.encode()).hexdigest(), 16)
