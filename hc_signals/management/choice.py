"""Turns names on the command line into models and receivers; an unknown name gets the names that exist."""

import difflib
from collections.abc import Collection

from django.apps import apps
from django.core.management.base import CommandError
from django.db import models

from hc_signals.tables import connected_models


def connected_model(label: str) -> type[models.Model]:
    """Return the connected model with this label; raise a CommandError if there is none."""
    known = {model._meta.label_lower: model for model in connected_models()}
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError) as error:
        names = ", ".join(m._meta.label for m in known.values()) or "none"
        raise CommandError(f"There is no model {label!r}; connected models: {names}.") from error
    if model._meta.label_lower not in known:
        raise CommandError(f"{label!r} is not a connected model: it has no sf_object_name, or Django manages it.")
    return model


def check_receivers(names: Collection[str], known: Collection[str]) -> None:
    """Raise a CommandError for a dotted path that is not known; it names the nearest ones, or all if none is near."""
    for name in names:
        if name not in known:
            near = [other for other in sorted(known) if other.startswith(f"{name}#")]
            near += difflib.get_close_matches(name, set(known) - set(near), n=3, cutoff=0.5)
            tail = name.rpartition(".")[2]
            near += sorted(other for other in known if other.rpartition(".")[2] == tail and other not in near)
            hint = f"did you mean {' or '.join(near)}?" if near else f"connected: {', '.join(sorted(known)) or 'none'}."
            raise CommandError(f"No receiver {name!r} is connected to a signal of the chosen models; {hint}")
