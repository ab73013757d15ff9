"""Moments as people write them: an age (``90m``, ``2h``, ``3d``) or an ISO time, always in the past."""

import re
from datetime import datetime, timedelta

from django.utils import timezone

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_moment(text: str) -> datetime:
    """Return the moment as an aware datetime.

    Args:
        text: an age of seconds, minutes, hours, days or weeks, or an ISO time; without an offset it is taken in
            ``TIME_ZONE``.

    Raises:
        ValueError: it is neither, or it lies in the future.
    """
    now = timezone.now()
    try:
        if age := _AGE.fullmatch(text.strip()):
            return now - timedelta(seconds=float(age[1]) * _SECONDS[age[2]])
        found = datetime.fromisoformat(text.strip())
        found = timezone.make_aware(found) if timezone.is_naive(found) else found
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time: expected an age such as '90m', '2h' or '3d', or an ISO time such as "
            "'2026-01-31T12:00+00:00'"
        ) from None
    if found > now:
        raise ValueError(f"{text!r} is in the future: now it is {now.isoformat(timespec='seconds')}")
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
