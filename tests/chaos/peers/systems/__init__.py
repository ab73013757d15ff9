"""The systems of the table, each in its own module. A module runs in the environment of its system."""

import importlib

from tests.chaos.peers.system import System

NAMES = ("ours", "pgpubsub", "pgqueuer", "procrastinate", "outbox")


def find(name: str) -> System:
    """Return a system by its name."""
    system = importlib.import_module(f"tests.chaos.peers.systems.{name}").SYSTEM
    assert isinstance(system, System)
    return system
