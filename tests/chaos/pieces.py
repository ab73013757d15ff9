"""A long run in pieces: each has its own seed, server, ledgers and verdict, and a stopped run continues."""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from specs import history
from tests import clock, pgbouncer, small_disk

KINDS = (*history.KINDS, "kept")


def variant(number: int) -> list[str]:
    """Return the options of a piece: three pieces have all faults between them, as far as the machine allows."""
    options = ["--misbehave"]
    if clock.FAKETIME:
        options += ["--clock"]
    if number % 3 and pgbouncer.program():
        options += ["--pooler", "transaction" if number % 3 == 1 else "session"]
    if number % 3 == 2 and small_disk.can_have_small_disk():
        return [*options, "--small-disk"]
    return [*options, "--standby", "lossy" if number % 2 else "synchronous"]


def run(options: argparse.Namespace) -> int:
    """Run the pieces that have no report; print a summary; return 1 if a piece was not right."""
    options.directory.mkdir(parents=True, exist_ok=True)
    stored = options.directory / "seed"
    if not stored.exists():
        stored.write_text(str(options.seed))
    seed = int(stored.read_text())
    for number in range(options.pieces):
        piece = options.directory / f"piece-{number:03}"
        if not (piece / "report.json").exists():
            piece.mkdir(exist_ok=True)
            _run_piece(piece, seed + number, variant(number), options)
        print(f"chaos: {_summary([piece])}", flush=True)
    pieces = sorted(options.directory.glob("piece-*"))
    print(f"chaos: all pieces of seed {seed}: {_summary(pieces)}")
    return int(any(_report(piece).get("code", 1) for piece in pieces))


def _run_piece(piece: Path, seed: int, more: list[str], options: argparse.Namespace) -> None:
    """Run one piece as a process of its own. The report appears when it has ended by itself."""
    figures = piece / "figures.json"
    figures.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.chaos.run", *sys.argv[1:], "--pieces", "0", "--seed", str(seed)]
    command += ["--seconds", "0", "--changes", str(options.changes), "--json", str(figures)]
    command += ["--history", str(piece), *more]
    with (piece / "log").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    if figures.exists():
        report = json.loads(figures.read_text()) | {"code": code}
        (piece / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def _report(piece: Path) -> dict[str, Any]:
    file = piece / "report.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _summary(pieces: list[Path]) -> str:
    """Return the sums over some pieces."""
    reports = [_report(piece) for piece in pieces]
    found, faults, changes = Counter[str](dict.fromkeys(KINDS, 0)), Counter[str](), 0
    for report in filter(None, reports):
        verdicts = list(report["consumers"].values())
        changes += max(verdict["changes"] for verdict in verdicts)
        for verdict in verdicts:
            found.update({kind: verdict[kind] for kind in KINDS})
        faults.update(report["faults"])
        faults.update(report["receivers"])
    wrong = [piece.name for piece, report in zip(pieces, reports, strict=True) if report.get("code", 1)]
    name = pieces[0].name if len(pieces) == 1 else f"{len(pieces)} pieces"
    return (
        f"{name}: {changes} changes; {', '.join(f'{count} {kind}' for kind, count in found.items())}; "
        f"{faults.total()} faults: {', '.join(f'{count} {kind}' for kind, count in sorted(faults.items()))}; "
        f"not right: {', '.join(wrong) or 'none'}"
    )
