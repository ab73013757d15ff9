"""A short chaos run, and the same run with readers that are known to be wrong: it must find them out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def chaos(*arguments: str, mutation: str = "") -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'example'}", "CHAOS_MUTATION": mutation}
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.run", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stdout + done.stderr


def test_nothing_lost_nothing_twice_nothing_out_of_order() -> None:
    code, output = chaos("--seconds", "12", "--pause", "3", "--seed", "3")
    assert code == 0, output
    assert " 0 lost, 0 twice, 0 out of order, 0 deliveries left" in output


@pytest.mark.parametrize("mutation", ["id_cursor", "floor_from_xmax"])
def test_a_reader_known_to_be_wrong_is_found_out(mutation: str) -> None:
    code, output = chaos("--seconds", "8", "--pause", "4", "--seed", "3", "--patience", "3", mutation=mutation)
    assert code == 1, output
    assert " 0 lost" not in output.splitlines()[-1]
