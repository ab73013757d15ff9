"""Findings of hc_status: one per thing, each with a verdict and, if it is a problem, the remedy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The verdict on one thing, or on all of them."""

    OK = "ok"
    WARN = "warn"
    ERROR = "error"


_WARN, _ERROR = Verdict.WARN, Verdict.ERROR

PROBLEMS: Mapping[str, tuple[Verdict, str]] = {
    "server-too-old": (_ERROR, "Upgrade the server to PostgreSQL 14 or newer."),
    "server-follower": (_WARN, "Use the leader's URL: a follower does not show workers and their locks."),
    "server-temp-files": (
        _WARN,
        "Raise it for Heroku Connect's role; if statements of that role fail: `manage.py hc_triggers pause --remove`.",
    ),
    "server-read-only": (_ERROR, "Nothing can be delivered: see default_transaction_read_only of database and role."),
    "log-missing": (_ERROR, "Run `manage.py migrate hc_signals`."),
    "restored": (
        _ERROR,
        "Start `manage.py hc_listen`: it adapts the log to this server and sends gap_detected.",
    ),
    "log-published": (_WARN, "Publish the tables that subscribers need, by name, instead of FOR ALL TABLES."),
    "capture-no-models": (_WARN, "Connect a model (`manage.py hc_inspect` writes them), or check INSTALLED_APPS."),
    "capture-missing": (_ERROR, "Run `manage.py hc_triggers install`; changes until then are not captured."),
    "capture-uninstalled": (_ERROR, "Run `manage.py hc_triggers install`, or remove the model."),
    "capture-disabled": (_ERROR, "Run `manage.py hc_triggers install`; changes until then are not captured."),
    "capture-outdated": (_WARN, "Run `manage.py hc_triggers install`."),
    "capture-absent": (_WARN, "Map the object in Heroku Connect, then run `manage.py hc_triggers install`."),
    "capture-unsupported": (_ERROR, "Map the model to the table that Heroku Connect writes to, or remove the model."),
    "capture-partitions": (_WARN, "Write to the table that the model names, or add models for the other tables."),
    "capture-row-security": (_ERROR, "Give these roles BYPASSRLS, or `ALTER TABLE ... DISABLE ROW LEVEL SECURITY`."),
    "capture-columns": (
        _ERROR,
        "Add the fields to the mapping, or remove them from the model: `manage.py hc_inspect --check` says how.",
    ),
    "capture-orphan": (_WARN, "Run `manage.py hc_triggers uninstall --orphans`."),
    "capture-paused": (_ERROR, "Run `manage.py hc_triggers resume`; changes until then become a gap."),
    "capture-gap-owed": (_ERROR, "Run `manage.py hc_triggers resume` again: it was interrupted."),
    "capture-gap-unreported": (
        _WARN,
        "`manage.py hc_listen` reports it once capture works again: its log says what it waits for.",
    ),
    "capture-reread": (_WARN, "`manage.py hc_listen` reads them within a minute; if this stays, its log says why."),
    "reload-long": (_WARN, "Open the mapping in Heroku Connect and check whether the reload has stopped."),
    "receivers-none": (
        _WARN,
        "Import the receivers in ready() of an AppConfig; nothing to do if another service has them.",
    ),
    "consumer-new": (_WARN, "Start `manage.py hc_listen`."),
    "consumer-no-worker": (_ERROR, "Start `manage.py hc_listen`, or remove it: `manage.py hc_consumers remove NAME`."),
    "consumer-no-position": (_WARN, "See `manage.py hc_deliveries list`; `manage.py hc_consumers remove NAME`."),
    "consumer-late": (_WARN, "Wait if it shrinks; else speed up slow receivers, or raise SHARDS and --concurrency."),
    "consumer-stuck": (
        _ERROR,
        "Find out what the worker does: its log, /healthz, hc_signals_receiver_running_seconds.",
    ),
    "worker-trouble": (
        _ERROR,
        "Read the server's words in the worker's log; the worker goes on once the cause is gone.",
    ),
    "bell-no-listener": (_ERROR, "Restart `manage.py hc_listen`: it has no LISTEN connection."),
    "bell-no-sleeper": (_WARN, "See the log of hc_listen: LISTEN does not work there, so it polls."),
    "bell-pooled": (_WARN, "Give hc_listen a direct database URL: behind this pooler it cannot be woken, so it polls."),
    "bell-queue": (_ERROR, "End the session that holds up NOTIFY: it has left a transaction open after LISTEN."),
    "connections-few": (_WARN, "Close unused connections, use a pooler for the site, or raise the limit."),
    "deliveries-failing": (_WARN, "See `manage.py hc_deliveries show ID`; the worker retries them."),
    "deliveries-dead": (
        _ERROR,
        "Repair the receiver, then `manage.py hc_deliveries retry --state dead`, or discard them.",
    ),
    "gaps-lost": (_ERROR, "Start `manage.py hc_listen`, which sends gap_detected; the server's log says why."),
    "gaps-recent": (_WARN, "Read these tables again (`manage.py hc_backfill`), if no receiver of gap_detected does."),
    "log-large": (_WARN, "Raise MAX_LOG_MB, or see which consumer holds it up."),
    "log-too-large": (
        _ERROR,
        "A worker makes room within minutes; if none is running, start one, or raise MAX_LOG_MB.",
    ),
    "log-bucket-full": (_ERROR, "Raise MAX_LOG_MB and restart hc_listen: changes are being lost, and become gaps."),
    "log-held-up": (_WARN, "Start a worker of it, or remove it: `manage.py hc_consumers remove NAME`."),
    "writes-failed": (
        _WARN,
        "See the trigger log in the admin, or pass --verbose: Salesforce refused writes of the app.",
    ),
    "heroku-state": (_ERROR, "Open the connection in Heroku Connect's dashboard."),
    "heroku-api": (_WARN, "Check HEROKU_AUTH_TOKEN and HEROKU_CONNECT_APP_NAME, or try again."),
    "not-checked": (_WARN, "Grant this role the right, or try again when the server is less busy."),
}
"""Verdict and remedy of every problem; docs/operations.md has a section for each."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    name: str
    """Kind of the thing: each table, for example, has a finding with the name ``capture``."""
    verdict: Verdict
    text: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Figures for programs, without contents of records."""
    problem: str = ""
    """Key of PROBLEMS; empty if the verdict is OK."""


def fine(name: str, text: str, **facts: Any) -> Finding:
    """Return a finding with the verdict OK.

    Args:
        name: kind of the thing.
        text: the line to print.
        facts: figures for programs.
    """
    return Finding(name, Verdict.OK, text, facts=facts)


def problem(key: str, name: str, text: str, **facts: Any) -> Finding:
    """Return the finding of a problem; the other arguments are those of :func:`fine`.

    Args:
        key: of PROBLEMS.
    """
    verdict, remedy = PROBLEMS[key]
    return Finding(name, verdict, text, remedy, facts, key)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst of the verdicts."""
    return max((finding.verdict for finding in findings), key=list(Verdict).index, default=Verdict.OK)
