"""The setting ``HC_SIGNALS``: each key, its default and its meaning; and the settings of Heroku Connect's API."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db.models import Model

from hc_signals.exceptions import ConfigurationError
from hc_signals.origins import HEROKU_CONNECT, Rules, parse_rules
from hc_signals.postgres.moments import check_start

MAX_RETENTION_HOURS = 80
"""Most hours of RETENTION_HOURS: the log is a ring of eight buckets of twelve hours."""


@dataclass(frozen=True, kw_only=True)
class Conf:
    """The keys of ``HC_SIGNALS``."""

    CONSUMER: str = "default"
    """Name under which this service reads the log; two services on one database use two names."""
    ORIGINS: Sequence[str | Mapping[str, str]] = (HEROKU_CONNECT,)
    """Rules by which capture knows the writes of Heroku Connect or another mirror: see docs/other-mirrors.md."""
    START_AT: str = "earliest"
    """Start of a consumer without a position: ``earliest``, ``latest``, an age such as ``2h``, an ISO time."""
    SHARDS: int = 1
    """Number of shards that share the records by hash; 1 keeps the order of all changes."""
    BATCH_SIZE: int = 1000
    """Most changes per page."""
    POLL_INTERVAL: float = 60.0
    """Seconds after which a sleeping worker reads the log, even if no writer has woken it."""
    SALESFORCE_POLL_SECONDS: float = 600.0
    """Seconds between two polls of Salesforce by Heroku Connect, if its API does not say: a later change is slow."""
    MAX_TRANSACTION_SECONDS: float = 3.0
    """Seconds after which a page is committed part-way, because its receivers take long."""
    ATOMIC: bool = True
    """False: receivers run outside a transaction, because they call slow services; their effects may happen twice."""
    RETENTION_HOURS: float = 72.0
    """Hours for which delivered changes stay in the log for a replay; at most MAX_RETENTION_HOURS."""
    MAX_LOG_MB: int = 10240
    """Size above which the log is cut: delivered changes first, then the backlog of the consumer furthest behind."""
    MAX_ATTEMPTS: int = 10
    """Calls of a failing receiver for one change, after which the delivery is dead."""
    RETRY_SECONDS: float = 5.0
    """Seconds before the first retry; each further pause is twice as long."""
    RETRY_MAX_SECONDS: float = 3600.0
    """Most seconds between two attempts."""
    DJANGO_SIGNALS: bool | Sequence[str] = False
    """Send Django's post_save and post_delete as well: True for all connected models, or their labels."""
    APPLY_ON_DELETE: bool | Sequence[str] = False
    """Apply ``on_delete`` of relations when Salesforce deletes a record: True for all models, or their labels."""
    REDO_CHILDREN: bool | Sequence[str] = False
    """Send a refused row to Salesforce again once its parent is there: True for all models, or their labels."""
    SETTLED_SECONDS: float = 900.0
    """Longest wait of a receiver with ``settled=True``: longer than the pause between two polls of Salesforce."""

    RECORD_CALLS: bool = True
    """Record each call of a receiver, for the timeline of a record in the admin."""
    SALESFORCE_URL: str | Mapping[str, str] = ""
    """Address of the Salesforce instance, for links to records: one, or one by schema of the connected tables."""

    RELOAD_AWARE: bool | Sequence[str] = True
    """Recognise the reload of a table, which is cleared and filled again: True for all models, or their labels."""
    RELOAD_QUIET_SECONDS: float = 300.0
    """Seconds without a new row after which a reload is over; 12 times as many if no row has come at all."""

    REPAIR_TRIGGERS: bool = True
    """The worker repairs capture that is missing or altered; False: it reports it."""
    WATCH_SECONDS: float = 30.0
    """Seconds between two checks of capture on every table."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "SALESFORCE_URL":
                _check_urls(field.name, value)
            elif field.name == "ORIGINS":
                parse_rules(value)
            elif isinstance(field.default, bool):
                _check_choice(field.name, value, takes_labels=field.name in MODEL_KEYS)
            else:
                _check_value(field.name, value, field.default)
        if self.RETENTION_HOURS > MAX_RETENTION_HOURS:
            raise ConfigurationError(
                f"HC_SIGNALS['RETENTION_HOURS'] is {self.RETENTION_HOURS!r}; expected at most {MAX_RETENTION_HOURS}: "
                "the log is a ring of eight buckets of twelve hours, and one of them must be free."
            )
        try:
            check_start(self.START_AT)
        except ValueError as error:
            raise ConfigurationError(f"HC_SIGNALS['START_AT']: {error}.") from error

    @cached_property
    def origin_rules(self) -> Rules:  # parsed ORIGINS; no docstring, because the page of the API is for settings
        return parse_rules(self.ORIGINS)


MODEL_KEYS = tuple(field.name for field in fields(Conf) if field.type == bool | Sequence[str])
"""The keys that choose models; :func:`chosen` checks their labels."""


def _check_choice(key: str, value: Any, takes_labels: bool) -> None:
    is_labels = isinstance(value, list | tuple) and all(isinstance(label, str) for label in value)
    if not (isinstance(value, bool) or (takes_labels and is_labels)):
        expected = "True, False or a list of model labels" if takes_labels else "True or False"
        raise ConfigurationError(f"HC_SIGNALS[{key!r}] is {value!r}; expected {expected}.")


def _check_value(key: str, value: Any, default: Any) -> None:
    wanted: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
    problem = ""
    if isinstance(value, bool) or not isinstance(value, wanted):
        problem = f"is {value!r}; expected {wanted[-1].__name__}, for example {default!r}."
    elif value == "":
        problem = f"is empty; give it a name, for example {default!r}."
    elif isinstance(value, int | float) and not 0 < value < 100_000:
        problem = f"is {value!r}; expected a number above 0 and below 100000."
    if problem:
        raise ConfigurationError(f"HC_SIGNALS[{key!r}] {problem}")


def _check_urls(key: str, value: Any) -> None:
    urls = list(value.values()) if isinstance(value, dict) else [value]
    for url in urls:
        if not (isinstance(url, str) and (url == "" or re.fullmatch(r"https?://[^\s/?#]+/?", url))):
            raise ConfigurationError(
                f"HC_SIGNALS[{key!r}] has {url!r}; expected the address of a Salesforce instance without a path, such "
                "as 'https://example.my.salesforce.com', or a dict of them by schema."
            )


def chosen(key: str, value: bool | Sequence[str], models: Iterable[type[Model]]) -> frozenset[type[Model]]:
    """Return the models that the value of the setting ``key`` chooses: True for all, False for none, or their labels.

    Raises:
        ConfigurationError: a label is not that of a connected model.
    """
    by_label = {model._meta.label_lower: model for model in models}
    if isinstance(value, bool):
        return frozenset(by_label.values() if value else ())
    for label in value:
        if label.lower() not in by_label:
            known = ", ".join(model._meta.label for model in by_label.values()) or "none"
            raise ConfigurationError(
                f"HC_SIGNALS[{key!r}] names {label!r}, which is no connected model; connected models: {known}."
            )
    return frozenset(by_label[label.lower()] for label in value)


_checked: dict[str, Conf] = {}
"""The setting that was checked last, by its text: a check of three hundred tables asks for it a thousand times."""


def get_conf() -> Conf:
    """Return the checked setting.

    Raises:
        ConfigurationError: a key is unknown, or its value is wrong.
    """
    given = getattr(settings, "HC_SIGNALS", {})
    text = repr(given)
    if (conf := _checked.get(text)) is None:
        conf = _check(given)
        _checked.clear()
        _checked[text] = conf
    return conf


def _check(given: Any) -> Conf:
    if not isinstance(given, dict):
        raise ConfigurationError(f"HC_SIGNALS is a {type(given).__name__}; expected a dict.")
    known = [field.name for field in fields(Conf)]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key).upper(), known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
            raise ConfigurationError(f"HC_SIGNALS has the unknown key {key!r}; {hint}")
    return Conf(**given)


def origin_rules() -> Rules:
    """Return the rules of the project's ORIGINS; the first one is that of its usual mirror.

    Raises:
        ConfigurationError: the setting is wrong.
    """
    return get_conf().origin_rules


def mirror_origin() -> str:
    """Return the origin of the project's usual mirror: also that of gaps, and of rows read again."""
    return origin_rules()[0].label


def heroku_setting(name: str, variable: str = "", default: str = "") -> str:
    """Return a Django setting, else the environment variable of that name (or of ``variable``), else the default."""
    value = getattr(settings, name, None)
    return str(os.environ.get(variable or name, default) if value is None else value)


def heroku_app_name() -> str:
    """Return ``HEROKU_CONNECT_APP_NAME``, else Heroku's ``HEROKU_APP_NAME``, else an empty text."""
    return heroku_setting("HEROKU_CONNECT_APP_NAME", "HEROKU_APP_NAME")
