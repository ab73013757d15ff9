"""The Grafana dashboard and the alert rules: their metrics exist, their queries parse, their sections exist."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hc_signals.conf import Conf
from hc_signals.delivery.counting import Counting
from hc_signals.observability.liveness import Liveness
from hc_signals.observability.metrics import Metrics
from hc_signals.worker.bell_connection import BellState
from tests.pages import ROOT, TEXT

ALERTS = ROOT / "docs" / "monitoring" / "prometheus-alerts.yml"
DASHBOARD = ROOT / "docs" / "monitoring" / "grafana-dashboard.json"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
RULES = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
PANELS = [panel for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"]

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)"
)


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query of both files with the name of its rule or panel."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], _filled(target["expr"])


def _filled(expression: str) -> str:
    """Return a query of the dashboard as Grafana sends it."""
    return expression.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")


def series() -> dict[str, frozenset[str]]:
    """Return the labels of each series that hc_listen exposes."""
    alive = Liveness((), BellState("", 1.0, 0), ())
    found: dict[str, frozenset[str]] = {}
    for metric in Metrics(Conf(), 1, Counting(), lambda: alive, lambda: None).collect():
        labels = frozenset(metric._labelnames)  # type: ignore[attr-defined]
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, [""])
        for suffix in suffixes:
            found[metric.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def test_every_query_names_real_metrics_and_labels() -> None:
    real = series()
    used: set[str] = set()
    for name, query in queries():
        metrics = set(re.findall(r"\bhc_signals_\w+", query))
        assert metrics, name
        assert metrics <= real.keys(), name
        known = frozenset.union(*(real[metric] for metric in metrics)) | {"job", "instance"}
        lists = re.findall(r"\b(?:by|on|without) \(([\w, ]+)\)", query) + re.findall(r"(\w+)(?==~?\")", query)
        labels = {label for each in lists for label in re.split(r", ?", each)}
        assert labels <= known, name
        used |= metrics
    whole = {name for name in real if not name.endswith(("_sum", "_count"))}
    assert used == whole, "a metric is on no panel and in no alert"


def test_legends_and_summaries_name_labels_of_their_query() -> None:
    """Otherwise Grafana and Prometheus show nothing in their place."""
    real = series()
    for panel in PANELS:
        for target in panel["targets"]:
            labels = frozenset.union(*(real[name] for name in re.findall(r"\bhc_signals_\w+", target["expr"])))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels | {"instance"}, panel["title"]
    for rule in RULES:
        labels = frozenset.union(*(real[name] for name in re.findall(r"\bhc_signals_\w+", rule["expr"])))
        said = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert said <= labels | {"instance"}, rule["alert"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_names_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket", "info")
    assert rule["annotations"]["summary"].endswith(".")
    page, _, section = rule["annotations"]["runbook_url"].rpartition("#")
    assert page == "https://docs.example.com/operations.html"
    assert f"\n### {section}\n" in TEXT["operations.md"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_has_a_description_and_a_place(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


@pytest.mark.parametrize(("name", "query"), list(queries()), ids=lambda value: value[:20])
def test_brackets_of_a_query_are_closed(name: str, query: str) -> None:
    """The check that needs no promtool."""
    opened: list[str] = []
    for character in re.sub(r'"[^"]*"', "", query):
        if character in "([{":
            opened.append(character)
        elif character in ")]}":
            assert opened and opened.pop() + character in ("()", "[]", "{}"), name
    assert not opened, name


def promtool(*arguments: str) -> str:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_accepts_rules_and_queries(tmp_path: Path) -> None:
    """The queries of the dashboard are checked as recording rules."""
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(ALERTS))
    rules = [{"record": f"query_{number}", "expr": query} for number, (_, query) in enumerate(queries())]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    tests = (ROOT / "tests" / "monitoring" / "alerts_test.yml").read_text(encoding="utf-8")
    file = tmp_path / "alerts_test.yml"
    file.write_text(tests.replace("[ALERTS]", f"[{ALERTS}]"))
    promtool("test", "rules", str(file))


def test_every_alert_is_tried() -> None:
    tests = (ROOT / "tests" / "monitoring" / "alerts_test.yml").read_text(encoding="utf-8")
    assert {rule["alert"] for rule in RULES} == set(re.findall(r"\bHcSignals\w+", tests))
