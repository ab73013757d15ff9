"""A short chaos run; beside the two consumers that must be right, two readers that are known to be wrong take part."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHORT = "--seconds 5 --pause 0.5 --silence 1 --calm 2 --backlog 400 --batch 50 --records 150 --writers 5 --seed 3"
WRONG = "--wrong id_cursor xmin_watermark"


def test_nothing_lost_nothing_twice_nothing_out_of_order_and_wrong_readers_found_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.chaos.run",
            *f"{SHORT} {WRONG}".split(),
            "--json",
            str(tmp_path / "figures.json"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    figures = json.loads((tmp_path / "figures.json").read_text())
    right = {"lost": 0, "twice": 0, "inverted": 0, "kept": 0}
    for consumer in ("changes", "pages"):
        assert figures["consumers"][consumer] | right == figures["consumers"][consumer], output
    assert figures["consumers"]["id_cursor"]["lost"], output
    assert figures["consumers"]["xmin_watermark"]["inverted"], output
    assert len(figures["faults"]) == 8, output
    assert not figures["takeovers_missed"], output
