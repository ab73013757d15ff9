"""The searches: each model within its bounds, and each wrong variant with the promise that it breaks."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """A search of one promise in one model."""

    model: str
    """Name of the file, without its suffix."""
    promise: str
    """Name of the LTL formula."""
    bounds: Mapping[str, int] = field(default_factory=dict)
    """Macros of the model that are set."""
    wrong: str = ""
    """The macro of a wrong variant, which must break the promise; empty: the promise must hold."""
    is_liveness: bool = False
    """The promise says that something happens at last; else that something never happens."""

    @property
    def is_wrong(self) -> bool:
        """True if the promise must be broken."""
        return bool(self.wrong)

    @property
    def variant(self) -> str:
        """The bounds, or the name of the wrong variant, as a reader sees it."""
        if self.wrong:
            return self.wrong.lower().replace("_", " ")
        return ", ".join(f"{value} {name.lower()}" for name, value in self.bounds.items())

    @property
    def flags(self) -> list[str]:
        """The options of Spin that set the macros."""
        flags = [f"-D{name}={value}" for name, value in self.bounds.items()]
        return [*flags, f"-D{self.wrong}"] if self.wrong else flags

    @property
    def folder(self) -> str:
        """Name of the folder in which the case is searched."""
        return "-".join([self.model, self.promise, *self.variant.replace(",", "").split()])


_SMALL = {"WRITERS": 2, "IDS": 2, "SHARDS": 1}
_THREE = {"WRITERS": 3, "IDS": 2, "SHARDS": 1}
_ONE_WRITER = {"WRITERS": 1, "THREADS": 1}

CASES = [
    Case("reader", "every_promise", _THREE),
    Case("reader", "every_promise", {"WRITERS": 2, "IDS": 3, "SHARDS": 1}),
    Case("reader", "every_promise", {"WRITERS": 2, "IDS": 2, "SHARDS": 2}),
    Case("reader", "nothing_lost", _SMALL, "ID_CURSOR"),
    Case("reader", "order_per_record", _THREE, "XMIN_WATERMARK"),
    Case("reader", "strangers_never_delay", _SMALL, "XMIN_WATERMARK"),
    Case("reader", "nothing_lost", _THREE, "FLOOR_FROM_XMAX"),
    Case("reader", "nothing_lost", _SMALL, "NEWEST_AFTER_TARGET"),
    Case("reader", "nothing_lost", _SMALL, "CEILING_BEFORE_TARGET"),
    Case("reader", "nothing_lost", _SMALL, "TARGET_AFTER_WRITE"),
    Case("reader", "nothing_lost", {"WRITERS": 2, "IDS": 3, "SHARDS": 1}, "FRESH_TARGET"),
    Case("reader", "nothing_lost", _SMALL, "LATE_ONES_IGNORED"),
    Case("reader", "order_per_record", _SMALL, "ID_BEFORE_LOCK"),
    Case("doorbell", "bell_never_missed", {"WRITERS": 2, "THREADS": 1}),
    Case("doorbell", "bell_never_missed", {"WRITERS": 1, "THREADS": 2}),
    Case("doorbell", "nothing_waits_forever", _ONE_WRITER, is_liveness=True),
    Case("doorbell", "bell_never_missed", _ONE_WRITER, "NO_SECOND_READ"),
    Case("doorbell", "bell_never_missed", _ONE_WRITER, "SHARE_ENDS_EARLY"),
    Case("doorbell", "bell_never_missed", _ONE_WRITER, "RING_BEFORE_COMMIT"),
    Case("doorbell", "bell_never_missed", _ONE_WRITER, "CLEAR_AFTER_READ"),
    Case("doorbell", "bell_never_missed", _ONE_WRITER, "LOCK_NOT_WATCHED"),
]
