"""Moments: aware datetimes inside hc_signals, shown in the project's time zone, with USE_TZ on or off.

With ``USE_TZ = False`` Django gives naive datetimes in the project's zone, from the clock and from the database. Code
that reads one from the database calls :func:`aware`; the clock is :func:`now`.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, overload

from django.utils import timezone

_AGE = re.compile(r"(\d+)([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def now() -> datetime:
    """Return the present as an aware datetime."""
    return datetime.now(UTC)


@overload
def aware(when: datetime) -> datetime: ...
@overload
def aware(when: datetime | None) -> datetime | None: ...
def aware(when: datetime | None) -> datetime | None:
    """Return a datetime of the database as an aware datetime, in UTC.

    The moment is exact: Django makes the project's ``TIME_ZONE`` the session's, and in the hour that a clock repeats
    ``fold`` says which one. UTC, because Python finds no time of such an hour equal to one of another zone.
    """
    if when is None:
        return None
    when = when.replace(tzinfo=timezone.get_default_timezone()) if timezone.is_naive(when) else when
    return when.astimezone(UTC)


def aware_row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of the database with its datetimes made aware."""
    return tuple(aware(value) if isinstance(value, datetime) else value for value in row)


def written(when: datetime) -> datetime:
    """Return a time that a person wrote as an aware datetime; without an offset it is in the zone of :func:`shown`."""
    return timezone.make_aware(when) if timezone.is_naive(when) else when


def shown(when: datetime, zone: bool = True) -> str:
    """Return a time as people read it: in the project's time zone, or the one that a request has activated."""
    return in_zone(when).strftime("%Y-%m-%d %H:%M:%S %Z" if zone else "%Y-%m-%d %H:%M:%S")


def in_zone(when: datetime) -> datetime:
    """Return a moment in the time zone in which moments are shown."""
    return timezone.localtime(aware(when))


def of_image(value: Any) -> datetime | None:
    """Return a time of a stored image, aware; None if the text is none. Heroku Connect stores UTC, without a zone."""
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def zone_name() -> str:
    """Return the name of the time zone of :func:`shown` and its present offset: ``Europe/Berlin, now UTC+01:00``."""
    offset = timezone.localtime(now()).strftime("%z")
    return f"{timezone.get_current_timezone_name()}, now UTC{offset[:3]}:{offset[3:5]}"


def age(since: datetime) -> str:
    """Return how long ago that was, in the largest unit that gives at least two."""
    return span((now() - aware(since)).total_seconds())


def until(when: datetime) -> str:
    """Return how long it is until then: ``in 3 min``; ``now`` if that time has passed."""
    seconds = (aware(when) - now()).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else "now"


def span(seconds: float) -> str:
    """Return a number of seconds in the largest unit that gives at least two; a negative one is ``0 s``."""
    seconds = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def parse_moment(text: str) -> datetime:
    """Return a moment as an aware datetime; raise ValueError if the text is none, or the moment is in the future.

    The text is an age of seconds, minutes, hours or days, or an ISO time; without an offset it is taken in
    ``TIME_ZONE``.
    """
    present = now()
    try:
        if age := _AGE.fullmatch(text):
            return present - timedelta(**{_UNITS[age[2]]: int(age[1])})
        found = written(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; expected an age like 90m, 2h or 3d, or a time like 2026-01-31T08:00"
        ) from None
    if found > present:
        raise ValueError(f"{text} lies in the future")
    return found


def check_start(text: str) -> str:
    """Return ``text`` if it is ``earliest``, ``latest``, or a moment; else raise ValueError."""
    if text not in ("earliest", "latest"):
        try:
            parse_moment(text)
        except ValueError as error:
            raise ValueError(f"{error}; 'earliest' and 'latest' are taken too") from None
    return text
