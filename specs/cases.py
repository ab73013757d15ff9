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


_READER = {"WRITERS": 2, "IDS": 2, "SHARDS": 1}
_THREE_WRITERS = {"WRITERS": 3, "IDS": 2, "SHARDS": 1}
_BELL = {"WRITERS": 1, "THREADS": 1}
_ONE_SHARD = {"FROM": 1, "TO": 1, "CHANGES": 2}
_TWO_TO_ONE = {"FROM": 2, "TO": 1, "CHANGES": 2}
_TWO_NOT_ATOMIC = {**_TWO_TO_ONE, "NOT_ATOMIC": 1}
_ROTATION = {"WRITERS": 2, "CONSUMERS": 1}
_GAP = {"WRITERS": 2}

CASES = [
    Case("reader", "every_promise", _THREE_WRITERS),
    Case("reader", "every_promise", {"WRITERS": 2, "IDS": 3, "SHARDS": 1}),
    Case("reader", "every_promise", {"WRITERS": 2, "IDS": 2, "SHARDS": 2}),
    Case("reader", "nothing_lost", _READER, "ID_CURSOR"),
    Case("reader", "order_per_record", _THREE_WRITERS, "XMIN_WATERMARK"),
    Case("reader", "others_never_delay", _READER, "XMIN_WATERMARK"),
    Case("reader", "nothing_lost", _THREE_WRITERS, "FLOOR_FROM_XMAX"),
    Case("reader", "nothing_lost", _READER, "NEWEST_AFTER_TARGET"),
    Case("reader", "nothing_lost", _READER, "CEILING_BEFORE_TARGET"),
    Case("reader", "nothing_lost", _READER, "TARGET_AFTER_WRITE"),
    Case("reader", "nothing_lost", {"WRITERS": 2, "IDS": 3, "SHARDS": 1}, "FRESH_TARGET"),
    Case("reader", "nothing_lost", _READER, "LATE_ONES_IGNORED"),
    Case("reader", "order_per_record", _READER, "ID_BEFORE_LOCK"),
    Case("doorbell", "bell_never_missed", {"WRITERS": 2, "THREADS": 1}),
    Case("doorbell", "bell_never_missed", {"WRITERS": 1, "THREADS": 2}),
    Case("doorbell", "nothing_waits_forever", _BELL, is_liveness=True),
    Case("doorbell", "bell_never_missed", _BELL, "NO_SECOND_READ"),
    Case("doorbell", "bell_never_missed", _BELL, "SHARE_ENDS_EARLY"),
    Case("doorbell", "bell_never_missed", _BELL, "RING_BEFORE_COMMIT"),
    Case("doorbell", "bell_never_missed", _BELL, "CLEAR_AFTER_READ"),
    Case("doorbell", "bell_never_missed", _BELL, "LOCK_NOT_WATCHED"),
    Case("handover", "every_promise", {"FROM": 1, "TO": 1, "CHANGES": 4}),
    Case("handover", "every_promise", {"FROM": 1, "TO": 2, "CHANGES": 3}),
    Case("handover", "every_promise", {"FROM": 2, "TO": 1, "CHANGES": 3}),
    Case("handover", "every_promise", {"FROM": 2, "TO": 2, "CHANGES": 3}),
    Case("handover", "at_least_once", {"FROM": 1, "TO": 1, "CHANGES": 2, "NOT_ATOMIC": 1}),
    Case("handover", "nothing_twice", _ONE_SHARD, "NO_CLAIM"),
    Case("handover", "nothing_twice", _ONE_SHARD, "LEASE"),
    Case("handover", "nothing_twice", _ONE_SHARD, "STANDING_BEFORE_CLAIM"),
    Case("handover", "nothing_twice", _ONE_SHARD, "EFFECTS_FIRST"),
    Case("handover", "nothing_lost", _ONE_SHARD, "POSITION_FIRST"),
    Case("handover", "nothing_twice", {"FROM": 1, "TO": 2, "CHANGES": 3}, "LAYOUT_NOT_CHECKED"),
    Case("handover", "nothing_twice", {"FROM": 1, "TO": 2, "CHANGES": 3}, "RESHARD_WITHOUT_CLAIMS"),
    Case("handover", "nothing_lost", _TWO_TO_ONE, "FROM_THE_LATEST"),
    Case("handover", "nothing_twice", _TWO_TO_ONE, "FROM_THE_EARLIEST"),
    Case("handover", "layout_stays", _TWO_NOT_ATOMIC),
    Case("handover", "layout_stays", _TWO_NOT_ATOMIC, "POSITION_OUTSIDE_CLAIM"),
    Case("rotation", "every_promise", {"WRITERS": 2, "CONSUMERS": 1, "TIMES": 2}),
    Case("rotation", "every_promise", {"WRITERS": 1, "CONSUMERS": 2, "TIMES": 2}),
    Case("rotation", "nothing_lost", _ROTATION, "CHECK_BEFORE_LOCK"),
    Case("rotation", "nothing_lost", _ROTATION, "ROTATE_BY_READ"),
    Case("rotation", "rows_stay_while_read", _ROTATION, "TRUNCATE_WITHOUT_LOCK"),
    Case("rotation", "no_request_queues", _ROTATION, "LOCK_WAITS"),
    Case("gap", "no_silent_loss", {"WRITERS": 3}),
    Case("gap", "no_silent_loss", _GAP, "LOSE_WITHOUT_LOCK"),
    Case("gap", "no_silent_loss", _GAP, "COUNT_BEFORE_LOCK"),
    Case("gap", "no_silent_loss", _GAP, "LOCKS_BEFORE_COUNT"),
    Case("gap", "no_silent_loss", _GAP, "COUNT_WITHOUT_LOCKS"),
    Case("gap", "no_silent_loss", _GAP, "GAP_AT_ONCE"),
    Case("gap", "no_silent_loss", _GAP, "SKIP_WITHOUT_LOCK"),
    Case("gap", "no_silent_loss", _GAP, "PAUSE_READ_ONCE"),
    Case("gap", "no_silent_loss", _GAP, "REPEATABLE_READ_SKIPS"),
    Case("gap", "no_silent_loss", _GAP, "RESUME_LOCKS_ALONE"),
]
