"""A Salesforce-shaped app: every field class, inheritance, awkward names."""

import os
import signal
import threading
from typing import Any

from django.apps import AppConfig

from hc_signals.signals import record_changed, records_changed


class SfdcConfig(AppConfig):
    name = "tests.sfdc"
    label = "sfdc"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        if "FORGOTTEN_RECEIVERS" in os.environ:
            record_changed.receivers.clear()
            records_changed.receivers.clear()
        if "FAILING_RECEIVER" in os.environ:
            record_changed.connect(_fail)
        if "ENDLESS_THREAD" in os.environ:
            record_changed.connect(_start_endless_thread)
        if "FATAL_CALLS" in os.environ:
            record_changed.connect(_end_process)
            records_changed.connect(_end_process_in_bulk)


def _fail(instance: Any, **kwargs: Any) -> None:
    raise ValueError(f"cannot handle {instance.name}")


def _start_endless_thread(**kwargs: Any) -> None:
    threading.Thread(target=threading.Event().wait, name="endless").start()


def _end_process(instance: Any, event: Any, **kwargs: Any) -> None:
    """Write a line to the file of FATAL_CALLS and kill the process, if the record's name is "fatal"."""
    if instance.name == "fatal":
        _note_call(f"{event.attempt}")


def _end_process_in_bulk(events: Any, **kwargs: Any) -> None:
    if any(event.instance.name == "fatal in bulk" for event in events):
        _note_call(f"bulk of {len(events)}")


def _note_call(text: str) -> None:
    with open(os.environ["FATAL_CALLS"], "a", encoding="utf-8") as calls:
        calls.write(text + "\n")
    os.kill(os.getpid(), signal.SIGKILL)
