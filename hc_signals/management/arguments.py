"""Types of options for argparse: numbers, times, replay ids. A wrong value is a usage error with exit code 2."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from hc_signals.postgres.moments import check_start, parse_moment

N = TypeVar("N", int, float)
T = TypeVar("T")

_REPLAY_ID = re.compile(r"[0-9a-f]{12}-\d{15,18}")


def at_least(least: N) -> Callable[[str], N]:
    """Return a type for numbers from ``least`` up; ``least`` says whether they are integers."""
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


def tcp_port(text: str) -> int:
    """Accept a TCP port; 0 means any free one."""
    port = at_least(0)(text)
    if port > 65535:
        raise ArgumentTypeError(f"{text} is no TCP port: expected 0 to 65535")
    return port


def moment(text: str) -> datetime:
    """Accept an age such as ``2h``, or an ISO time in the past; return an aware datetime."""
    return _parsed(parse_moment, text)


def start_at(text: str) -> str:
    """Accept the start of a consumer: ``earliest``, ``latest`` or a moment; return it as it is."""
    return _parsed(check_start, text)


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def replay_id(text: str) -> str:
    """Accept a replay id; return it as it is."""
    if not _REPLAY_ID.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is not a replay id; expected one like 692ad1f03e4c-000000000000123")
    return text


def moment_or_replay_id(text: str) -> datetime | str:
    """Accept a moment, returned as a datetime, or a replay id, returned as it is."""
    return text if _REPLAY_ID.fullmatch(text) else moment(text)
