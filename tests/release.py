"""Checks the distributions in dist/: `make release-check`, or before a tag `make release-check TAG=v0.1.0`.

Installs the wheel alone into a new environment, and writes what came with it to build/sbom.json (CycloneDX).
"""

import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from html.parser import HTMLParser
from pathlib import Path

import readme_renderer.markdown

from tests import released
from tests.pages import ROOT

SBOM = ROOT / "build" / "sbom.json"


class Links(HTMLParser):
    """Collects the addresses of links and pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect ``href`` and ``src``."""
        self.found += [value or "" for name, value in attrs if name in ("href", "src")]


def readme_problems(wheel: Path) -> Iterator[str]:
    """Return the links of the README, as PyPI shows it, that would lead nowhere there."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        text = message_from_bytes(archive.read(name)).get_payload()
    html = readme_renderer.markdown.render(str(text))
    if html is None:
        yield "README: PyPI cannot render it"
        return
    links = Links()
    links.feed(html)
    for link in links.found:
        if not link.startswith(("https://", "http://127.0.0.1", "#")):
            yield f"README: {link} is no address for PyPI"


def installed(wheel: Path) -> int:
    """Install the wheel into a new environment; write what it brought to SBOM, and return the number of packages."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = f"{folder}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip", "setuptools"], check=True)
        SBOM.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "cyclonedx_py", "environment", python, "--output-file", SBOM]
        subprocess.run(command, check=True)
    return len(json.loads(SBOM.read_text(encoding="utf-8"))["components"])


def main(tag: str = "") -> int:
    """Check; return the exit code."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    packages = installed(wheel)
    problems = [*released.problems(tag), *readme_problems(wheel)]
    for problem in problems:
        print(problem)
    print(f"{wheel.name}: {len(problems)} problem(s); {packages} packages in {SBOM.relative_to(ROOT)}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
