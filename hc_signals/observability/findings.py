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


W, E = Verdict.WARN, Verdict.ERROR

PROBLEMS: Mapping[str, tuple[Verdict, str]] = {
    "server-too-old": (E, "Upgrade the server to PostgreSQL 14 or newer."),
    "server-follower": (W, "Use the leader's URL: a follower does not show workers and their locks."),
    "server-temp-files": (W, "Raise it for Heroku Connect's role, before statements of that role fail."),
    "server-read-only": (E, "Nothing can be delivered: see default_transaction_read_only of database and role."),
    "log-missing": (E, "Run `manage.py migrate hc_signals`."),
    "restored": (E, "Start `manage.py hc_listen`: it adapts the log to this server and sends gap_detected."),
    "log-published": (W, "Publish the tables that subscribers need, by name, instead of FOR ALL TABLES."),
    "capture-no-models": (W, "Connect a model (`manage.py hc_inspect` writes them), or check INSTALLED_APPS."),
    "capture-missing": (E, "Run `manage.py hc_triggers install`; changes until then are not captured."),
    "capture-uninstalled": (E, "Run `manage.py hc_triggers install`, or remove the model."),
    "capture-disabled": (E, "Run `manage.py hc_triggers install`; changes until then are not captured."),
    "capture-outdated": (W, "Run `manage.py hc_triggers install`."),
    "capture-absent": (W, "Map the object in Heroku Connect, then run `manage.py hc_triggers install`."),
    "capture-unsupported": (E, "Map the model to a table with a column id, which Heroku Connect or a mirror writes."),
    "capture-partitions": (W, "Write to the table that the model names, or add models for the other tables."),
    "capture-subscription": (W, "Fill the table by a tool that runs statements, or let the subscription end."),
    "capture-row-security": (E, "Give these roles BYPASSRLS."),
    "capture-columns": (
        E,
        "Add the fields to the mapping, or remove them from the model: `manage.py hc_inspect --check` says how.",
    ),
    "capture-orphan": (W, "Find the service that has its model; only if there is none, the capture may go."),
    "capture-paused": (E, "Run `manage.py hc_triggers resume`; changes until then become a gap."),
    "capture-gap-owed": (E, "Run `manage.py hc_triggers resume` again: it was interrupted."),
    "capture-gap-unreported": (W, "`hc_listen` reports it once capture works again: its log says what it waits for."),
    "capture-reread": (W, "`manage.py hc_listen` reads them within a minute; if this stays, its log says why."),
    "reload-long": (W, "Open the mapping in Heroku Connect and check whether the reload has stopped."),
    "receivers-none": (W, "Import the receivers in ready() of an AppConfig, unless another service has them."),
    "consumer-new": (W, "Start `manage.py hc_listen`."),
    "consumer-no-worker": (E, "Start `manage.py hc_listen`: the log keeps the changes for it."),
    "consumer-no-position": (
        W,
        "See `manage.py hc_deliveries list`; only a worker of this consumer retries them.",
    ),
    "consumer-late": (W, "Wait if it shrinks; else speed up slow receivers, or raise SHARDS and --concurrency."),
    "consumer-stuck": (E, "Find out what the worker does: its log, /healthz, hc_signals_receiver_running_seconds."),
    "worker-trouble": (E, "Read the server's words in the worker's log; the worker goes on once the cause is gone."),
    "bell-no-listener": (E, "Restart `manage.py hc_listen`: it has no LISTEN connection."),
    "bell-no-sleeper": (W, "See the log of hc_listen: LISTEN does not work there, so it polls."),
    "bell-pooled": (W, "Give hc_listen a direct database URL: behind this pooler it cannot be woken, so it polls."),
    "bell-queue": (E, "End the session that holds up NOTIFY: it has left a transaction open after LISTEN."),
    "connections-few": (W, "Close unused connections, use a pooler for the site, or raise the limit."),
    "deliveries-failing": (W, "See `manage.py hc_deliveries show ID`; the worker retries them."),
    "deliveries-dead": (E, "Repair the receiver, then run `manage.py hc_deliveries retry --state dead`."),
    "gaps-lost": (E, "Start `manage.py hc_listen`, which sends gap_detected; the server's log says why."),
    "gaps-recent": (W, "Read these tables again (`manage.py hc_backfill`), if no receiver of gap_detected does."),
    "log-large": (W, "Raise MAX_LOG_MB, or see which consumer holds it up."),
    "log-too-large": (E, "A worker makes room within minutes; if none is running, start one, or raise MAX_LOG_MB."),
    "log-bucket-full": (E, "Raise MAX_LOG_MB and restart hc_listen: changes are being lost, and become gaps."),
    "log-held-up": (W, "Start `manage.py hc_listen` of this consumer."),
    "minutes-missing": (W, "Run `manage.py migrate hc_signals`; `manage.py hc_listen` then records them."),
    "freshness-slow": (W, "Open the mapping in Heroku Connect: compare its polling interval, state and API calls."),
    "freshness-stuck": (E, "Open the connection in Heroku Connect's dashboard: it does not poll Salesforce."),
    "writes-failed": (W, "See the trigger log in the admin, or pass --verbose: Salesforce refused writes of the app."),
    "heroku-state": (E, "Open the connection in Heroku Connect's dashboard."),
    "heroku-api": (W, "Check HEROKU_AUTH_TOKEN and HEROKU_CONNECT_APP_NAME, or try again."),
    "not-checked": (W, "Grant this role the right, or try again when the server is less busy."),
}
"""Verdict and remedy of every problem; docs/operations.md has a section for each. No remedy destroys anything."""


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


def finding(name: str, text: str, problem: str = "", **facts: Any) -> Finding:
    """Return a :class:`Finding`; verdict and remedy are those of the problem, or OK without one."""
    verdict, remedy = PROBLEMS[problem] if problem else (Verdict.OK, "")
    return Finding(name, verdict, text, remedy, facts, problem)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst of the verdicts."""
    return max((finding.verdict for finding in findings), key=list(Verdict).index, default=Verdict.OK)


def most_urgent(findings: Iterable[Finding]) -> Finding | None:
    """Return the problem to solve first: the first one of the worst verdict; None without any problem."""
    problems = [finding for finding in findings if finding.problem]
    return next((finding for finding in problems if finding.verdict is worst(problems)), None)
