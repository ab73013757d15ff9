"""Times and replay ids on the command line."""

from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta

import pytest

from hc_signals.management.arguments import moment, moment_or_replay_id, replay_id
from hc_signals.postgres.moments import now


@pytest.mark.parametrize(
    ("text", "age"),
    [("90s", timedelta(seconds=90)), ("90m", timedelta(minutes=90)), ("2h", timedelta(hours=2)), ("3d", timedelta(3))],
)
def test_age_is_a_moment_in_the_past(text: str, age: timedelta) -> None:
    assert abs(now() - age - moment(text)) < timedelta(seconds=5)


def test_time_without_offset_is_in_the_projects_zone() -> None:
    assert moment("2024-06-01T12:00") == datetime(2024, 6, 1, 17, 0, tzinfo=UTC), "Chicago is five hours behind"
    assert moment("2024-06-01T12:00Z") == moment_or_replay_id("2024-06-01T14:00+02:00")


@pytest.mark.parametrize("text", ["", "h", "-2h", "2w", "1.5h", "yesterday", "2024-13-01", "9" * 30 + "d"])
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a time; expected an age like 90m") as error:
        moment(text)
    assert "\n" not in str(error.value)


def test_future_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match="lies in the future"):
        moment("2999-01-01")


def test_replay_id_must_have_its_form() -> None:
    assert moment_or_replay_id("0a1b2c3d4e5f-000000000000007") == replay_id("0a1b2c3d4e5f-000000000000007")
    good = "0a1b2c3d4e5f-000000000000007"
    for text in ("7", "0a1b2c3d4e5f-7", good.upper(), good + "\n", "0a1b2c3d4e5f-" + "9" * 30):
        with pytest.raises(ArgumentTypeError, match="is not a replay id"):
            replay_id(text)
