"""The result of a check."""

from collections import Counter
from dataclasses import dataclass, field

PROOFS = ("late commits", "takeovers", "races at falling asleep")
"""A run without one of these is refused."""


@dataclass(frozen=True)
class Refusal:
    """The first refused step of one consumer."""

    consumer: str
    rule: str
    text: str
    process: str
    line: int


@dataclass
class Report:
    """The result of a check."""

    steps: int = 0
    changes: int = 0
    """Deliveries of changes that were committed with their position."""
    seen: Counter[str] = field(default_factory=Counter)
    """How many times the run had what makes it a proof, and the kinds of its steps."""
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """By consumer; ``all`` if two processes together break a rule."""
    missing: list[str] = field(default_factory=list)
    """What the run lacks, so that it proves nothing."""

    @property
    def is_accepted(self) -> bool:
        """True if no step was refused, and the run proves something."""
        return not self.refusals and not self.missing

    def __str__(self) -> str:
        had = ", ".join(f"{self.seen[name]:,} {name}" for name in PROOFS)
        lines = [f"follows: {self.steps:,} steps, {self.changes:,} delivered changes, {had}"]
        lines += [
            f"follows: REFUSED, consumer {each.consumer}: {each.text} (step {each.line} of {each.process})"
            for each in self.refusals.values()
        ]
        lines += [f"follows: REFUSED, the run proves nothing: it has no {name}" for name in self.missing]
        return "\n".join([*lines, *(["follows: accepted"] if self.is_accepted else [])])
