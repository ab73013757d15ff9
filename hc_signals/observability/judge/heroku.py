"""Heroku Connect: writes that Salesforce refused, and the states of connections and mappings."""

from collections.abc import Iterator

from hc_signals.conf import heroku_app_name, heroku_setting
from hc_signals.exceptions import APIError, ConfigurationError
from hc_signals.heroku.api import HerokuConnectAPI, check_health
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


def heroku() -> Iterator[Finding]:
    """Ask Heroku Connect's API; no finding if no app or token is configured."""
    app = heroku_app_name()
    if not app or not heroku_setting("HEROKU_AUTH_TOKEN"):
        return
    try:
        problems = check_health(HerokuConnectAPI(app))
    except (APIError, ConfigurationError) as error:
        yield finding("heroku", f"{app}: {error}", "heroku-api")
        return
    for of in problems:
        yield finding("heroku", str(of), "heroku-state", connection=of.connection, mapping=of.mapping, state=of.state)
    if not problems:
        yield finding("heroku", f"{app}: connections and mappings are in good states")
