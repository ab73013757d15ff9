"""What a command was told to work on: models, receivers, the log; what does not exist is answered with what does."""

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from django.apps import apps
from django.core.management.base import CommandError
from django.db import DatabaseError, connections, models
from django.utils.connection import ConnectionDoesNotExist

from hc_signals.exceptions import HCSignalsError
from hc_signals.postgres.errors import one_line
from hc_signals.tables import connected_models


def connected_model(label: str) -> type[models.Model]:
    """Return the connected model with this label.

    Raises:
        CommandError: there is none.
    """
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
    """Refuse names of receivers that are not connected.

    Raises:
        CommandError: naming the nearest ones, or all where none is near.
    """
    for name in names:
        if name not in known:
            near = [other for other in sorted(known) if other.startswith(f"{name}#")]
            near += difflib.get_close_matches(name, set(known) - set(near), n=3, cutoff=0.5)
            tail = name.rpartition(".")[2]
            near += sorted(other for other in known if other.rpartition(".")[2] == tail and other not in near)
            hint = f"did you mean {' or '.join(near)}?" if near else f"connected: {', '.join(sorted(known)) or 'none'}."
            raise CommandError(f"No receiver {name!r} is connected to a signal of the chosen models; {hint}")


@contextmanager
def told_in_one_sentence(using: str) -> Iterator[None]:
    """Turn our own errors and the database's into a CommandError."""
    try:
        yield
    except (HCSignalsError, ConnectionDoesNotExist) as error:
        raise CommandError(str(error)) from error
    except DatabaseError as error:
        raise CommandError(f"The database {using!r} answered: {one_line(error)}") from error


def require_log(using: str) -> None:
    """Refuse a database without the change log.

    Raises:
        CommandError: it has none.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.hc_signals_change') IS NULL")
        if cursor.fetchone()[0]:
            raise CommandError("The change log does not exist; run `manage.py migrate hc_signals` first.")
