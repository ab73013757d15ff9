"""The lines of the log for three in the morning: everything in one line, an outage in few, each line once."""

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest
from django.utils import timezone
from example.crm.models import Account

from hc_signals import signals
from hc_signals.delivery import failure_log
from hc_signals.models import Delivery
from hc_signals.postgres.moments import aware
from hc_signals.testing import HerokuConnect
from tests.conftest import as_the_app, deliver
from tests.sfdc.models import User
from tests.test_worker_process import start, wait_until

RECEIVER = f"{__name__}.Failing"
FILE = "tests/test_log_lines.py"


class Failing:
    """A receiver that raises ``error``."""

    error: type[BaseException] = ConnectionError

    def __call__(self, instance: Any, **kwargs: Any) -> None:
        raise self.error(f"no answer about {instance}: secret")


@pytest.fixture
def failing(captured: HerokuConnect, connect: Any) -> Failing:
    receiver = Failing()
    connect(signals.record_changed, receiver, User)
    return receiver


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """Return the records of the logger hc_signals."""
    return lambda: [record for record in caplog.records if record.name == "hc_signals"]


def retry(**conf: Any) -> None:
    as_the_app("UPDATE public.hc_signals_delivery SET next_attempt_at = clock_timestamp() WHERE state = 'retry'")
    deliver(**conf)


# -- one line per failure ----------------------------------------------------------------------------------------------


def test_each_attempt_is_one_line_with_everything(
    failing: Failing, captured: HerokuConnect, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_log, "SUM_SECONDS", 0)
    (sfid,) = captured.insert(User, username="secret")
    deliver(MAX_ATTEMPTS=3)
    retry(MAX_ATTEMPTS=3)
    due = aware(Delivery.objects.get().next_attempt_at)
    retry(MAX_ATTEMPTS=3)
    first, second, third = records()
    number = Delivery.objects.get().pk
    begin = rf"{RECEIVER} failed on CREATE of sfdc.User {sfid}: ConnectionError at {FILE}:\d+ __call__\."
    end = rf" `manage.py hc_deliveries show {number}`\."
    at = r"the next one at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d C[SD]T:"
    assert re.fullmatch(f"{begin} Delivery {number}, attempt 1 of 3, {at}{end}", first.message)
    assert re.fullmatch(f"{begin} Delivery {number}, attempt 2 of 3, {at}{end}", second.message)
    assert re.fullmatch(f"{begin} Delivery {number}, attempt 3 of 3, is dead:{end}", third.message)
    assert timezone.localtime(due).strftime("%Y-%m-%d %H:%M:%S %Z") in second.message
    assert [record.levelname for record in (first, second, third)] == ["WARNING", "WARNING", "ERROR"]
    assert (second.delivery_id, second.attempt, second.attempts) == (number, 2, 3)
    assert (second.record_id, second.change_type, second.model) == (sfid, "CREATE", "sfdc.User")
    assert (second.receiver, second.error_type, second.signal) == (RECEIVER, "ConnectionError", "record_changed")
    assert second.next_attempt_at == due.astimezone(UTC).isoformat(timespec="seconds")
    assert third.next_attempt_at is None
    assert second.command == f"manage.py hc_deliveries show {number}"


def test_tracebacks_are_for_debug_and_quote_no_value(
    failing: Failing, captured: HerokuConnect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "hc_signals")
    captured.insert(User, username="secret")
    deliver()
    (trace,) = [record for record in caplog.records if record.name == "hc_signals.tracebacks"]
    assert "in __call__\n" in trace.message and "raise self.error(" in trace.message
    printed = [record.message for record in caplog.records if record.name != "hc_signals.receivers"]
    assert "answer about User" not in "\n".join(printed)


# -- an outage ---------------------------------------------------------------------------------------------------------


def test_outage_is_one_line_and_then_a_count(failing: Failing, captured: HerokuConnect, records: Any) -> None:
    captured.create(User, 50)
    deliver()
    assert [record.message.partition(" failed on ")[0] for record in records()] == [RECEIVER]
    failing.error = KeyError
    captured.create(User, 1)
    deliver()
    assert "KeyError" in records()[-1].message, "another error is news"
    failure_log.log_counted()
    (*_, total) = records()
    last = Delivery.objects.order_by("id")[49].pk
    expected = (
        rf"And 49 more of {RECEIVER} \(ConnectionError\) in the last \d s, the last one is delivery {last}, "
        rf"attempt 1 of 10: `manage.py hc_deliveries list --receiver {RECEIVER}`\."
    )
    assert re.fullmatch(expected, total.message), total.message
    assert (total.count, total.receiver, total.error_type) == (49, RECEIVER, "ConnectionError")
    assert len(records()) == 3


def test_lasting_outage_is_one_line_per_period(
    failing: Failing, captured: HerokuConnect, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next line comes without a further failure; after a quiet period a failure is news again."""
    monkeypatch.setattr(failure_log, "SUM_SECONDS", 0.3)
    captured.create(User, 3)
    deliver(RETRY_SECONDS=600.0)
    wait_until(lambda: len(records()) == 2)
    assert records()[1].count == 2
    captured.create(User, 2)
    deliver(RETRY_SECONDS=600.0)
    wait_until(lambda: len(records()) == 3)
    assert records()[2].count == 2, "the outage lasts: no line of its own"
    kind = failure_log._kinds[RECEIVER, "ConnectionError", False]
    wait_until(lambda: time.monotonic() - kind.since > 0.3)
    captured.create(User, 1)
    deliver(RETRY_SECONDS=600.0)
    assert " failed on CREATE of " in records()[3].message


def test_error_trackers_get_every_failure(
    failing: Failing, captured: HerokuConnect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("hc_signals.receivers"), "handlers", [caplog.handler])
    captured.create(User, 5)
    deliver()
    assert [record.name for record in caplog.records].count("hc_signals.receivers") == 5


# -- each line once ----------------------------------------------------------------------------------------------------

CONSOLE = {"class": "logging.StreamHandler"}
LOGGINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "root": {"handlers": {"console": CONSOLE}, "root": {"handlers": ["console"], "level": "WARNING"}},
    "own logger": {
        "handlers": {"console": CONSOLE},
        "loggers": {"hc_signals": {"handlers": ["console"], "level": "INFO", "propagate": False}},
    },
    "own logger and root": {
        "handlers": {"console": CONSOLE, "also": {**CONSOLE, "stream": "ext://sys.stdout"}},
        "root": {"handlers": ["console"], "level": "INFO"},
        "loggers": {"hc_signals": {"handlers": ["also"], "level": "INFO"}},
    },
    "django only": {
        "handlers": {"console": CONSOLE},
        "loggers": {"django": {"handlers": ["console"], "level": "INFO"}},
    },
    "existing loggers disabled": {
        "disable_existing_loggers": True,
        "handlers": {"console": CONSOLE},
        "root": {"handlers": ["console"]},
    },
    "quiet console": {  # as in Django's own LOGGING: the console is for DEBUG only
        "filters": {"debug": {"()": "django.utils.log.RequireDebugTrue"}},
        "handlers": {"console": {**CONSOLE, "filters": ["debug"]}},
        "root": {"handlers": ["console"]},
    },
}


def run_once(*arguments: str, **logging_: Any) -> str:
    config = json.dumps({"version": 1, "disable_existing_loggers": False, **logging_})
    process = start("hc_listen", "--once", *arguments, FAILING_RECEIVER="1", LOGGING_JSON=config)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return str(output)


@pytest.mark.parametrize("name", LOGGINGS)
def test_no_line_is_printed_twice(captured: HerokuConnect, name: str) -> None:
    """A real process with a usual LOGGING: one line for the first failure, one for the other two."""
    captured.create(Account, 3)
    output = run_once(**LOGGINGS[name])
    assert output.count("failed on CREATE of crm.Account") == 1, output
    assert output.count("And 2 more of tests.sfdc.apps._fail (ValueError)") == 1, output
    assert "cannot handle" not in output, "the message of the error"
    assert "Traceback" not in output


@pytest.mark.parametrize("name", ["none", "root"])
def test_verbosity_chooses_the_lines(captured: HerokuConnect, name: str) -> None:
    captured.create(Account, 1)
    assert run_once("-v", "0", **LOGGINGS[name]) == ""
    as_the_app("DELETE FROM public.hc_signals_delivery")
    captured.create(Account, 1)
    output = run_once("-v", "2", **LOGGINGS[name])
    assert output.count("Traceback of delivery ") == output.count("in _fail") == 1
    assert output.count("failed on CREATE") == 1
    assert "cannot handle Account" not in output


def test_chosen_format_replaces_the_projects_console(captured: HerokuConnect) -> None:
    captured.create(Account, 3)
    output = run_once("--log-format", "json", **LOGGINGS["own logger and root"])
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["count"] for line in lines if "count" in line] == [2]
    assert sum("failed on CREATE" in line["message"] for line in lines) == 1


def test_facts_are_attributes_for_other_formatters(captured: HerokuConnect) -> None:
    """As python-json-logger and structlog read them: from the record."""
    captured.create(Account, 1)
    form = {"facts": {"format": "%(receiver)s|%(delivery_id)s|%(attempt)s|%(attempts)s|%(record_id)s|%(change_type)s"}}
    handlers = {"console": {**CONSOLE, "formatter": "facts"}}
    output = run_once(formatters=form, handlers=handlers, loggers={"hc_signals": {"handlers": ["console"]}})
    assert re.search(r"^tests\.sfdc\.apps\._fail\|\d+\|1\|10\|001\w+\|CREATE$", output, re.MULTILINE), output
