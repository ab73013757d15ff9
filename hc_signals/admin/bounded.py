"""The limit up to which the admin counts lists, shows their pages and acts on their rows."""

from typing import Any

from django.core.paginator import Paginator
from django.utils.functional import cached_property

COUNTED_ROWS = 10_000
"""Most rows that the admin counts and acts on at once; filters lead to the others."""


def first_rows(queryset: Any) -> Any:
    """Return the rows that one action may take, at most COUNTED_ROWS."""
    return queryset[:COUNTED_ROWS]


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to COUNTED_ROWS: the archive of a busy connection has millions of rows."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, at most COUNTED_ROWS."""
        rows: Any = self.object_list
        return int(first_rows(rows.order_by()).count())
