"""A long chaos run in pieces: a stopped run continues, and the summary counts every piece."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from specs import history
from tests.chaos import misbehaviours, pieces
from tests.chaos.faults import KINDS


def report(code: int = 0, **found: int) -> dict[str, Any]:
    verdict = {"changes": 10, **dict.fromkeys((*history.KINDS, "kept"), 0), **found}
    consumers = {"changes": verdict, "pages": verdict}
    return {"consumers": consumers, "faults": {"kill_worker": 2}, "receivers": {"forks": 1}, "code": code}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the pieces that have run. The third piece stops without a verdict, the first time."""
    seeds: list[int] = []

    def run_piece(piece: Path, seed: int, more: list[str], options: argparse.Namespace) -> None:
        seeds.append(seed)
        if seed != 9 or seeds.count(seed) > 1:
            (piece / "report.json").write_text(json.dumps(report(code=int(seed == 8), lost=int(seed == 8))))

    monkeypatch.setattr(pieces, "_run_piece", run_piece)
    return seeds


def test_stopped_run_continues_and_counts_every_piece(ran: list[int], tmp_path: Path, capsys: Any) -> None:
    directory = tmp_path / "chaos"
    assert pieces.run(argparse.Namespace(directory=directory, seed=7, pieces=3, changes=10)) == 1
    assert "30 changes" not in capsys.readouterr().out
    assert pieces.run(argparse.Namespace(directory=directory, seed=999, pieces=4, changes=10)) == 1
    assert ran == [7, 8, 9, 9, 10], "what has a report is not repeated, and the seed stays"
    *_, last = capsys.readouterr().out.splitlines()
    assert last == (
        "chaos: all pieces of seed 7: 4 pieces: 40 changes; 2 lost, 0 twice, 0 inverted, 0 stale, 0 unknown, 0 torn, "
        "0 kept; 12 faults: 4 forks, 8 kill_worker; not right: piece-001"
    )


def test_three_pieces_have_every_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces.clock, "FAKETIME", Path("/there"))
    monkeypatch.setattr(pieces.pgbouncer, "program", lambda: "/there")
    monkeypatch.setattr(pieces.small_disk, "can_have_small_disk", lambda: True)
    options = {option for number in range(3) for option in pieces.variant(number)}
    assert options >= {"--misbehave", "--clock", "--pooler", "transaction", "session", "--small-disk", "--standby"}
    assert {"synchronous", "lossy"} <= {option for number in range(4) for option in pieces.variant(number)}


def test_page_names_every_fault() -> None:
    text = (Path(__file__).parent.parent / "docs" / "guarantees.md").read_text()
    assert all(f"| `{kind}` |" in text for kind in KINDS)


def test_every_misbehaving_receiver_has_its_turn() -> None:
    named = {
        name
        for name, value in vars(misbehaviours).items()
        if callable(value) and value.__module__ == misbehaviours.__name__ and not name.startswith("_")
    }
    assert {way.__name__ for way in (*misbehaviours.WAYS, *misbehaviours.DEAR)} == named - {"misbehave", "count"}
