"""System checks of how a project uses hc_signals: its setting, its receivers, router, admin and database URLs."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.core import checks
from django.db import connections, models, router
from django.db.models.signals import post_delete, post_save
from django.dispatch import Signal

from hc_signals.conf import MODEL_KEYS, Conf, chosen, get_conf
from hc_signals.db.exceptions import WriteNotSupportedError
from hc_signals.db.models.base import READ_ONLY
from hc_signals.delivery.connections import connections_of
from hc_signals.delivery.identity import receiver_path
from hc_signals.delivery.listeners import Extras, Listeners
from hc_signals.delivery.routing import SIGNALS
from hc_signals.delivery.unheard import HOW_TO_CONNECT, unheard_models
from hc_signals.exceptions import ConfigurationError
from hc_signals.tables import connected_models, connected_tables_of, is_connected

Messages = list[checks.CheckMessage]

PGBOUNCER_PORT = "6432"
SMALLEST_POOL = 4
"""What psycopg_pool lends where its options say nothing."""


def check_setting(**kwargs: Any) -> Messages:
    """E001: what hc_listen would refuse at its start. W006: less is kept than a worker may sleep."""
    try:
        conf = _checked_conf()
    except ConfigurationError as error:
        return [checks.Error(str(error), hint="Correct HC_SIGNALS in the settings.", id="hc_signals.E001")]
    if conf.RETENTION_HOURS * 3600 >= conf.POLL_INTERVAL:
        return []
    return [
        checks.Warning(
            f"HC_SIGNALS['RETENTION_HOURS'] is {conf.RETENTION_HOURS:g}, shorter than POLL_INTERVAL "
            f"({conf.POLL_INTERVAL:g} seconds).",
            hint="Keep changes longer than a worker may sleep, or there is nothing left to replay when it looks.",
            id="hc_signals.W006",
        )
    ]


def _checked_conf() -> Conf:
    conf = get_conf()
    for key in MODEL_KEYS:
        chosen(key, getattr(conf, key), connected_models())
    return conf


def check_receivers(**kwargs: Any) -> Messages:
    """W001: receivers that are never called. W002: receivers of Django's signals that miss Salesforce's changes."""
    found: Messages = []
    for name, signal in SIGNALS.items():
        if signal not in (post_save, post_delete):
            found += [_never_called(name, *pair) for pair in _connected(signal) if not connected_tables_of(pair[1])]
    try:
        conf = _checked_conf()
    except ConfigurationError:
        return found  # E001 tells
    told = chosen("DJANGO_SIGNALS", conf.DJANGO_SIGNALS, connected_models())
    for name, signal in (("post_save", post_save), ("post_delete", post_delete)):
        for receiver, sender in _connected(signal):
            is_told = any(issubclass(sender, model) for model in told)
            is_ours = not sender._meta.abstract and is_connected(sender._meta.concrete_model)  # type: ignore[arg-type]
            if is_ours and not is_told and not receiver.__module__.startswith("django."):
                found.append(_misses_changes(name, receiver, sender))
    return found


def _never_called(name: str, receiver: Any, sender: type[models.Model]) -> checks.CheckMessage:
    kind = "abstract" if sender._meta.abstract else "not a connected model"
    return checks.Warning(
        f"{receiver_path(receiver)} is connected to {name} of {sender.__module__}.{sender.__qualname__}, "
        f"which is {kind}: it is never called.",
        hint="Connect it to a model with an sf_object_name, to a proxy or a multi-table child of one, or to no sender.",
        obj=receiver,
        id="hc_signals.W001",
    )


def _misses_changes(name: str, receiver: Any, sender: type[models.Model]) -> checks.CheckMessage:
    return checks.Warning(
        f"{receiver_path(receiver)} is connected to Django's {name} of {sender._meta.label}: it hears of what this "
        "project writes, not of what Heroku Connect writes.",
        hint=f"Connect it to a signal of hc_signals, or add '{sender._meta.label}' to HC_SIGNALS['DJANGO_SIGNALS'].",
        obj=receiver,
        id="hc_signals.W002",
    )


def _connected(signal: Signal) -> Iterator[tuple[Callable[..., Any], type[models.Model]]]:
    """Yield receivers that are connected to one model, with it; Django keeps of a sender its id() only."""
    by_id = {id(model): model for model in _with_subclasses(models.Model)}
    for connection in connections_of(signal):
        if (sender := by_id.get(connection.sender_id)) is not None:
            yield connection.receiver, sender


def _with_subclasses(model: type[models.Model]) -> Iterator[type[models.Model]]:
    for each in model.__subclasses__():
        yield each
        yield from _with_subclasses(each)


def check_unheard(**kwargs: Any) -> Messages:
    """W010: nobody has connected a receiver to any model of an app; its module was not imported, as a rule."""
    try:
        unheard = unheard_models(_checked_conf())
    except ConfigurationError:
        return []  # E001 tells
    heard_apps = {model._meta.app_label for model in connected_models() if model not in unheard}
    by_app: dict[str, list[str]] = defaultdict(list)
    for model in unheard:
        if model._meta.app_label not in heard_apps:
            by_app[model._meta.app_label].append(model._meta.label)
    return [
        checks.Warning(
            f"No receiver is connected to any model of the app {app!r} ({', '.join(labels)}): their changes reach no "
            "receiver.",
            hint=f"To connect receivers, {HOW_TO_CONNECT}. If this project has none on purpose, add "
            "'hc_signals.W010' to SILENCED_SYSTEM_CHECKS.",
            id="hc_signals.W010",
        )
        for app, labels in by_app.items()
    ]


def check_names(**kwargs: Any) -> Messages:
    """W011: receivers that only the order of their connection tells apart."""
    try:
        listeners = Listeners(Extras.of(_checked_conf(), connected_models()))
    except ConfigurationError:
        return []  # E001 tells
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for model in connected_models():
        for name, count in listeners.names_of(model).by_order.items():
            found[name, count].append(model._meta.label)
    return [
        checks.Warning(
            f"{count} receivers of {', '.join(labels)} share the name {name}: only the order in which they are "
            "connected tells them apart.",
            hint="Connect each with a dispatch_uid of its own: if the order changes, a delivery that waits is retried "
            "with the wrong one.",
            id="hc_signals.W011",
        )
        for (name, count), labels in found.items()
    ]


def check_managed(**kwargs: Any) -> Messages:
    """W012: models of Salesforce objects that are not connected, because Django manages their tables."""
    return [
        checks.Warning(
            f"{model._meta.label} has an sf_object_name, but Django manages its table: it is not a connected model, "
            "and no command of hc_signals knows it.",
            hint="Set `managed = False` in its Meta, or remove sf_object_name.",
            obj=model,
            id="hc_signals.W012",
        )
        for model in apps.get_models()
        if getattr(model, "sf_object_name", "") and model._meta.managed and not connected_tables_of(model)
    ]


def check_router(**kwargs: Any) -> Messages:
    """W004: nothing refuses writes to read-only models."""
    unguarded = [model._meta.label for model in connected_models() if _is_read_only(model) and _is_writable(model)]
    if not unguarded:
        return []
    return [
        checks.Warning(
            f"No database router refuses writes to read-only models: {', '.join(unguarded)}.",
            hint="Add 'hc_signals.db.router.HerokuConnectRouter' to DATABASE_ROUTERS, before routers that choose.",
            id="hc_signals.W004",
        )
    ]


def _is_read_only(model: type[models.Model]) -> bool:
    return getattr(model, "sf_access", None) == READ_ONLY


def _is_writable(model: type[models.Model]) -> bool:
    try:
        router.db_for_write(model)
    except WriteNotSupportedError:
        return False
    except Exception as error:  # django-heroku-connect's router has an error of its own, by the same name
        return type(error).__name__ != WriteNotSupportedError.__name__
    return True


def check_admin(**kwargs: Any) -> Messages:
    """W005: an admin that offers what Salesforce alone may do."""
    if not apps.is_installed("django.contrib.admin"):
        return []
    from django.contrib.admin.sites import all_sites

    found: Messages = []
    for site in all_sites:
        for model, model_admin in site._registry.items():
            offered = [(type(model_admin), model), *((inline, inline.model) for inline in model_admin.inlines)]
            found += [_offers_writes(*each) for each in offered if _is_read_only(each[1]) and _permitted(each[0])]
    return found


def _permitted(admin: type[Any]) -> list[str]:
    names = {action: getattr(admin, f"has_{action}_permission") for action in ("add", "change", "delete")}
    return [action for action, function in names.items() if function.__module__.startswith("django.")]


def _offers_writes(admin: type[Any], model: type[models.Model]) -> checks.CheckMessage:
    return checks.Warning(
        f"{admin.__module__}.{admin.__qualname__} lets users {', '.join(_permitted(admin))} records of "
        f"{model._meta.label}, which is read-only: saving ends in an error.",
        hint="Let has_add_permission, has_change_permission and has_delete_permission return False.",
        obj=model,
        id="hc_signals.W005",
    )


def check_database_urls(**kwargs: Any) -> Messages:
    """W003: hc_listen has no direct connection. One alias that is direct is enough: ``--database`` chooses it."""
    aliases = [alias for alias in connections if connections[alias].vendor == "postgresql"]
    pooled = {alias: _pooler_of(connections[alias].settings_dict) for alias in aliases}
    if not connected_models() or not all(pooled.values()):
        return []
    return [
        checks.Warning(
            f"The database {alias!r} is behind a pooler ({sign}): hc_listen needs a direct connection.",
            hint="Add an alias with the direct URL (on Heroku DATABASE_URL), and run `hc_listen --database ALIAS`.",
            id="hc_signals.W003",
        )
        for alias, sign in pooled.items()
    ]


def _pooler_of(settings: dict[str, Any]) -> str:
    host, port = str(settings.get("HOST") or ""), str(settings.get("PORT") or "")
    pool = urlsplit(os.environ.get("DATABASE_CONNECTION_POOL_URL", ""))
    if pool.hostname and (host, port) == (pool.hostname, str(pool.port or "")):
        return "host and port are those of DATABASE_CONNECTION_POOL_URL"
    if port == PGBOUNCER_PORT:
        return f"port {port} is PgBouncer's"
    if "pgbouncer" in host.lower():
        return f"its host is {host!r}"
    return _short_pool(settings.get("OPTIONS", {}).get("pool"))


def _short_pool(options: Any) -> str:
    """Tell of Django's own pool where it is too small: each thread of hc_listen keeps its connection for good."""
    if not options:
        return ""
    given = options if isinstance(options, dict) else {}
    size = given.get("max_size") or given.get("min_size") or SMALLEST_POOL
    try:
        threads = get_conf().SHARDS
    except ConfigurationError:
        return ""  # E001 tells
    return f"OPTIONS['pool'] lends {size} connections, fewer than SHARDS = {threads}" if size < threads else ""


ALL = (
    check_setting,
    check_receivers,
    check_unheard,
    check_names,
    check_managed,
    check_router,
    check_admin,
    check_database_urls,
)
