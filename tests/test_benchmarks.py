"""The benchmarks' handling of bad input, foreign databases and the docs page; nothing is measured here."""

import json
import os
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from benchmarks import baseline, peers, report, waits
from benchmarks.figures import jit
from benchmarks.options import parse
from benchmarks.rows import Row, ratio
from benchmarks.server import Server
from tests.server import own
from tests.test_worker_process import wait_until


def row(measured: float, *, steady: bool = True) -> Row:
    return Row("drain", "a backlog", "10/s", "bare: 20/s", measured, "%", at_least=60, steady=steady)


@pytest.mark.parametrize(("measured", "failures"), [(51, 0), (34, 0), (32, 1)])
def test_ratio_below_two_thirds_of_baseline_fails(
    measured: float, failures: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(baseline, "PATH", tmp_path / "baseline.json")
    baseline.write([row(50), row(99, steady=False)])
    assert json.loads(baseline.PATH.read_text()) == {"a backlog": 0.5}
    assert len(baseline.compare([row(measured)])) == failures


def test_figure_without_measurement_fails(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(baseline, "PATH", tmp_path / "baseline.json")
    baseline.write([row(50)])
    assert "not measured" in baseline.compare([])[0]


@pytest.mark.parametrize(("measured", "failures"), [(1.2, 0), (1.3, 1)])
def test_missed_firm_target_fails(measured: float, failures: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(baseline, "PATH", tmp_path / "baseline.json")
    baseline.write([])
    loose = Row("jit", "a backlog", "", "", 9, "ms", at_most=1.2)
    found = baseline.compare([loose, replace(loose, measured=measured, firm=True)])
    assert found == ["a backlog: 1.3 ms; expected ≤ 1.2 ms."] * failures


@pytest.mark.parametrize("has_server", [False, True])
def test_jit_is_left_out_without_a_compiler(has_server: bool, monkeypatch: Any, capsys: Any) -> None:
    """The server may lack LLVM, or there may be no server of the distribution."""
    without_llvm = SimpleNamespace(execute=lambda sql: [(False, "15.1")], stop=lambda: None)
    monkeypatch.setattr(jit, "stock", lambda: Path("/nowhere") if has_server else None)
    monkeypatch.setattr(jit, "Installed", lambda *options: without_llvm)
    assert jit.measure(parse([], ["jit"]), Server("", None)) == []
    said = "PostgreSQL 15.1 in /nowhere has no JIT compiler" if has_server else "no PostgreSQL of the distribution"
    assert f"jit is left out: {said}" in capsys.readouterr().out


def test_waits_for_other_sessions_are_sampled() -> None:
    url = os.environ["DATABASE_URL"]
    first, second, watcher = (psycopg.connect(url, autocommit=True) for _ in range(3))
    with first, second, watcher:
        first.execute("SELECT pg_advisory_lock(77, 1)")
        waiting = Thread(target=second.execute, args=["SELECT pg_advisory_lock(77, 1)"], daemon=True)
        waiting.start()

        def waited() -> waits.Waits:
            return waits.sample(watcher, [second.info.backend_pid], iter([True, False]).__next__)

        wait_until(lambda: waited() == {"Lock:advisory": 1})
        first.execute("SELECT pg_advisory_unlock(77, 1)")
        waiting.join()
        assert waited() == {}  # the session is idle


def test_share_of_waits() -> None:
    found = waits.Waits({waits.NONE: 90, "Lock:advisory": 4, "LWLock:WALInsert": 6})
    assert waits.share(found) == pytest.approx(10)
    assert waits.shown(found, 1) == "LWLock:WALInsert 6.00 %"
    assert waits.share(waits.Waits()) == 0


def test_slow_round_does_not_change_the_ratio() -> None:
    assert ratio([100, 10, 101], [200, 20, 202]) == 0.5


def test_report_keeps_the_text_around_the_table(tmp_path: Path, monkeypatch: Any) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report.BEGIN}\nold table\n{report.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(report, "PAGE", page)
    report.write([row(50)], "PostgreSQL 18")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old table" not in text
    assert "| a backlog | 10/s | bare: 20/s | 50 % | ≥ 60 % | **missed** |" in text


def test_server_keeps_a_foreign_database_of_the_same_name() -> None:
    url = os.environ["DATABASE_URL"]  # the suite's own server: tests/settings.py sets it
    server, name = Server(url, None), own("hc_signals_not_ours")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            with pytest.raises(SystemExit, match="not ours"):
                server.create(name)
        finally:
            connection.execute(f"DROP DATABASE {name}")
    server.create(name)
    server.create(name)  # one of ours is replaced
    server.drop(name)


def test_a_peer_that_cannot_be_installed_is_left_out(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(peers, "PEERS", (peers.Peer("unknown", "an unknown queue", (str(tmp_path / "nowhere"),), 1),))
    assert peers.runs(parse([], ["drain"]), Server("", None)) == {}
    assert "an unknown queue is left out, it cannot be installed" in capsys.readouterr().out


def test_an_unknown_figure_is_a_usage_error(capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(["--only", "drian"], ["drain"])
    assert exit_.value.code == 2 and "known: drain" in capsys.readouterr().err
