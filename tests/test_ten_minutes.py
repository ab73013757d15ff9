"""docs/start.md is followed to the letter from an empty folder: each file written, each command run, each line read."""

import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pages import write_file
from tests.terminal import Terminal

PAGE = Path(__file__).parent.parent / "docs" / "start.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What a reader does not have: the settings of the project that runs this test.
FOREIGN = ("DATABASE_URL", "DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTHONWARNINGS", "VIRTUAL_ENV")


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty one. Not in tmp_path: as root the server is another user, and pytest closes that folder to others."""
    with tempfile.TemporaryDirectory(prefix="hc_signals_") as directory:
        yield Path(directory)


@pytest.fixture
def shell(folder: Path, tmp_path: Path, distributions: Path) -> Iterator[Callable[[str], Terminal]]:
    """Type a block into a terminal of its own, in the folder; what still runs at the end is killed."""
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    # Not published yet: pip finds the package here, and its dependencies where it finds everything.
    environment |= {"PIP_FIND_LINKS": str(distributions), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    terminals: list[Terminal] = []

    def start(block: str) -> Terminal:
        # A second terminal has the same .venv; one long-lived command gets the signals itself.
        before = ". .venv/bin/activate; " if (folder / ".venv").exists() else ""
        before += "exec " if block.count("\n") == 1 else ""
        terminals.append(Terminal(before + block, folder, environment, tmp_path / f"terminal{len(terminals)}"))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.kill()


def test_the_page_leads_to_a_signal(folder: Path, shell: Callable[[str], Terminal]) -> None:
    listener = None
    for language, block in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            write_file(folder, block)
        elif language == "text":
            assert listener is not None
            listener.wait_until(lambda output: block in output)  # noqa: B023
        elif "hc_listen" in block:
            listener = shell(block)
            listener.wait_until(lambda output: "listening" in output)
        else:
            shell(block).succeed()
    assert listener is not None
    assert listener.stop(signal.SIGINT) == 0
    assert listener.output.count("CREATE") > 1, "the simulator's records were delivered as well"
