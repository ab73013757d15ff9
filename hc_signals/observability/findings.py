"""What a look at the system finds: one finding per thing, with a verdict and, where it is not well, the remedy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How well it is."""

    OK = "ok"
    WARN = "warn"
    ERROR = "error"


_WARN, _ERROR = Verdict.WARN, Verdict.ERROR

PROBLEMS: Mapping[str, tuple[Verdict, str]] = {
    "server-too-old": (_ERROR, "Upgrade the server to PostgreSQL 14 or newer."),
    "server-follower": (_WARN, "Use the leader's URL: workers and their locks are seen only there."),
    "server-temp-files": (
        _WARN,
        "Raise it for Heroku Connect's role; if statements of that role fail: `manage.py hc_triggers pause --remove`.",
    ),
    "server-read-only": (_ERROR, "Nothing can be delivered: see default_transaction_read_only of database and role."),
    "log-missing": (_ERROR, "Run `manage.py migrate hc_signals`."),
    "restored": (
        _ERROR,
        "Start `manage.py hc_listen`: it makes log and positions fit this server and sends gap_detected.",
    ),
    "log-published": (_WARN, "Publish the tables that subscribers need, by name, instead of FOR ALL TABLES."),
    "capture-no-models": (_WARN, "Connect a model (`manage.py hc_inspect` writes them), or check INSTALLED_APPS."),
    "capture-missing": (_ERROR, "Run `manage.py hc_triggers install`; what changed meanwhile was not captured."),
    "capture-uninstalled": (_ERROR, "Run `manage.py hc_triggers install`, or remove the model."),
    "capture-disabled": (_ERROR, "Run `manage.py hc_triggers install`; what changed meanwhile was not captured."),
    "capture-outdated": (_WARN, "Run `manage.py hc_triggers install`."),
    "capture-absent": (_WARN, "Map the object in Heroku Connect, then run `manage.py hc_triggers install`."),
    "capture-unsupported": (_ERROR, "Let the model be of a table that Heroku Connect writes to, or remove it."),
    "capture-partitions": (_WARN, "Write to the table that the model names, or let other models name the others."),
    "capture-row-security": (_ERROR, "Give these roles BYPASSRLS, or `ALTER TABLE ... DISABLE ROW LEVEL SECURITY`."),
    "capture-columns": (
        _ERROR,
        "Add the fields to the mapping, or take them from the model: `manage.py hc_inspect --check` says how.",
    ),
    "capture-orphan": (_WARN, "Run `manage.py hc_triggers uninstall --orphans`."),
    "capture-paused": (_ERROR, "Run `manage.py hc_triggers resume`; what changes meanwhile will be told as a gap."),
    "capture-gap-owed": (_ERROR, "Run `manage.py hc_triggers resume` again: it was interrupted."),
    "capture-gap-untold": (
        _WARN,
        "`manage.py hc_listen` tells it when capture is right again: its log says what it waits for.",
    ),
    "capture-reread": (_WARN, "`manage.py hc_listen` does it within a minute; if this stays, its log says why."),
    "reload-long": (_WARN, "Look at the mapping in Heroku Connect, and see whether it has stopped."),
    "receivers-none": (
        _WARN,
        "Import the receivers in ready() of an AppConfig; nothing to do if another service has them.",
    ),
    "consumer-new": (_WARN, "Start `manage.py hc_listen`."),
    "consumer-no-worker": (_ERROR, "Start `manage.py hc_listen`, or let it go: `manage.py hc_consumers remove NAME`."),
    "consumer-no-position": (_WARN, "See `manage.py hc_deliveries list`; `manage.py hc_consumers remove NAME`."),
    "consumer-late": (_WARN, "Wait if it shrinks; else look for slow receivers, or raise SHARDS and --concurrency."),
    "consumer-stuck": (_ERROR, "See what the worker is at: its log, /healthz, hc_signals_receiver_running_seconds."),
    "worker-trouble": (_ERROR, "See the worker's log for the server's words: it goes on by itself once it is mended."),
    "bell-nobody-listens": (_ERROR, "Restart `manage.py hc_listen`: its LISTEN connection is not there."),
    "bell-nobody-asleep": (_WARN, "See the log of hc_listen: LISTEN does not work there, so it polls."),
    "bell-pooled": (_WARN, "Give hc_listen a direct database URL: behind this pooler it cannot be woken, so it polls."),
    "bell-queue": (_ERROR, "Find the session that holds up NOTIFY: a transaction left open after LISTEN."),
    "connections-few": (_WARN, "Close what is not needed, use a pooler for the site, or raise the limit."),
    "deliveries-failing": (_WARN, "See `manage.py hc_deliveries show ID`; they are retried by themselves."),
    "deliveries-dead": (
        _ERROR,
        "Mend the receiver, then `manage.py hc_deliveries retry --state dead`, or discard them.",
    ),
    "gaps-lost": (_ERROR, "Start `manage.py hc_listen`, which tells it as a gap; the server's log says why."),
    "gaps-recent": (_WARN, "Read these tables again (`manage.py hc_backfill`), if no receiver of gap_detected does."),
    "log-large": (_WARN, "Raise MAX_LOG_MB, or look who holds it up."),
    "log-too-large": (_ERROR, "A worker makes room within minutes; if none lives, start one, or raise MAX_LOG_MB."),
    "log-bucket-full": (_ERROR, "Raise MAX_LOG_MB and restart hc_listen: changes are being lost, as gaps."),
    "log-held-up": (_WARN, "Start a worker of it, or let it go: `manage.py hc_consumers remove NAME`."),
    "writes-failed": (_WARN, "See TriggerLog in the admin, or say --verbose: Salesforce refused what the app wrote."),
    "heroku-state": (_ERROR, "Open the connection in Heroku Connect's dashboard."),
    "heroku-api": (_WARN, "Check HEROKU_AUTH_TOKEN and HEROKU_CONNECT_APP_NAME, or try again."),
    "not-looked-at": (_WARN, "Give this role the right to look, or look again when the server is less busy."),
}
"""Verdict and remedy of every problem; docs/operations.md has a section for each."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """Of the thing: several tables, say, have one finding each, of the same name."""
    verdict: Verdict
    text: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For programs. Never contents of records."""
    problem: str = ""
    """Key of PROBLEMS; empty where all is well."""


def fine(name: str, text: str, **facts: Any) -> Finding:
    """Return a finding of something that is well."""
    return Finding(name, Verdict.OK, text, facts=facts)


def problem(key: str, name: str, text: str, **facts: Any) -> Finding:
    """Return a finding of something that is not well."""
    verdict, remedy = PROBLEMS[key]
    return Finding(name, verdict, text, remedy, facts, key)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst of the verdicts."""
    return max((finding.verdict for finding in findings), key=list(Verdict).index, default=Verdict.OK)
