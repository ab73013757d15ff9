"""The pages of the docs and the blocks of code in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {path.name: path.read_text(encoding="utf-8") for path in PAGES}

_BLOCK = re.compile(r"(?:^<!-- (?P<marker>.*?) -->\n)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    code: str
    marker: str
    """What the comment before it says, which no reader sees: ``not run: why``, or ``file: path``."""


BLOCKS = [
    Block(page, found["language"], found["code"], found["marker"] or "")
    for page, text in TEXT.items()
    for found in _BLOCK.finditer(text)
]


def commands(block: Block) -> list[str]:
    """Return the commands of a block for the shell, without comments, continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", block.code).splitlines()
    inside = re.sub(r'"\n.*?\n"', '"..."', "\n".join(lines), flags=re.S)  # a program given as one argument
    return [line for line in inside.splitlines() if line.strip() and not line.startswith("#")]
