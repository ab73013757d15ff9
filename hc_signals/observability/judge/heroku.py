"""Heroku Connect: writes that Salesforce refused, and the states of connections and mappings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hc_signals.conf import Conf, heroku_app_name, heroku_setting
from hc_signals.exceptions import APIError, ConfigurationError
from hc_signals.heroku.api import (
    HerokuConnectAPI,
    Mapped,
    Problem,
    connections_with_mappings,
    mappings_of,
    problems_of,
)
from hc_signals.heroku.trigger_log.models import TriggerLogAbstract
from hc_signals.models import TriggerLog, trigger_log_of
from hc_signals.observability.findings import Finding, finding
from hc_signals.postgres.moments import age, aware
from hc_signals.tables import connected_models, table_parts

NEWEST = 10_000
"""Newest rows of the trigger log that are searched for failed writes: it has no index for them."""


def writes(using: str, verbose: bool) -> Iterator[Finding]:
    """Find writes that Salesforce refused, in every connection's schema that has a trigger log.

    With ``verbose``, show the last message of Salesforce, which may quote values of a record.
    """
    schemas = {table_parts(TriggerLog)[0], *(table_parts(model)[0] for model in connected_models())}
    for schema in sorted(schemas):
        for model in trigger_log_of(schema):
            if model.objects.using(using).has_table():
                yield _failed(model, using, verbose)


def _failed(model: type[TriggerLogAbstract], using: str, verbose: bool) -> Finding:
    newest = model.objects.using(using).order_by("-id").values("id", "state")[:NEWEST]
    failed = model.objects.using(using).filter(id__in=[row["id"] for row in newest if row["state"] == "FAILED"])
    count, table = failed.count(), model._meta.db_table.replace('"', "")
    if not count:
        return finding("writes", f"{table}: none failed", table=table, failed=0)
    last = failed.order_by("-id").values("table_name", "created_at", "sf_message")[0]
    text = f"{table}: {count} failed, the last one on {last['table_name']}"
    at = aware(last["created_at"])
    text += f" {age(at)} ago" if at else ""
    text += f": {last['sf_message']}" if verbose else ""
    return finding("writes", text, "writes-failed", table=table, failed=count, last=at)


@dataclass(frozen=True)
class Heroku:
    """What Heroku Connect's API says; without app or token, nothing."""

    app: str = ""
    """Empty: the API was not asked."""
    error: str = ""
    """Why it gave no answer."""
    problems: Sequence[Problem] = ()
    mappings: Sequence[Mapped] = ()

    @property
    def advice(self) -> str:
        """What has to be done so that the API can say more."""
        if self.error:
            return "Heroku Connect's API gave no answer"
        if self.app:
            return "Heroku Connect's API says nothing about its mappings"
        return "nothing more can be known without HEROKU_AUTH_TOKEN and HEROKU_CONNECT_APP_NAME"

    def poll_seconds(self, table: str, conf: Conf) -> float:
        """Return the seconds between two polls of a table's object: those of its mapping, else of the setting."""
        found = [m.poll_seconds for m in self._of(table) if m.poll_seconds is not None]
        return max(found, default=conf.SALESFORCE_POLL_SECONDS)

    def states(self, schema: str) -> str:
        """Return the states of the mappings of one connection, each once."""
        return ", ".join(sorted({m.state for m in self.mappings if m.state and m.schema in ("", schema)}))

    def _of(self, table: str) -> list[Mapped]:
        schema, _, name = table.partition(".")
        return [m for m in self.mappings if m.object_name.lower() == name and m.schema in ("", schema)]


def ask() -> Heroku:
    """Ask Heroku Connect's API, if an app and a token are configured."""
    app = heroku_app_name()
    if not app or not heroku_setting("HEROKU_AUTH_TOKEN"):
        return Heroku()
    try:
        found = connections_with_mappings(HerokuConnectAPI(app))
    except (APIError, ConfigurationError) as error:
        return Heroku(app, str(error))
    return Heroku(app, problems=problems_of(found), mappings=mappings_of(found))


def states(found: Heroku) -> Iterator[Finding]:
    """Judge the states of connections and mappings; no finding if the API was not asked."""
    if found.error:
        yield finding("heroku", f"{found.app}: {found.error}", "heroku-api")
        return
    for of in found.problems:
        yield finding("heroku", str(of), "heroku-state", connection=of.connection, mapping=of.mapping, state=of.state)
    if found.app and not found.problems:
        yield finding("heroku", f"{found.app}: connections and mappings are in good states")
