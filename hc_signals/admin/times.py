"""Times as the pages show them."""

from datetime import datetime

from hc_signals.postgres import moments


def moment(when: datetime | None) -> str:
    """Return a time with its seconds, in the time zone of the admin."""
    return "-" if when is None else moments.shown(when, zone=False)


def age(since: datetime | None) -> str:
    """Return how long ago that was, in the largest unit of which there are two."""
    return "-" if since is None else moments.age(since)
