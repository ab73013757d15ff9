"""Short chaos runs; in the first, two readers that are known to be wrong take part beside those that must be right."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# Deaf connections take longer to be told from slow ones: tests/test_watchdog.py.
SHORT = "--pause 0.5 --silence 1 --calm 2 --backlog 400 --batch 50 --records 150 --writers 5 --deaf 0 --concurrency 2"


def run(options: str, file: Path) -> tuple[dict[str, Any], str]:
    """Run with these options; return the figures and the output."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.run", *f"{SHORT} {options}".split(), "--json", str(file)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    figures = json.loads(file.read_text())
    assert len(figures["faults"]) == 7, output
    assert not figures["takeovers_missed"], output
    return figures, output


def test_nothing_lost_nothing_twice_nothing_out_of_order_and_wrong_readers_found_out(tmp_path: Path) -> None:
    figures, output = run("--seconds 5 --seed 3 --wrong id_cursor xmin_watermark", tmp_path / "figures.json")
    right = {"lost": 0, "twice": 0, "inverted": 0, "kept": 0}
    for consumer in ("changes", "pages"):
        assert figures["consumers"][consumer] | right == figures["consumers"][consumer], output
    assert figures["consumers"]["id_cursor"]["lost"], output
    assert figures["consumers"]["xmin_watermark"]["inverted"], output


def test_without_transactions_nothing_lost_and_each_first_time_in_order(tmp_path: Path) -> None:
    figures, output = run("--seconds 2 --seed 4 --no-atomic", tmp_path / "figures.json")
    right = {"lost": 0, "inverted": 0, "kept": 0}
    for consumer in ("changes", "pages"):
        assert figures["consumers"][consumer] | right == figures["consumers"][consumer], output
        assert figures["consumers"][consumer]["twice"], output
