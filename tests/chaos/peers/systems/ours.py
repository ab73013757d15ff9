"""hc_signals: ``hc_listen`` with default settings, and a receiver of ``record_changed``."""

import sys
from pathlib import Path

from tests.chaos.peers.system import System

SYSTEM = System(
    name="ours",
    label="hc_signals",
    install=(),
    work=("-m", "django", "hc_listen", "-v", "0"),
    promises=frozenset({"once", "order"}),
    captures=True,
    python=Path(sys.executable),
    environment={"DJANGO_SETTINGS_MODULE": "tests.chaos.peers.ours.settings"},
)
