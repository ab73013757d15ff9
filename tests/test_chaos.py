"""A short chaos run, whose steps are recorded: two wrong readers take part beside the right ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

from specs.follows.check import check

ROOT = Path(__file__).parent.parent
# Unresponsive connections would take too long here: tests/test_watchdog.py has them.
SHORT = "--pause 0.5 --silence 1 --calm 2 --backlog 400 --batch 50 --records 150 --writers 5 --concurrency 2"
SHORT += " --unresponsive 0"


def test_chaos_run_is_right_and_detects_wrong_readers(tmp_path: Path) -> None:
    file, record, wrong = tmp_path / "figures.json", tmp_path / "record", {"id_cursor", "xmin_watermark"}
    options = f"{SHORT} --seconds 5 --seed 3 --json {file} --record {record} --wrong {' '.join(sorted(wrong))}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.follow", *options.split()],
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
    right = {"lost": 0, "twice": 0, "inverted": 0, "kept": 0}
    for consumer in ("changes", "pages"):
        assert figures["consumers"][consumer] | right == figures["consumers"][consumer], output
    assert figures["consumers"]["id_cursor"]["lost"], output
    assert figures["consumers"]["xmin_watermark"]["inverted"], output
    report = check(record)
    assert report.refusals.keys() == wrong, report
