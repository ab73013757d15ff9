"""Compare the changes that were committed with the changes that each consumer observed.

The files have one JSON object per line; a file whose name ends in ``.gz`` is compressed. Fields:

committed: ``record`` (string or integer), ``version`` (integer), ``transaction`` (string or integer; may be left out).
    One line per committed change. A later commit to the same record has a higher version; versions may have holes.

observed: ``consumer`` (string), ``record``, ``version``; ``transaction``, ``at`` and ``page`` may be left out.
    One line per observed change, again for each repetition. ``at`` (a number) rises in the order in which a consumer
    observed the changes, over all its files. Without ``at`` the order is that of the lines, one file after the other.
    If both lines of a change have a transaction, it must be the same. ``page`` (string or integer) names the changes
    that the consumer committed together.

The report has these counts for each consumer, and the smallest witness of each:

lost: committed changes that the consumer never observed.
twice: observations of a change that the consumer had observed before.
inverted: changes that were first observed after a later change of their record.
stale: records whose last observation is not their newest change.
unknown: observations of a change that was never committed.
torn: with ``--transactions whole``, transactions that the consumer observed only in part; with
    ``--transactions pages``, also those whose changes were first observed in more than one page.

Exit code 0: nothing found, or only kinds that ``--allow`` names. 1: something found. 2: an input cannot be read.

The files are split by record into temporary files, which need about as much space as the uncompressed input. Time grows
linearly. Memory does not grow, but the changes of one record must fit into it.
"""

import argparse
import gc
import gzip
import json
import marshal
import math
import multiprocessing
import os
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

KINDS = ("lost", "twice", "inverted", "stale", "unknown", "torn")
PART_BYTES = 24 << 20
"""Bytes of uncompressed input per temporary file: what a process has in memory at a time, in another form."""
MOST_PARTS = 4096
GZIP_RATIO = 12
"""Bytes of a compressed file become about so many."""
BUFFERED_ROWS = 250
"""Rows of one temporary file that a process collects before it writes them."""
PROGRESS_SECONDS = 5.0
COUNTED_LINES = 50_000
"""Lines after which a process updates the progress."""
_FILE_BITS = 40
"""A place is one integer: the number of the file, then so many bits for the number of the line."""

Row = tuple[Any, ...]
_T = TypeVar("_T")


class InputError(Exception):
    """An input cannot be read; says the file, the line, what was found and what was expected."""


@dataclass(frozen=True)
class Options:
    """What every process needs to know.

    Args:
        committed, observed: files.
        transactions: ``whole`` or ``pages``; empty: transactions are not checked.
        parts: number of temporary files by which the changes are split.
        directory: of the temporary files.
    """

    committed: tuple[str, ...]
    observed: tuple[str, ...]
    transactions: str
    parts: int
    directory: str

    def place(self, place: int) -> str:
        """Return file and line of a place, for people."""
        return f"{(self.committed + self.observed)[place >> _FILE_BITS]}, line {place & (1 << _FILE_BITS) - 1}"


@dataclass
class Found:
    """Counts and smallest witnesses of one consumer."""

    observed: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    witnesses: dict[str, tuple[Row, str]] = field(default_factory=dict)
    """By kind: what it is compared by, and the text."""

    def add(self, kind: str, key: Row, text: str) -> None:
        """Count one finding; keep its text if no smaller witness is known."""
        self.counts[kind] += 1
        if kind not in self.witnesses or key < self.witnesses[kind][0]:
            self.witnesses[kind] = (key, text)

    def merge(self, other: "Found") -> None:
        """Add the findings of another part of the history."""
        self.observed += other.observed
        for kind, count in other.counts.items():
            self.counts[kind] += count
        for kind, witness in other.witnesses.items():
            self.witnesses[kind] = min(self.witnesses.get(kind, witness), witness)


@dataclass
class Report:
    """The result of a check."""

    committed: int
    records: int
    consumers: dict[str, Found]

    def kinds(self) -> set[str]:
        """Return the kinds that were found."""
        return {kind for found in self.consumers.values() for kind, count in found.counts.items() if count}

    def lines(self) -> list[str]:
        """Return the report for people."""
        lines = [f"{self.committed:,} changes of {self.records:,} records committed"]
        for consumer, found in self.consumers.items():
            counts = ", ".join(f"{count:,} {kind}" for kind, count in found.counts.items())
            lines.append(f"{consumer}: {found.observed:,} observed, {counts}")
            lines += [f"  {kind}: {found.witnesses[kind][1]}" for kind in KINDS if kind in found.witnesses]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        consumers = {
            consumer: {
                "observed": found.observed,
                **found.counts,
                "witnesses": {kind: text for kind, (_, text) in found.witnesses.items()},
            }
            for consumer, found in self.consumers.items()
        }
        return {"committed": self.committed, "records": self.records, "consumers": consumers}


# -- reading -----------------------------------------------------------------------------------------------------------


def _lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line.

    Raises:
        InputError: the file cannot be read, or a line is no JSON object.
    """
    number, decode = 0, json.JSONDecoder().raw_decode
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                text = line.decode().strip()
                values, end = decode(text)
                if end < len(text):
                    raise ValueError(f"Extra data: {text[end:][:200]}")
                if type(values) is not dict:
                    raise _wrong(path, number, values, "expected a JSON object")
                yield number, values
    except (ValueError, RecursionError, EOFError, zlib.error) as error:
        # A broken end of a compressed file belongs to the line after the last one.
        after = int(isinstance(error, EOFError | zlib.error))
        raise InputError(f"{path}, line {number + after}: {error}; expected one JSON object per line") from error
    except OSError as error:
        raise InputError(f"{path}, line {number + 1}: {error.strerror or error}; expected a readable file") from error


def _wrong(path: str, number: int, values: Any, expected: str) -> InputError:
    found = json.dumps(values)
    return InputError(f"{path}, line {number}: found {found[:200]}; {expected}")


def _committed_row(path: str, number: int, place: int, values: dict[str, Any], options: Options) -> tuple[str, Row]:
    record, version, transaction = _name(values.get("record")), values.get("version"), _name(values.get("transaction"))
    if record is None or type(version) is not int:
        raise _wrong(path, number, values, 'expected "record" (string or integer) and "version" (integer)')
    if transaction is None and (options.transactions or "transaction" in values):
        raise _wrong(path, number, values, 'expected "transaction" (string or integer)')
    return record, (record, version, transaction, place)


def _observed_row(path: str, number: int, place: int, values: dict[str, Any], options: Options) -> tuple[str, Row]:
    consumer, record, version = values.get("consumer"), _name(values.get("record")), values.get("version")
    transaction, page, at = _name(values.get("transaction")), _name(values.get("page")), values.get("at", place)
    if type(consumer) is not str or record is None or type(version) is not int:
        expected = 'expected "consumer" (string), "record" (string or integer) and "version" (integer)'
        raise _wrong(path, number, values, expected)
    if transaction is None and "transaction" in values:
        raise _wrong(path, number, values, 'expected "transaction" (string or integer), or none')
    if page is None and options.transactions == "pages":
        raise _wrong(path, number, values, 'expected "page" (string or integer), because of --transactions pages')
    if type(at) is not int and not (type(at) is float and math.isfinite(at)):
        raise _wrong(path, number, values, 'expected "at" (a number), or none')
    return record, (at, place, version, transaction, page, consumer, record)


def _name(value: Any) -> Any:
    """Return a name as text; None if it is none."""
    if type(value) is str:
        return value
    return str(value) if type(value) is int else None


# -- temporary files ---------------------------------------------------------------------------------------------------


class _Parts:
    """Rows in temporary files, split by a hash. Each process appends to its own files."""

    def __init__(self, options: Options, name: str) -> None:
        self._options, self._name = options, name
        self._buffers: list[list[Row]] = [[] for _ in range(options.parts)]

    def add(self, key: str, row: Row) -> None:
        """Add a row to the part of the key."""
        part = zlib.crc32(key.encode(errors="surrogatepass")) % self._options.parts
        buffer = self._buffers[part]
        buffer.append(row)
        if len(buffer) >= BUFFERED_ROWS:
            self._write(part)

    def flush(self) -> None:
        """Write all rows that are still in memory."""
        for part, buffer in enumerate(self._buffers):
            if buffer:
                self._write(part)

    def _write(self, part: int) -> None:
        with _file(self._options, self._name, part, os.getpid()).open("ab") as file:
            rows = marshal.dumps(self._buffers[part])
            file.write(len(rows).to_bytes(8))
            file.write(rows)
        self._buffers[part].clear()


def _file(options: Options, name: str, part: int, process: int | str) -> Path:
    return Path(options.directory) / f"{name}-{part}-{process}"


def _rows(options: Options, name: str, part: int) -> Iterator[Row]:
    """Yield the rows of a part, and remove its files."""
    for path in Path(options.directory).glob(f"{name}-{part}-*"):
        with path.open("rb") as file:
            while size := file.read(8):
                yield from marshal.loads(file.read(int.from_bytes(size)))
        path.unlink()


# -- the three passes --------------------------------------------------------------------------------------------------

_counter: Any = None
"""The number of lines or rows that all processes have passed, shared with the parent."""


def _start_process(counter: Any) -> None:
    global _counter  # noqa: PLW0603
    _counter = counter
    gc.disable()  # there are no cycles, and each search for them would pass over all rows in memory


def _count(lines: int) -> None:
    with _counter.get_lock():
        _counter.value += lines


@dataclass(frozen=True)
class _Contents:
    """What the first pass has seen in a file."""

    path: str
    lines: int
    consumers: frozenset[str]
    first_with_at: int
    """Line; 0: none."""
    first_without_at: int


def _split(options: Options, number: int) -> _Contents:
    """Split one file by record."""
    path = (options.committed + options.observed)[number]
    is_committed = number < len(options.committed)
    parts = _Parts(options, "committed" if is_committed else "observed")
    row_of = _committed_row if is_committed else _observed_row
    first, line, consumers, with_at, without_at = number << _FILE_BITS, 0, set(), 0, 0
    for line, values in _lines(path):
        record, row = row_of(path, line, first + line, values, options)
        parts.add(record, row)
        if not is_committed:
            consumers.add(row[5])
            if row[0] == row[1] and "at" not in values:
                without_at = without_at or line
            else:
                with_at = with_at or line
        if line % COUNTED_LINES == 0:
            _count(COUNTED_LINES)
    _count(line % COUNTED_LINES)
    parts.flush()
    return _Contents(path, line, frozenset(consumers), with_at, without_at)


Versions = dict[int, tuple[str | None, int]]
"""The committed versions of a record, in order, each with its transaction and place."""


class _Transactions:
    """How much of each transaction the consumers have observed of the records of one part."""

    def __init__(self, number_of_consumers: int) -> None:
        self.changes: Counter[str | None] = Counter()
        self.missing: list[dict[str | None, list[tuple[str, int]]]] = [{} for _ in range(number_of_consumers)]
        """By consumer: the changes of each transaction that it has not observed."""
        self.pages: list[dict[str | None, set[str]]] = [{} for _ in range(number_of_consumers)]
        """By consumer: the pages in which it first observed changes of each transaction."""

    def write(self, options: Options) -> None:
        """Pass everything on to the last pass."""
        parts = _Parts(options, "transactions")
        for name, count in self.changes.items():
            missing = [(len(each[name]), min(each[name])) if name in each else (0, ()) for each in self.missing]
            parts.add(str(name), (name, count, missing, [tuple(each.get(name, ())) for each in self.pages]))
        parts.flush()


def _check_records(options: Options, consumers: tuple[str, ...], part: int) -> Report:
    """Check the records of one part; pass their transactions on to the last pass."""
    committed = _committed_of(options, part)
    found = {consumer: Found() for consumer in consumers}
    observed: list[defaultdict[str, list[Row]]] = [defaultdict(list) for _ in consumers]
    numbers = {consumer: number for number, consumer in enumerate(consumers)}
    for row in _rows(options, "observed", part):
        observed[numbers[row[5]]][row[6]].append(row)
    transactions = _Transactions(len(consumers))
    for number, rows_of in enumerate(observed):
        check = _Check(options, found[consumers[number]], transactions.missing[number], transactions.pages[number])
        for record, versions in committed.items():
            check.record(record, versions, rows_of.pop(record, []))
        for record, rows in rows_of.items():
            check.record(record, {}, rows)
        _count(check.found.observed)
    if options.transactions:
        for versions in committed.values():
            transactions.changes.update(transaction for transaction, _ in versions.values())
        transactions.write(options)
    return Report(sum(map(len, committed.values())), len(committed), found)


def _committed_of(options: Options, part: int) -> dict[str, Versions]:
    """Return the versions of each record.

    Raises:
        InputError: a version is committed twice.
    """
    rows_of: defaultdict[str, list[Row]] = defaultdict(list)
    for row in _rows(options, "committed", part):
        rows_of[row[0]].append(row)
    committed: dict[str, Versions] = {}
    for record, rows in rows_of.items():
        rows.sort(key=itemgetter(1, 3))
        committed[record] = {version: (transaction, place) for _, version, transaction, place in rows}
        if len(committed[record]) < len(rows):
            first, again = next(pair for pair in pairwise(rows) if pair[0][1] == pair[1][1])
            raise InputError(
                f"{options.place(again[3])}: found {_show(record, again[1])} again, first at "
                f"{options.place(first[3])}; expected each version of a record once"
            )
        _count(len(rows))
    return committed


@dataclass
class _Check:
    """Compares what one consumer has observed with what was committed, record by record."""

    options: Options
    found: Found
    missing: dict[str | None, list[tuple[str, int]]]
    pages: dict[str | None, set[str]]

    def record(self, record: str, versions: Versions, rows: list[Row]) -> None:
        """Compare the observations of one record with its committed versions."""
        self.found.observed += len(rows)
        rows.sort()
        firsts = {row[2]: row for row in rows}
        is_right = len(firsts) == len(rows) and list(firsts) == list(versions)
        if not is_right or any(row[3] not in (None, versions[row[2]][0]) for row in rows):
            firsts = self._one_by_one(record, versions, rows)
        if self.options.transactions == "pages":
            for version, row in firsts.items():
                self.pages.setdefault(versions[version][0], set()).add(row[4])

    def _one_by_one(self, record: str, versions: Versions, rows: list[Row]) -> dict[int, Row]:
        """Find the faults of one record; return the row in which each version was first observed."""
        firsts: dict[int, Row] = {}
        newest = last = None
        for row in rows:
            version, place = row[2], self.options.place(row[1])
            if trouble := _unknown(versions, row):
                self._add("unknown", versions, record, version, f"{trouble}: {place}")
                continue
            last = version
            if version in firsts:
                first = self.options.place(firsts[version][1])
                self._add("twice", versions, record, version, f"{first}, and {place}")
                continue
            firsts[version] = row
            if newest is not None and version < newest:
                later = self.options.place(firsts[newest][1])
                self._add("inverted", versions, record, version, f"{place}, after version {newest}: {later}")
            else:
                newest = version
        for version, (transaction, _) in versions.items():
            if version not in firsts:
                by = f"of transaction {transaction}" if transaction is not None else "never observed"
                self._add("lost", versions, record, version, by)
                self.missing.setdefault(transaction, []).append((record, version))
        if last is not None and last != max(versions):
            self._add("stale", versions, record, last, f"observed last, and version {max(versions)} is the newest")
        return firsts

    def _add(self, kind: str, versions: Versions, record: str, version: int, text: str) -> None:
        self.found.add(kind, (len(versions), record, version), f"{_show(record, version)}: {text}")


def _unknown(versions: Versions, row: Row) -> str:
    """Return why an observed change was never committed; empty if it was."""
    if row[2] not in versions:
        return "never committed"
    transaction = versions[row[2]][0]
    if None in (row[3], transaction) or row[3] == transaction:
        return ""
    return f"committed by transaction {transaction}, not by {row[3]}"


def _show(record: str, version: int) -> str:
    return f"version {version} of record {record!r}"


def _check_transactions(options: Options, consumers: tuple[str, ...], part: int) -> dict[str, Found]:
    """Check the transactions of one part."""
    found = {consumer: Found() for consumer in consumers}
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in _rows(options, "transactions", part):
        rows[row[0]].append(row)
    for name, of_name in rows.items():
        changes = sum(row[1] for row in of_name)
        for number, consumer in enumerate(consumers):
            missing = sum(row[2][number][0] for row in of_name)
            pages = sorted({page for row in of_name for page in row[3][number]})
            if 0 < missing < changes:
                example = min(row[2][number][1] for row in of_name if row[2][number][0])
                text = f"transaction {name}: {missing} of {changes} changes not observed, such as {_show(*example)}"
            elif len(pages) > 1:
                text = f"transaction {name}: {changes} changes in pages {', '.join(pages[:9])}"
            else:
                continue
            found[consumer].add("torn", (changes, name), text)
    return found


# -- all together ------------------------------------------------------------------------------------------------------


def check(
    committed: Iterable[str],
    observed: Iterable[str],
    *,
    consumers: Iterable[str] = (),
    transactions: str = "",
    processes: int = 2,
    directory: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Check a history.

    Args:
        committed, observed: files.
        consumers: names that must be there; one without a line has lost everything.
        transactions: ``whole`` or ``pages``; empty: transactions are not checked.
        processes: number of processes at a time.
        directory: for the temporary files; default: the system's.
        progress: gets a line of text every few seconds.

    Raises:
        InputError: an input cannot be read, or there is nothing to compare.
    """
    files, of_observed = tuple(committed), tuple(observed)
    with tempfile.TemporaryDirectory(prefix="history_", dir=directory) as place:
        options = Options(files, of_observed, transactions, _number_of_parts(files + of_observed), place)
        counter = multiprocessing.Value("q", 0)
        with ProcessPoolExecutor(processes, initializer=_start_process, initargs=(counter,)) as pool:
            run = partial(_run, pool, counter, progress)
            progress("read the files and split them by record")
            contents = run(partial(_split, options), len(files + of_observed))
            names = _consumers(contents[len(files) :], consumers)
            if not sum(each.lines for each in contents[: len(files)]):
                raise InputError(f"{', '.join(files)}, line 1: found no line; expected at least one committed change")
            progress(f"compare the changes, in {options.parts} parts")
            report = Report(0, 0, {name: Found() for name in names})
            for part in run(partial(_check_records, options, names), options.parts):
                report.committed += part.committed
                report.records += part.records
                for name in names:
                    report.consumers[name].merge(part.consumers[name])
            if transactions:
                progress("check the transactions")
                for found in run(partial(_check_transactions, options, names), options.parts):
                    for name in names:
                        report.consumers[name].merge(found[name])
    return report


def _number_of_parts(paths: Iterable[str]) -> int:
    """Return the number of parts that keeps each of them small.

    Raises:
        InputError: a file does not exist.
    """
    size = 0
    for path in paths:
        try:
            size += os.path.getsize(path) * (GZIP_RATIO if path.endswith(".gz") else 1)
        except OSError as error:
            raise InputError(f"{path}, line 1: {error.strerror}; expected a readable file") from error
    return min(MOST_PARTS, 1 + size // PART_BYTES)


def _consumers(contents: Iterable[_Contents], expected: Iterable[str]) -> tuple[str, ...]:
    """Return the names of all consumers.

    Raises:
        InputError: there is none, or only some lines have ``at``.
    """
    contents = list(contents)
    names = sorted({name for each in contents for name in each.consumers} | set(expected))
    if not names:
        raise InputError(
            f"{', '.join(each.path for each in contents)}, line 1: found no line; expected at least one observed "
            "change, or the names of the consumers (--consumers)"
        )
    with_at = next((each for each in contents if each.first_with_at), None)
    without = next((each for each in contents if each.first_without_at), None)
    if with_at and without:
        raise InputError(
            f'{without.path}, line {without.first_without_at}: found no "at", but {with_at.path}, line '
            f"{with_at.first_with_at} has one; expected it in all lines, or in none"
        )
    return tuple(names)


def _run(
    pool: ProcessPoolExecutor, counter: Any, say: Callable[[str], None], function: Callable[[int], _T], count: int
) -> list[_T]:
    """Call a function in other processes for each number below the count; return the results in order."""
    futures = [pool.submit(function, number) for number in range(count)]
    said, waiting = time.monotonic(), set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
        error = next((future.exception() for future in futures if future in done and future.exception()), None)
        if error:
            pool.shutdown(wait=False, cancel_futures=True)
            raise error
        if time.monotonic() > said + PROGRESS_SECONDS:
            said = time.monotonic()
            say(f"{counter.value:,} lines so far, {len(futures) - len(waiting)} of {len(futures)} parts")
    return [future.result() for future in futures]


def main() -> int:
    """Check the files that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="history.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--committed", nargs="+", required=True, metavar="FILE", help="what the writers committed")
    parser.add_argument("--observed", nargs="+", required=True, metavar="FILE", help="what the consumers observed")
    parser.add_argument(
        "--consumers", nargs="+", default=[], metavar="NAME", help="consumers that must be there, even without a line"
    )
    parser.add_argument("--transactions", choices=("whole", "pages"), default="", help="also check transactions")
    parser.add_argument(
        "--allow", nargs="+", choices=KINDS, default=[], metavar="KIND", help="kinds that leave the exit code 0"
    )
    parser.add_argument("--processes", type=int, default=2, help="number of processes (default: 2)")
    parser.add_argument("--directory", help="for the temporary files (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args()
    try:
        report = check(
            options.committed,
            options.observed,
            consumers=options.consumers,
            transactions=options.transactions,
            processes=options.processes,
            directory=options.directory,
            progress=lambda text: None if options.quiet else print(f"history: {text}", file=sys.stderr, flush=True),
        )
    except InputError as error:
        print(f"history: {error}", file=sys.stderr)
        return 2
    print("\n".join(report.lines()))
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    return int(bool(report.kinds() - set(options.allow)))


if __name__ == "__main__":
    sys.exit(main())
