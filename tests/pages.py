"""The pages of the docs and the blocks of code in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {path.name: path.read_text(encoding="utf-8") for path in PAGES}

_BLOCK = re.compile(r"(?:^<!-- (?P<marker>.*?) -->\n)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)


_FILE = re.compile(r"# (?P<name>[\w./-]+\.(?:py|txt|cfg|toml|ini))(?P<end>, at the end)?$")


def file_of(code: str) -> tuple[str, bool]:
    """Return the file that the first line of a block names, and whether the block is appended to it."""
    found = _FILE.fullmatch(code.split("\n", 1)[0])
    return (found["name"], bool(found["end"])) if found else ("", False)


def write_file(folder: Path, code: str) -> None:
    """Write a block into the file that its first line names."""
    name, is_appended = file_of(code)
    with (folder / name).open("a" if is_appended else "w", encoding="utf-8") as file:
        file.write(f"\n{code}" if is_appended else code)


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    code: str
    marker: str
    """Text of the HTML comment before it: ``not run: why``, or ``file: path``."""

    @property
    def file(self) -> str:
        """The file that the first line names; empty if the block is run."""
        return file_of(self.code)[0]


BLOCKS = [
    Block(page, found["language"], found["code"], found["marker"] or "")
    for page, text in TEXT.items()
    for found in _BLOCK.finditer(text)
]


def commands(block: Block) -> list[str]:
    """Return the commands of a shell block, without comments and with continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", block.code).splitlines()
    inside = re.sub(r'"\n.*?\n"', '"..."', "\n".join(lines), flags=re.S)  # a program given as one argument
    return [line for line in inside.splitlines() if line.strip() and not line.startswith("#")]
