"""The models of the check that runs."""

from typing import Any

from tests.ecosystem.chosen import CHECK

if declare := getattr(CHECK, "models", None):
    declare()


def __getattr__(name: str) -> Any:
    """Return a model of this app."""
    from django.apps import apps

    try:
        return apps.all_models["shop"][name.lower()]
    except KeyError:
        raise AttributeError(name) from None
