"""The words that this project does not use, the length of tests' names: rules for everything that a person reads."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

RETIRED = {
    r"whoever|whomever|somebody|anybody|everybody": "name the actor: the worker, the receiver, the writer",
    r"(?<![\"`])nobody(?![\"`])": "no worker, no receiver, no writer",  # in quotes it is the Unix user
    r"(those|ones?|they|him|others) who": "name the actor",
    r"tells?|told|telling": "send a signal, deliver a change, report a gap, store a failure, log, say, show",
    r"deaf|deafness": "unresponsive",
    r"anew": "again, or the verb: recreate, restart, rebuild",
    r"as ever|in vain|meanwhile|in hand|by then": "leave it out, or say when",
    r"so often|for so long": "seconds between X; how many times",
    r"of which|of whom": "two sentences",
    r"settles?|settling": "finish, resolve, record",  # `settled` is an argument of @on_change
    r"stands|stood": "is, exists, lies",
    r"(a|an|one|each|every|last|next|this) look|looks": "check, read, query",
    r"com(e|es|ing) to|came to": "reach, arrive at",
    r"strangers?": "other sessions, other transactions",
    r"suffers?": "fail, be delayed",
}
"""Patterns, whole words (an underscore ends one as well), in any case; and what to write instead."""

LONGEST_NAME = 60
"""Characters of a test's name."""

HERE = "tests/test_prose.py"
SUFFIXES = {".py", ".sql", ".md", ".yml", ".toml", ".html", ".pml"}


def texts() -> list[str]:
    """Return the files that are held to the rules."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    chosen = [file for file in files if Path(file).suffix in SUFFIXES or Path(file).name == "Makefile"]
    return [file for file in chosen if file != HERE]


@pytest.mark.parametrize(("words", "instead"), RETIRED.items())
def test_retired_words_are_not_used(words: str, instead: str) -> None:
    pattern = re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.IGNORECASE)
    found = [
        f"{file}:{number}: {line.strip()}"
        for file in texts()
        for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join([f"instead: {instead}", *found])


def test_names_of_tests_are_short() -> None:
    pattern = re.compile(r"^ *def (test_\w+)", re.MULTILINE)
    names = [
        f"{file}: {name}"
        for file in texts()
        for name in pattern.findall((ROOT / file).read_text(encoding="utf-8"))
        if len(name) > LONGEST_NAME
    ]
    assert not names, "\n".join(names)
