"""Checks of arguments on the command line: argparse turns the error into a usage message and exit code 2."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from hc_signals.moments import check_start, parse_moment

N = TypeVar("N", int, float)


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
