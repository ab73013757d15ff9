"""The options of `make bench`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The options, and what follows from them."""

    only: tuple[str, ...]
    rounds: int
    quick: bool
    large: bool
    peers: bool
    snapshot_seconds: float
    idle_seconds: float
    changes: int
    allow_foreign_server: bool
    check: bool
    write_baseline: bool
    document: bool

    def size(self, full: int, quick: int) -> int:
        """Return the size for this run: ``quick`` with --quick, else ``full``."""
        return quick if self.quick else full


def parse(arguments: Sequence[str] | None, known: Sequence[str]) -> Options:
    """Parse the command line.

    Args:
        known: names of the figures.
    """
    parser = argparse.ArgumentParser(prog="make bench", description="Measure hc_signals beside bare loops and peers.")
    parser.add_argument("--only", default="", help=f"figures, by comma: {','.join(known)} (default: all)")
    parser.add_argument("--rounds", type=int, help="rounds; their median counts (default: 5; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, no peers, no long figures: under a minute")
    parser.add_argument("--large", action="store_true", help="backlog up to 10 M and 5 M retained: needs 15 GB of disk")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out")
    parser.add_argument(
        "--snapshot-seconds",
        type=float,
        help="seconds to hold a snapshot (default: 30); needs 40 MB of disk per second",
    )
    parser.add_argument("--idle-seconds", type=float, help="seconds to watch the idle worker (default: 125)")
    text = "changes that the figure `memory` delivers (default: 400000)"
    parser.add_argument("--changes", type=int, metavar="NUMBER", help=text)
    parser.add_argument(
        "--allow-foreign-server", action="store_true", help="use the server of DATABASE_URL, in databases of our own"
    )
    parser.add_argument("--check", action="store_true", help="compare a few ratios with benchmarks/baseline.json")
    parser.add_argument("--write-baseline", action="store_true", help="write those ratios to benchmarks/baseline.json")
    given = parser.parse_args(arguments)
    only = tuple(name for name in given.only.split(",") if name)
    if unknown := [name for name in only if name not in known]:
        parser.error(f"unknown figure {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    checks = given.check or given.write_baseline
    quick = given.quick or checks
    return Options(
        only=only,
        rounds=given.rounds or (3 if quick else 5),
        quick=quick,
        large=given.large,
        peers=not (given.no_peers or quick),
        snapshot_seconds=given.snapshot_seconds or (5 if quick else 30),
        idle_seconds=given.idle_seconds or (10 if quick else 125),
        changes=given.changes or (100_000 if quick else 400_000),
        allow_foreign_server=given.allow_foreign_server,
        check=given.check,
        write_baseline=given.write_baseline,
        document=not (quick or only),
    )
