"""Numbers, times and replay ids on the command line: argparse turns an error into a usage message and exit code 2."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from hc_signals.postgres.moments import check_start, parse_moment

N = TypeVar("N", int, float)

_REPLAY_ID = re.compile(r"[0-9a-f]{12}-\d{15,18}")


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


def tcp_port(text: str) -> int:
    """An argparse type: a TCP port; 0 takes a free one."""
    port = at_least(0)(text)
    if port > 65535:
        raise ArgumentTypeError(f"{text} is no TCP port: expected 0 to 65535")
    return port


def moment(text: str) -> datetime:
    """An argparse type: an age such as ``2h``, or an ISO time in the past, as an aware datetime."""
    try:
        return parse_moment(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def start_at(text: str) -> str:
    """An argparse type: where a consumer can start (``earliest``, ``latest`` or a moment), as it was written."""
    try:
        return check_start(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def replay_id(text: str) -> str:
    """Check that the text has the form of a replay id."""
    if not _REPLAY_ID.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is not a replay id; expected one like 692ad1f03e4c-000000000000123")
    return text


def moment_or_replay_id(text: str) -> datetime | str:
    """Return a time in the past as a datetime, a replay id as it is."""
    return text if _REPLAY_ID.fullmatch(text) else moment(text)
