"""Moments as people write them: an age (``90m``, ``2h``, ``3d``) or an ISO time, always in the past."""

import re
from datetime import datetime, timedelta

from django.utils import timezone

_AGE = re.compile(r"(\d+)([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_moment(text: str) -> datetime:
    """Return the moment as an aware datetime.

    Args:
        text: an age of seconds, minutes, hours or days, or an ISO time; without an offset it is taken in
            ``TIME_ZONE``.

    Raises:
        ValueError: it is neither, or it lies in the future.
    """
    now = timezone.now()
    try:
        if age := _AGE.fullmatch(text):
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        found = datetime.fromisoformat(text)
        found = timezone.make_aware(found) if timezone.is_naive(found) else found
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; expected an age like 90m, 2h or 3d, or a time like 2026-01-31T08:00"
        ) from None
    if found > now:
        raise ValueError(f"{text} lies in the future")
    return found


def check_start(text: str) -> str:
    """Return ``text`` if a consumer can start there: ``earliest``, ``latest``, or a moment.

    Raises:
        ValueError: it cannot.
    """
    if text not in ("earliest", "latest"):
        try:
            parse_moment(text)
        except ValueError as error:
            raise ValueError(f"{error}; 'earliest' and 'latest' are taken too") from None
    return text
