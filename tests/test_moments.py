"""Times that people write, on the command line and in the setting."""

from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings

from hc_signals.conf import Conf
from hc_signals.exceptions import ConfigurationError
from hc_signals.management.arguments import moment, start_at
from hc_signals.postgres.moments import now


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90m", timedelta(minutes=90)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("0s", timedelta()),
    ],
)
def test_moment_reads_ages(text: str, age: timedelta) -> None:
    before = now()
    assert before <= moment(text) + age <= now()


@override_settings(TIME_ZONE="Europe/Berlin")
def test_moment_reads_iso_times() -> None:
    assert moment("2026-01-31T12:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert moment("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment("2025-07-01 12:00") == datetime(2025, 7, 1, 10, tzinfo=UTC), "in TIME_ZONE"
    assert moment("2025-07-01") == datetime(2025, 6, 30, 22, tzinfo=UTC)
    assert moment("0001-01-01") < moment("7d")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2",
        "h",
        "-2h",
        "2 hours",
        "1.5h",
        "2w",
        "yesterday",
        "2h30m",
        "1e3s",
        "nan",
        "99999999999999d",
        "2026-13-01",
        "12:00",
        "٣h",
        "\x00",
    ],
)
def test_moment_refuses_nonsense(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a time; expected an age"):
        moment(text)
    with pytest.raises(ArgumentTypeError, match="'earliest' and 'latest' are taken too"):
        start_at(text)


def test_moment_refuses_the_future() -> None:
    tomorrow = (now() + timedelta(days=1)).isoformat()
    for check in (moment, start_at):
        with pytest.raises(ArgumentTypeError, match="lies in the future"):
            check(tomorrow)


def test_start_at_setting_is_checked() -> None:
    for value in ("earliest", "latest", "2h", "2026-01-31"):
        assert Conf(START_AT=value).START_AT == start_at(value) == value
    wrong: Any
    for wrong, message in (
        ("newest", "'newest' is not a time"),
        (5, "is 5; expected str"),
        ("2h3", "'2h3' is not a time"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Conf(START_AT=wrong)
