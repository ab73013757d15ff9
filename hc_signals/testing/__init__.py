"""Tools for tests and development: a Heroku Connect that plays Salesforce, delivery and assertions inside a test."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hc_signals.testing.delivering import deliver_changes
    from hc_signals.testing.heroku_connect import HerokuConnect
    from hc_signals.testing.sent import Sent, assert_signal, capture_signals

__all__ = ["HerokuConnect", "Sent", "assert_signal", "capture_signals", "deliver_changes"]

_HOMES = {
    "HerokuConnect": "heroku_connect",
    "Sent": "sent",
    "assert_signal": "sent",
    "capture_signals": "sent",
    "deliver_changes": "delivering",
}


def __getattr__(name: str) -> Any:
    # The pytest plugin lies below this package and is loaded in every project of an environment: Django must not be.
    if name in _HOMES:
        return getattr(import_module(f"hc_signals.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
