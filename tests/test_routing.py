"""The one table of what a change sends: hc_signals.delivery.routing."""

import re

import pytest
from django.dispatch import Signal

from hc_signals import signals
from hc_signals.delivery.routing import FIRST_SIGNAL, ROUTES, SIGNALS, route_of, signals_of
from hc_signals.events import ChangeEvent
from tests.conftest import ROOT

CONDITIONAL = {"record_linked", "sync_failed"}
"""Signals of an update that depend on the columns it changes."""
HOME = "delivery/routing.py"


def test_every_public_signal_is_sent() -> None:
    public = {name: each for name, each in vars(signals).items() if isinstance(each, Signal)}
    assert public.items() <= SIGNALS.items()
    assert {name for route in ROUTES.values() for name in route.signals} | CONDITIONAL == SIGNALS.keys()


def test_every_change_type_is_documented() -> None:
    source = (ROOT / "hc_signals" / "events.py").read_text(encoding="utf-8")
    documented = source.partition("change_type: str")[2].partition("change_origin")[0]
    assert "change_type" in ChangeEvent.__dataclass_fields__
    assert {route.change_type for route in ROUTES.values()} == set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", documented))


@pytest.mark.parametrize(
    ("change_type", "signal"),
    [("CREATE", "record_created"), ("GAP_UPDATE", "record_updated"), ("GAP_OVERFLOW", "gap_detected")],
)
def test_first_signal_of_a_change_type(change_type: str, signal: str) -> None:
    assert FIRST_SIGNAL[change_type] is SIGNALS[signal]


def test_snapshot_for_named_receivers_sends_a_creations_signals() -> None:
    assert signals_of("SNAPSHOT") == ("record_changed", "records_changed")
    assert signals_of("SNAPSHOT", is_for_named=True) == signals_of("INSERT")


def test_unknown_operation_is_a_gap() -> None:
    """A newer release of another service may write it: silence would lose changes."""
    assert route_of("MERGE") == route_of("GAP")


def test_only_the_table_maps_operations_to_signals() -> None:
    pattern = re.compile(r"[\"']post_(save|delete)[\"'],? *\)|: *\(?signals\.record_(created|updated|deleted)\b")
    paths = sorted((ROOT / "hc_signals").rglob("*.py"))
    found = [str(path.relative_to(ROOT / "hc_signals")) for path in paths if pattern.search(path.read_text("utf-8"))]
    assert found == [HOME]
