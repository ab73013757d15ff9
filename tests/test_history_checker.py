"""specs/history.py finds what a naive comparison finds, and every seeded fault; it says which input it cannot read."""

import ast
import gzip
import json
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs import history
from tests.generated_history import write
from tests.pages import BLOCKS, commands

ROOT = Path(__file__).parent.parent
Line = dict[str, Any]


class Inline:
    """Runs in this process what the checker gives to other processes."""

    def __init__(self, processes: int, initializer: Any, initargs: tuple[Any, ...]) -> None:
        (history._counter,) = initargs

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, function: Callable[[int], Any], number: int) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(function(number))
        except history.InputError as error:
            future.set_exception(error)
        return future

    def shutdown(self, **kwargs: Any) -> None:
        pass


@pytest.fixture(autouse=True, scope="module")
def inline() -> Any:
    patch = pytest.MonkeyPatch()
    patch.setattr(history, "ProcessPoolExecutor", Inline)
    yield
    patch.undo()


# -- a naive comparison ------------------------------------------------------------------------------------------------


def naive(committed: list[Line], observed: list[Line], transactions: str) -> dict[str, dict[str, list[Any]]]:
    """Return what each consumer's observations lack, in quadratic time, straight from the definitions."""
    found: dict[str, dict[str, list[Any]]] = {}
    for consumer in {line["consumer"] for line in observed}:
        of_consumer = [line for line in observed if line["consumer"] == consumer]
        of_consumer.sort(key=lambda line: line.get("at", 0))
        kinds: dict[str, list[Any]] = {kind: [] for kind in history.KINDS}

        def size(record: str) -> int:
            return sum(line["record"] == record for line in committed)

        def fits(one: Line, seen: Line) -> bool:
            is_same = (one["record"], one["version"]) == (seen["record"], seen["version"])
            return is_same and seen.get("transaction", one["transaction"]) == one["transaction"]

        known = [seen for seen in of_consumer if any(fits(one, seen) for one in committed)]
        for seen in of_consumer:
            if seen not in known:
                kinds["unknown"].append((size(seen["record"]), seen["record"], seen["version"]))
        for index, seen in enumerate(known):
            key = (size(seen["record"]), seen["record"], seen["version"])
            before = [each for each in known[:index] if each["record"] == seen["record"]]
            if any(each["version"] == seen["version"] for each in before):
                kinds["twice"].append(key)
            elif any(each["version"] > seen["version"] for each in before):
                kinds["inverted"].append(key)
        for one in committed:
            if not any(fits(one, seen) for seen in known):
                kinds["lost"].append((size(one["record"]), one["record"], one["version"]))
        for record in {seen["record"] for seen in known}:
            last = [seen["version"] for seen in known if seen["record"] == record][-1]
            if any(one["record"] == record and one["version"] > last for one in committed):
                kinds["stale"].append((size(record), record, last))
        for transaction in {one["transaction"] for one in committed} if transactions else ():
            of_it = [one for one in committed if one["transaction"] == transaction]
            firsts = [next((seen for seen in known if fits(one, seen)), None) for one in of_it]
            pages = {seen["page"] for seen in firsts if seen}
            is_part = None in firsts and any(firsts)
            if is_part or (transactions == "pages" and len(pages) > 1):
                kinds["torn"].append((len(of_it), transaction))
        found[consumer] = kinds
    return found


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Line], list[Line]]:
    """Few records, versions and transactions, so that every kind of fault is frequent."""
    names = st.sampled_from("abc")
    changes = draw(st.sets(st.tuples(names, st.integers(1, 5)), min_size=1, max_size=8))
    committed = [{"record": r, "version": v, "transaction": draw(st.sampled_from("TUV"))} for r, v in sorted(changes)]
    right = [
        {"consumer": draw(st.sampled_from("xy")), **line, "page": draw(st.sampled_from("12"))} for line in committed
    ]
    of_any = st.fixed_dictionaries(
        {
            "consumer": st.sampled_from("xy"),
            "record": names,
            "version": st.integers(1, 5),
            "page": st.sampled_from("12"),
        },
        optional={"transaction": st.sampled_from("TUV")},
    )
    observed = draw(st.permutations(right)) + draw(st.lists(of_any, min_size=1, max_size=8))
    if draw(st.booleans()):
        order = draw(st.permutations(range(len(observed))))
        observed = [{**line, "at": at} for line, at in zip(observed, order, strict=True)]
    return draw(st.permutations(committed)), observed


def save(path: Path, lines: Sequence[Line]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@given(histories(), st.sampled_from(["", "whole", "pages"]), st.integers(1, 3), st.sampled_from([50, 10_000]))
@settings(max_examples=60, deadline=None)
def test_finds_what_a_naive_comparison_finds(
    tmp_path_factory: Any, both: tuple[list[Line], list[Line]], transactions: str, files: int, part: int
) -> None:
    directory, (committed, observed) = tmp_path_factory.getbasetemp(), both
    paths = [save(directory / f"committed{n}", committed[n::files]) for n in range(files)]
    size = -(-len(observed) // files)  # in order, as there may be no "at"
    of_observed = [save(directory / f"observed{n}", observed[n * size : (n + 1) * size]) for n in range(files)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "PART_BYTES", part)
        report = history.check(paths, of_observed, transactions=transactions)
    expected = naive(committed, observed, transactions)
    assert report.committed == len(committed)
    assert report.records == len({line["record"] for line in committed})
    assert set(report.consumers) == set(expected)
    for consumer, kinds in expected.items():
        found = report.consumers[consumer]
        assert found.counts == {kind: len(keys) for kind, keys in kinds.items()}, consumer
        assert {kind: key for kind, (key, _) in found.witnesses.items()} == {
            kind: min(keys) for kind, keys in kinds.items() if keys
        }
        assert found.observed == sum(line["consumer"] == consumer for line in observed)


# -- seeded faults -----------------------------------------------------------------------------------------------------

Fault = Callable[[list[Line]], tuple[str, set[str]]]
"""Breaks the observed lines; returns the record or transaction and the kinds that must be found."""


def of_busiest_record(lines: list[Line]) -> list[int]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        if line["consumer"] == "mail":
            places[line["record"]].append(place)
    return max(places.values(), key=len)


def loses_one(lines: list[Line]) -> tuple[str, set[str]]:
    line = lines.pop(of_busiest_record(lines)[1])
    return line["record"], {"lost", "torn"}


def loses_the_last_of_a_record(lines: list[Line]) -> tuple[str, set[str]]:
    line = lines.pop(of_busiest_record(lines)[-1])
    return line["record"], {"lost", "torn", "stale"}


def loses_a_transaction(lines: list[Line]) -> tuple[str, set[str]]:
    of_mail = [line for line in lines if line["consumer"] == "mail"]
    newest = {line["record"]: line["version"] for line in of_mail}
    stale = {line["transaction"] for line in of_mail if line["version"] == newest[line["record"]]}
    name = next(line["transaction"] for line in of_mail if line["transaction"] not in stale)
    lines[:] = [line for line in lines if (line["consumer"], line["transaction"]) != ("mail", name)]
    return f"transaction {name}", {"lost"}


def delivers_twice(lines: list[Line]) -> tuple[str, set[str]]:
    first, second, *_ = of_busiest_record(lines)
    lines.insert(second, lines[first])
    return lines[first]["record"], {"twice"}


def delivers_an_older_state_last(lines: list[Line]) -> tuple[str, set[str]]:
    places = of_busiest_record(lines)
    lines.append(lines[places[0]])
    return lines[places[0]]["record"], {"twice", "stale"}


def inverts_two(lines: list[Line]) -> tuple[str, set[str]]:
    first, second, *_ = of_busiest_record(lines)
    lines[first], lines[second] = lines[second], lines[first]
    return lines[first]["record"], {"inverted"}


def invents_one(lines: list[Line]) -> tuple[str, set[str]]:
    line = lines[of_busiest_record(lines)[0]]
    lines.append({**line, "version": 10**6})
    return line["record"], {"unknown"}


def names_another_transaction(lines: list[Line]) -> tuple[str, set[str]]:
    place = of_busiest_record(lines)[1]
    lines[place] = {**lines[place], "transaction": "999"}
    return lines[place]["record"], {"unknown", "lost", "torn"}


@pytest.fixture(scope="module")
def right(tmp_path_factory: Any) -> tuple[str, list[Line]]:
    """A right history: the file of the committed changes, and the observed lines."""
    committed, observed = write(2000, tmp_path_factory.mktemp("right"))
    with gzip.open(observed, "rt") as file:
        return committed, [json.loads(line) for line in file]


@pytest.mark.parametrize(
    "fault",
    [
        loses_one,
        loses_the_last_of_a_record,
        loses_a_transaction,
        delivers_twice,
        delivers_an_older_state_last,
        inverts_two,
        invents_one,
        names_another_transaction,
    ],
)
def test_every_seeded_fault_is_found(right: tuple[str, list[Line]], fault: Fault, tmp_path: Path) -> None:
    committed, lines = right[0], list(right[1])
    record, kinds = fault(lines)
    report = history.check([committed], [save(tmp_path / "observed", lines)], transactions="whole")
    assert {kind for kind, count in report.consumers["mail"].counts.items() if count} == kinds
    for kind in kinds:
        assert record in report.consumers["mail"].witnesses[kind][1]
    assert not any(report.consumers["search"].counts.values())


# -- the command -------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["history.py", "--quiet", *arguments])
    return history.main()


def test_program_says_that_a_right_history_is_right(tmp_path: Path) -> None:
    """As a user runs it: with other processes, and with nothing of ours on the path."""
    committed, observed = write(500, tmp_path)
    command = [sys.executable, "-I", str(ROOT / "specs" / "history.py"), "--committed", committed]
    command += ["--observed", observed, "--transactions", "whole", "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mail: 500 observed, 0 lost, 0 twice, 0 inverted, 0 stale, 0 unknown, 0 torn" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["consumers"]["search"]["lost"] == 0


def test_exit_code_is_1_for_kinds_that_are_not_allowed(monkeypatch: Any, tmp_path: Path) -> None:
    committed = save(tmp_path / "committed", [{"record": 1, "version": 1}])
    observed = save(tmp_path / "observed", [{"consumer": "x", "record": "1", "version": 1}] * 2)
    assert run(monkeypatch, "--committed", committed, "--observed", observed) == 1
    assert run(monkeypatch, "--committed", committed, "--observed", observed, "--allow", "twice") == 0


def test_consumer_without_a_line_has_lost_everything(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    committed = save(tmp_path / "committed", [{"record": 1, "version": 1}])
    observed = save(tmp_path / "observed", [])
    assert run(monkeypatch, "--committed", committed, "--observed", observed, "--consumers", "x") == 1
    assert "x: 0 observed, 1 lost" in capsys.readouterr().out


GOOD = '{"consumer": "x", "record": "a", "version": 1, "transaction": "T", "page": 1}\n'


@pytest.mark.parametrize(
    ("committed", "observed", "message"),
    [
        (GOOD + "{", GOOD, "committed, line 2: "),
        (GOOD + "[1]\n", GOOD, "committed, line 2: found [1]; expected a JSON object"),
        (GOOD + "\n", GOOD, "committed, line 2: "),
        (GOOD, GOOD + "\xff".encode("latin-1").decode("utf-8", "surrogateescape"), "observed, line 2: "),
        (GOOD, GOOD + "[" * 100_000, "observed, line 2: "),
        (GOOD, '{"record": "a", "version": 1}', 'observed, line 1: found {"record": "a", "version": 1}; expected'),
        (GOOD, GOOD.replace("1,", '"1",'), "observed, line 1: "),
        (GOOD, GOOD.replace("1,", "true,"), "observed, line 1: "),
        (GOOD, GOOD.replace('"T"', "null"), "observed, line 1: "),
        (GOOD, GOOD.replace('"page"', '"at": NaN, "page"'), "observed, line 1: "),
        (GOOD, GOOD.replace(', "page": 1', ""), "observed, line 1: "),
        (GOOD.replace(', "transaction": "T"', ""), GOOD, "committed, line 1: "),
        (GOOD, GOOD + GOOD.replace('"page"', '"at": 1, "page"'), 'observed, line 1: found no "at"'),
        (GOOD + GOOD, GOOD, "committed, line 2: found version 1 of record 'a' again, first at"),
        ("", GOOD, "committed, line 1: found no line"),
        (GOOD, "", "observed, line 1: found no line"),
    ],
)
def test_unreadable_input_is_named(
    monkeypatch: Any, tmp_path: Path, capsys: Any, committed: str, observed: str, message: str
) -> None:
    for name, text in (("committed", committed), ("observed", observed)):
        (tmp_path / name).write_text(text, errors="surrogateescape")
    arguments = ["--committed", str(tmp_path / "committed"), "--observed", str(tmp_path / "observed")]
    assert run(monkeypatch, *arguments, "--transactions", "pages") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/{message}" in error
    assert "expected" in error


def test_missing_and_broken_files_are_named(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    good = tmp_path / "good"
    good.write_text(GOOD)
    broken, text = tmp_path / "broken.gz", tmp_path / "text.gz"
    broken.write_bytes(gzip.compress(GOOD.encode() * 9)[:-9])
    text.write_text(GOOD)
    for path, message in (
        (tmp_path / "missing", "missing, line 1: No such file"),
        (tmp_path, ", line 1: Is a directory"),
        (broken, "broken.gz, line 10: "),
        (text, "text.gz, line 1: "),
    ):
        assert run(monkeypatch, "--committed", str(good), "--observed", str(path)) == 2
        assert message in capsys.readouterr().err


def test_checker_needs_the_standard_library_alone() -> None:
    tree = ast.parse((ROOT / "specs" / "history.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


# -- the page ----------------------------------------------------------------------------------------------------------


def test_page_shows_what_the_checker_prints(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    blocks = [block for block in BLOCKS if block.page == "proof.md" and block.marker.startswith("run by: ")]
    committed, observed, command, shown, again = blocks
    (tmp_path / "committed.jsonl").write_text(committed.code)
    (tmp_path / "observed.jsonl").write_text(observed.code)
    monkeypatch.chdir(tmp_path)
    python, script, *arguments = shlex.split(*commands(command))
    assert (python, script) == ("python", "specs/history.py")
    assert run(monkeypatch, *arguments) == 1
    assert capsys.readouterr().out.strip() == shown.code.strip()
    _, _, *arguments = shlex.split(*commands(again))
    _, of_committed, _, of_observed, *_ = arguments
    piece = tmp_path / Path(of_committed).parent
    piece.mkdir(parents=True)
    for path in (of_committed, of_observed):
        (tmp_path / path).write_bytes(gzip.compress(GOOD.encode()))
    assert run(monkeypatch, *arguments) == 0
