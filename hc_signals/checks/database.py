"""System checks that query the database; they run with ``manage.py check --database ALIAS`` and before ``migrate``."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.db import DatabaseError, connections, models

from hc_signals.capture.status import NO_KEY, TableStatus, statuses_of
from hc_signals.checks.own_origin import fitting_rules, own_origin
from hc_signals.conf import origin_rules
from hc_signals.exceptions import ConfigurationError
from hc_signals.log.schema import is_current
from hc_signals.origins import APP, origin_sql
from hc_signals.postgres.errors import one_line
from hc_signals.postgres.query import row
from hc_signals.tables import advice_for_missing_column, connected_models

Statuses = Sequence[tuple[type[models.Model], TableStatus]]


def check_capture(*, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E002, E004, W007, W008, W013, W014: the tables and capture of each database. W009: a query fails."""
    found: list[CheckMessage] = []
    for using in databases or ():
        if connections[using].vendor == "postgresql":
            try:
                found += _check_database(using)
            except DatabaseError as error:
                found.append(_no_answer(using, error))
    return found


def _check_database(using: str) -> list[CheckMessage]:
    connected = connected_models()
    statuses = list(zip(connected, statuses_of(connected, using), strict=True))
    if all(status.state == "absent" for _, status in statuses):
        return []  # another database has Heroku Connect's tables, or Heroku Connect will create them
    capture = _not_captured(statuses, using) if is_current(using) else [_no_log(using)]
    return [*_missing_columns(statuses, using), *capture, *_own_origin(using)]


def _missing_columns(statuses: Statuses, using: str) -> Iterator[CheckMessage]:
    """E002: a table lacks a column of its model."""
    for model, status in statuses:
        if columns := status.absent_columns:
            advice = sorted(set(map(advice_for_missing_column, columns)))
            yield Error(
                f"The table {status.table} on {using!r} has no {', '.join(map(repr, columns))}: "
                "no change of it can be delivered, and queries of the model fail.",
                hint=f"For each: {'; '.join(advice)}. `manage.py hc_inspect --check` lists them.",
                obj=model,
                id="hc_signals.E002",
            )


def _no_log(using: str) -> CheckMessage:
    """W007: there is no change log, or an older one."""
    return Warning(
        f"The database {using!r} has Heroku Connect's tables, but no change log of this version.",
        hint=f"Run `manage.py migrate hc_signals --database {using}`.",
        id="hc_signals.W007",
    )


def _not_captured(statuses: Statuses, using: str) -> Iterator[CheckMessage]:
    """W008: capture of a table is not as it should be; E004: it cannot be; W014: it misses a subscription's changes."""
    for model, status in statuses:
        if status.detail == NO_KEY:
            yield Error(
                f"Changes of {status.table} on {using!r} cannot be captured: the table has no column id.",
                hint="Rename its key to id, or add a column: `ALTER TABLE ... ADD COLUMN id text GENERATED ALWAYS AS "
                "(the_key::text) STORED`.",
                obj=model,
                id="hc_signals.E004",
            )
        elif status.aside == "subscription":
            yield Warning(
                f"A subscription writes to {status.table} on {using!r}: PostgreSQL runs no statement triggers for its "
                "changes, so they are not captured.",
                hint="Fill the table by a tool that runs statements (INSERT, COPY, MERGE, ...).",
                obj=model,
                id="hc_signals.W014",
            )
        elif status.is_drifted:
            yield Warning(
                f"Changes of {status.table} on {using!r} are not captured as they should be: {status.state} "
                f"({status.detail}).",
                hint=f"Run `manage.py hc_triggers install --database {using}`.",
                obj=model,
                id="hc_signals.W008",
            )


def _own_origin(using: str) -> Iterator[CheckMessage]:
    """W013: a rule of ORIGINS fits the session of this process, as the server sees it."""
    try:
        rules = origin_rules()
    except ConfigurationError:
        return  # E001
    (origin,) = row(using, f"SELECT {origin_sql(rules)}")
    if origin != APP and not fitting_rules(using, rules):
        yield own_origin(using, origin, "the defaults of the role, the database or the server")


def _no_answer(using: str, error: DatabaseError) -> CheckMessage:
    """W009: the database refuses the connection or the query."""
    return Warning(
        f"The database {using!r} could not be checked: {one_line(error)}",
        hint="Correct its URL, or the rights of its user, and check again.",
        id="hc_signals.W009",
    )
