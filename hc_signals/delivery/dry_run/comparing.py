"""Compares two reports about the same changes, as JSON: what does other code do differently?"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hc_signals.postgres.written_rows import Written

Json = Mapping[str, Any]


class Difference(NamedTuple):
    """One difference between two reports."""

    receiver: str
    kind: str
    """``new``, ``gone``; ``new error``, ``more errors``, ``fewer errors``, ``gone error``; ``calls``, ``writes``,
    ``queries``, ``time``."""
    text: str

    @property
    def is_new_error(self) -> bool:
        """Whether more calls fail with the same error than before."""
        return self.kind in ("new error", "more errors")


def compare(before: Json, after: Json) -> list[Difference]:
    """Return the differences by receiver; the time of a receiver that was called in both is always one of them."""
    old, new = before["receivers"], after["receivers"]
    return [each for name in sorted({*old, *new}) for each in _of_receiver(name, old.get(name), new.get(name))]


def _of_receiver(name: str, before: Json | None, after: Json | None) -> Iterator[Difference]:
    if after is None:
        yield Difference(name, "gone", "it is not connected any more")
        return
    if before is None:
        yield Difference(name, "new", f"{after['calls']} calls")
    yield from (Difference(name, *each) for each in _errors((before or {}).get("failures", {}), after["failures"]))
    if before is not None:
        yield from (Difference(name, *each) for each in _figures(before, after))


def _errors(before: Json, after: Json) -> Iterator[tuple[str, str]]:
    for key in sorted({*before, *after}):
        was, now = (each[key]["count"] if key in each else 0 for each in (before, after))
        if was != now:
            shown = after.get(key) or before[key]
            kind = ("more errors" if was else "new error") if now > was else "fewer errors" if now else "gone error"
            example = f"{shown['model']} {shown['record']}".strip()
            yield kind, f"{shown['error']}: {was} → {now} calls, for example {example}"


def _figures(before: Json, after: Json) -> Iterator[tuple[str, str]]:
    if before["calls"] != after["calls"]:
        yield "calls", f"{before['calls']} → {after['calls']}"
    for table in sorted({*before["written"], *after["written"]}):
        was, now = before["written"].get(table, {}), after["written"].get(table, {})
        pairs = [(kind, was.get(kind, 0), now.get(kind, 0)) for kind in Written._fields]
        if changed := [f"{old} → {new} {kind}" for kind, old, new in pairs if old != new]:
            yield "writes", f"{table}: {', '.join(changed)}"
    if before["calls"] and after["calls"]:
        was, now = (each["queries"] / each["calls"] for each in (before, after))
        if was != now:
            yield "queries", f"{was:.1f} → {now:.1f} a call{_ratio(was, now)}"
        was, now = (each["seconds"]["p50"] for each in (before, after))
        yield "time", f"p50 {1000 * was:.1f} → {1000 * now:.1f} ms{_ratio(was, now)}"


def _ratio(was: float, now: float) -> str:
    return f" ({now / was:.2f} times)" if was else ""
