"""The table that compares hc_signals with other systems under faults; the runs themselves are `make chaos-peers`."""

from typing import Any

import pytest

from tests.chaos.peers import __main__ as peers
from tests.chaos.peers import systems
from tests.chaos.peers.faults import FAULTS
from tests.chaos.peers.system import ROOT, TRIGGER

RIGHT = {"fault": "kill", "lost": 0, "twice": 0, "inverted": 0, "unknown": 0, "stuck": 0, "recoveries": [1.0, 3.0, 5.0]}


def text(name: str, **figures: Any) -> str:
    """Return the cell of one system under one fault."""
    options = peers.parse(["--systems", name, "--faults", "kill", "--seeds", "1"])
    line = peers.table(options, {(name, "kill"): [{**RIGHT, **figures}]}).splitlines()[-1]
    return line.split("|")[2].strip()


def test_cell_has_counts_and_times() -> None:
    assert text("ours") == "0 / 0 / 0; 3.0 s, at most 5.0 s"


def test_cell_marks_what_is_not_promised() -> None:
    figures = {"lost": 1, "twice": 2, "inverted": 3}
    assert text("ours", **figures).startswith("1 / 2 / 3;")
    assert text("pgpubsub", **figures).startswith("1 / 2 / (3);")
    assert text("procrastinate", **figures).startswith("1 / (2) / 3;")
    assert text("pgqueuer", **figures).startswith("1 / (2) / (3);")


def test_cell_counts_times_without_recovery() -> None:
    shown = text("pgqueuer", lost=2, stuck=7, recoveries=[1.0, None])
    assert shown == "2 / 0 / 0; 1.0 s, at most 1.0 s; 1 of 2 times not within the limit; 5 only after a restart"


def test_table_says_which_cells_were_not_run() -> None:
    options = peers.parse(["--systems", "ours", "outbox", "--faults", "kill"])
    failed = {"system": "outbox", "fault": "kill", "seed": 1, "error": "no server"}
    lines = peers.table(options, {("ours", "kill"): [RIGHT], ("outbox", "kill"): [failed]}).splitlines()
    assert lines[2] == "| no fault | not run | not run |"
    assert lines[3] == "| worker killed | 0 / 0 / 0; 3.0 s, at most 5.0 s (1 of 3 runs) | not run |"


@pytest.mark.parametrize("kind", ["lost", "twice", "inverted", "unknown"])
def test_finding_without_fault_fails_the_run(kind: str) -> None:
    """It means that the run has set the system up wrongly."""
    control = {**RIGHT, "fault": "none"}
    for name in systems.NAMES:
        assert peers.is_right(name, control)
        assert not peers.is_right(name, {**control, kind: 1})
        assert peers.is_right(name, {**RIGHT, kind: 1}) == (name != "ours")


def test_run_has_the_control_of_each_system_first() -> None:
    options = peers.parse(["--faults", "kill", "late", "--seeds", "7"])
    cells = peers.cells(options)
    assert cells[: len(systems.NAMES)] == [(name, "none", 7) for name in systems.NAMES]
    assert len(cells) == 3 * len(systems.NAMES)


def test_every_system_names_its_worker_and_its_trigger() -> None:
    for name in systems.NAMES:
        system = systems.find(name)
        assert system.name == name and system.work
        assert (TRIGGER in system.sql) == (name not in ("ours", "pgpubsub"))
        assert system.captures == (name == "ours")


def test_requirements_name_exact_versions_of_peers() -> None:
    lines = (ROOT / "tests" / "chaos" / "peers" / "requirements.txt").read_text().split()
    for name in ("django-pgpubsub", "pgqueuer[asyncpg]", "procrastinate"):
        assert any(line.startswith(f"{name}==") for line in lines)


def test_every_fault_but_none_is_caused() -> None:
    assert [name for name, fault in FAULTS.items() if not fault.times] == ["none"]
