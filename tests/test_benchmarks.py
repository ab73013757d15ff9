"""The benchmarks' handling of bad input, foreign databases and the docs page; nothing is measured here."""

import json
import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import baseline, peers, report
from benchmarks.options import parse
from benchmarks.rows import Row, ratio
from benchmarks.server import Server
from tests.server import own


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
