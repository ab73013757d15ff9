"""The verdicts of hc_status: :func:`examine` returns one finding per thing, each with its verdict and remedy."""

from collections.abc import Callable, Iterator
from math import inf
from time import monotonic

from django.db import DatabaseError

from hc_signals.conf import Conf
from hc_signals.observability.findings import Finding, finding
from hc_signals.observability.judge import capture, delivery, freshness, heroku, log
from hc_signals.observability.judge.server import free_connections, server
from hc_signals.observability.survey import Survey, limited
from hc_signals.postgres.errors import one_line, prevents_reading

NO_TIME = "not checked: the checks before it took all the time"


def examine(
    using: str,
    conf: Conf,
    *,
    verbose: bool = False,
    ask_heroku: bool = True,
    answer: heroku.Heroku | None = None,
    seconds: float = inf,
) -> list[Finding]:
    """Check everything. A check that the role may not make, or not in time, is a finding too.

    Args:
        verbose: show messages of Salesforce, which may quote values of records.
        ask_heroku: ask Heroku Connect's API, if app and token are configured.
        answer: what the API has said; default: ask it now.
        seconds: seconds after which no further check begins; each one that is left out is a finding too.

    Raises:
        DatabaseError: the database cannot be reached, or the connection was lost.
    """
    end = monotonic() + seconds
    found = _look(using, "server", lambda: server(using))
    if any(each.problem == "log-missing" for each in found):
        return found
    if answer is None:
        answer = heroku.ask() if ask_heroku else heroku.Heroku()
    survey = Survey(using, conf)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("capture", lambda: capture.capture(survey)),
        ("capture", lambda: capture.row_security(survey)),
        ("capture", lambda: capture.pause(survey)),
        ("capture", lambda: capture.incomplete(survey)),
        ("reload", lambda: capture.reloads(survey)),
        ("receivers", lambda: delivery.receivers(survey)),
        ("consumer", lambda: delivery.consumers(survey)),
        ("worker", lambda: delivery.troubles(survey)),
        ("bell", lambda: delivery.bell(survey)),
        ("connections", lambda: free_connections(using)),
        ("deliveries", lambda: delivery.deliveries(survey)),
        ("gaps", lambda: log.gaps(using)),
        ("log", lambda: log.retention(survey)),
        ("freshness", lambda: freshness.freshness(survey, answer)),
        ("writes", lambda: heroku.writes(using, verbose)),
    ]
    for name, check in checks:
        found += _look(using, name, check) if monotonic() < end else [finding(name, NO_TIME, "not-checked")]
    return [*found, *heroku.states(answer)]


def _look(using: str, name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        with limited(using):
            return list(check())
    except DatabaseError as error:
        if not prevents_reading(error):
            raise
        return [finding(name, one_line(error), "not-checked")]
