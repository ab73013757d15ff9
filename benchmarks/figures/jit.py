"""Whether the server's JIT compiler slows capture or delivery: on the distribution's PostgreSQL, which usually has one.

JIT is on by default there. Each session compiles for itself, which takes up to a second; so each turn has new sessions.
The turns with ``jit = on`` and with ``jit = off`` alternate.
"""

import json
from pathlib import Path

from benchmarks.options import Options
from benchmarks.rows import Row, say
from benchmarks.server import Server
from tests.server import Server as Installed
from tests.server import stock

PARTS = {"capture": "batches of 500 rows, captured", "delivery": "a backlog"}

TURNS = 12
"""Least number of turns of each kind: the least of few is off by a fifth on a busy machine."""


def measure(options: Options, server: Server) -> list[Row]:
    """Return the rows of this figure; none if no server with JIT is installed."""
    programs = stock()
    if programs is None:
        say("jit is left out: no PostgreSQL of the distribution is installed (Debian: apt-get install postgresql)")
        return []
    installed = Installed(programs, "jit=on")
    try:
        return _measure(options, programs, installed)
    finally:
        installed.stop()


def _measure(options: Options, programs: Path, installed: Installed) -> list[Row]:
    ((has_jit, version),) = installed.execute(
        "SELECT pg_jit_available(), split_part(current_setting('server_version'), ' ', 1)"
    )
    if not has_jit:
        say(f"jit is left out: PostgreSQL {version} in {programs} has no JIT compiler")
        return []
    from benchmarks.processes import start  # needs the benchmarks' Django settings

    process = start("-m", "benchmarks.jit_turns", str(max(TURNS, 2 * options.rounds)), BENCH_URL=installed.url)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the measuring process failed; run `python -m benchmarks.jit_turns` by hand to see why")
    return [_row(PARTS[part], version, found) for part, found in json.loads(output).items()]


def _row(what: str, version: str, found: dict[str, float]) -> Row:
    return Row(
        "jit",
        f"{what}, with JIT: cpu",
        f"{found['on']:.1f} ms",
        f"jit = off: {found['off']:.1f} ms, PostgreSQL {version}",
        found["on"] / found["off"],
        "×",
        at_most=1.2,
        firm=True,
    )
