"""Checks of numbers on the command line: argparse turns the error into a usage message and exit code 2."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

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
