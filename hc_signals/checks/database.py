"""System checks that look into the database: only with ``manage.py check --database ALIAS``, and before ``migrate``."""

from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.db import DatabaseError, connections, models

from hc_signals.capture import triggers
from hc_signals.heroku.inspection import how_to_do_without
from hc_signals.log.schema import exists
from hc_signals.postgres.errors import one_line
from hc_signals.tables import connected_models


def check_capture(*, databases: Sequence[str] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E002: a table lacks a column. W007: no change log. W008: a table is not captured. W009: the server cannot say."""
    found: list[checks.CheckMessage] = []
    for using in databases or ():
        if connections[using].vendor == "postgresql":
            try:
                found += _check_database(using)
            except DatabaseError as error:
                found.append(_cannot_tell(using, error))
    return found


def _check_database(using: str) -> list[checks.CheckMessage]:
    connected = connected_models()
    found = zip(connected, triggers.find(connected, using), strict=True)
    states = [(model, triggers.compare(model, each)) for model, each in found]
    if all(status.state == "absent" for _, status in states):
        return []  # Heroku Connect has its tables elsewhere, or makes them later
    lacking = [_lacks_columns(model, status, using) for model, status in states if status.absent_columns]
    if not exists(using):
        return [*lacking, _no_log(using)]
    return lacking + [
        checks.Warning(
            f"Changes of {status.table} on {using!r} are not captured as they should be: {status.state} "
            f"({status.detail}).",
            hint=f"Run `manage.py hc_triggers install --database {using}`.",
            obj=model,
            id="hc_signals.W008",
        )
        for model, status in states
        if status.state not in ("installed", "absent")
    ]


def _lacks_columns(model: type[models.Model], status: triggers.TableStatus, using: str) -> checks.CheckMessage:
    columns = status.absent_columns
    advice = {how_to_do_without(column) for column in columns}
    return checks.Error(
        f"The table {status.table} on {using!r} has no {', '.join(map(repr, columns))}: "
        "no change of it can be delivered, and queries of the model fail.",
        hint=f"For each: {'; '.join(sorted(advice))}. `manage.py hc_inspect --check` lists them.",
        obj=model,
        id="hc_signals.E002",
    )


def _no_log(using: str) -> checks.CheckMessage:
    return checks.Warning(
        f"The database {using!r} has Heroku Connect's tables, but no change log.",
        hint=f"Run `manage.py migrate hc_signals --database {using}`.",
        id="hc_signals.W007",
    )


def _cannot_tell(using: str, error: DatabaseError) -> checks.CheckMessage:
    return checks.Warning(
        f"The database {using!r} could not be looked at: {one_line(error)}",
        hint="Correct its URL, or the rights of its user, and check again.",
        id="hc_signals.W009",
    )
