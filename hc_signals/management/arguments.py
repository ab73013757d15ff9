"""Numbers, times and replay ids on the command line: argparse turns an error into a usage message and exit code 2."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from django.utils import timezone

N = TypeVar("N", int, float)

_REPLAY_ID = re.compile(r"[0-9a-f]{8}-\d{15,18}")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def at_least(least: N) -> Callable[[str], N]:
    """Return an argparse type for numbers of the type of ``least`` that are not below it."""
    kind = type(least)

    def convert(text: str) -> N:
        try:
            number = kind(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a number") from None
        if not least <= number < float("inf"):
            raise ArgumentTypeError(f"{text} is out of range: expected {least} or more")
        return number

    return convert


def moment(text: str) -> datetime:
    """Return a time in the past: an age (``90m``, ``2h``, ``3d``), or ISO 8601, without an offset in TIME_ZONE."""
    try:
        age = re.fullmatch(r"(\d+)([smhd])", text)
        if age:
            return timezone.now() - timedelta(**{_UNITS[age[2]]: int(age[1])})
        found = datetime.fromisoformat(text)
        found = found if timezone.is_aware(found) else timezone.make_aware(found)
        is_past = found <= timezone.now()
    except (ValueError, OverflowError):
        raise ArgumentTypeError(
            f"{text!r} is not a time; expected an age like 90m, 2h or 3d, or a time like 2030-01-31T08:00"
        ) from None
    if not is_past:
        raise ArgumentTypeError(f"{text} lies in the future")
    return found


def replay_id(text: str) -> str:
    """Check that the text has the form of a replay id."""
    if not _REPLAY_ID.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is not a replay id; expected one like 1f2e3d4c-000000000000123")
    return text


def moment_or_replay_id(text: str) -> datetime | str:
    """Return a time in the past as a datetime, a replay id as it is."""
    return text if _REPLAY_ID.fullmatch(text) else moment(text)
