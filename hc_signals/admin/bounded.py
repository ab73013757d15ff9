"""Lists that are counted, paged through and acted on up to a limit only."""

from typing import Any

from django.core.paginator import Paginator
from django.utils.functional import cached_property

COUNTED_ROWS = 10_000
"""Rows that the admin counts, pages through and acts on at once, at most; filters lead to the others."""


def first_rows(queryset: Any) -> Any:
    """Return the rows that an action may take: "select all" names the bounded count, so no more than that."""
    return queryset[:COUNTED_ROWS]


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Stops counting at COUNTED_ROWS: the archive of a busy connection holds millions of rows."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, at most COUNTED_ROWS."""
        rows: Any = self.object_list
        return int(first_rows(rows.order_by()).count())
