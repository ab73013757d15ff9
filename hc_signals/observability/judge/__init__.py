"""A look at the whole system: :func:`examine` returns one finding per thing, each with its verdict and remedy."""

from collections.abc import Callable, Iterator

from django.db import DatabaseError, transaction

from hc_signals.conf import Conf
from hc_signals.log.consumers import Consumer, consumers
from hc_signals.observability.findings import Finding, problem
from hc_signals.observability.judge import capture, delivery, heroku, log
from hc_signals.observability.judge.capacity import free_connections
from hc_signals.observability.judge.receivers import receivers
from hc_signals.observability.judge.server import server
from hc_signals.postgres.errors import one_line, prevents_reading
from hc_signals.postgres.limits import own_limits
from hc_signals.postgres.query import execute

STATEMENT_TIMEOUT = "5s"
"""No question to the server may take longer: a look must not be felt."""


def examine(using: str, conf: Conf, *, verbose: bool = False, ask_heroku: bool = True) -> list[Finding]:
    """Look at everything. What cannot be looked at is a finding too.

    Args:
        using: database alias.
        conf: the checked setting.
        verbose: say messages of Salesforce, which may hold contents of records.
        ask_heroku: ask Heroku Connect's API, where app and token are configured.

    Raises:
        DatabaseError: the connection cannot be had, or was lost.
    """
    found: list[Finding] = _look(using, "server", lambda: server(using))
    if any(finding.problem == "log-missing" for finding in found):
        return found
    known: list[Consumer] = []

    def look_at_consumers() -> Iterator[Finding]:
        known.extend(consumers(using, conf.RETENTION_HOURS))
        yield from delivery.consumer_findings(known, conf)

    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("capture", lambda: capture.capture(using)),
        ("capture", lambda: capture.row_security(using)),
        ("capture", lambda: capture.pause(using)),
        ("capture", lambda: capture.incomplete(using)),
        ("reload", lambda: capture.reloads(using)),
        ("receivers", lambda: receivers(conf)),
        ("consumer", look_at_consumers),
        ("worker", lambda: delivery.troubles(using)),
        ("bell", lambda: delivery.bell(using, known)),
        ("connections", lambda: free_connections(using)),
        ("deliveries", lambda: delivery.deliveries(using, known)),
        ("gaps", lambda: log.gaps(using)),
        ("log", lambda: log.retention(using, known, conf)),
        ("writes", lambda: heroku.writes(using, verbose)),
    ]
    for name, check in checks:
        found += _look(using, name, check)
    return found + (list(heroku.heroku()) if ask_heroku else [])


def _look(using: str, name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Take one look; without a right, or when it takes too long, that is the finding."""
    try:
        with transaction.atomic(using=using):
            execute(using, own_limits(is_local=True, statement_timeout=STATEMENT_TIMEOUT))
            return list(check())
    except DatabaseError as error:
        if not prevents_reading(error):
            raise
        return [problem("not-looked-at", name, one_line(error))]
