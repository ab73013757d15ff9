"""Times as the pages show them."""

from datetime import datetime

from django.utils import timezone


def moment(when: datetime | None) -> str:
    """Return a time with its seconds, in the time zone of the admin."""
    return "-" if when is None else f"{timezone.localtime(when):%Y-%m-%d %H:%M:%S}"


def age(since: datetime | None) -> str:
    """Return how long ago that was, in the largest unit of which there are two."""
    if since is None:
        return "-"
    seconds = max(0, int((timezone.now() - since).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
