"""System checks of how a project uses hc_signals: its setting, receivers, models, router, admin and database URLs."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections, models, router
from django.db.models.signals import post_delete, post_save
from django.dispatch import Signal

from hc_signals.conf import MODEL_KEYS, Conf, chosen, get_conf
from hc_signals.db.exceptions import WriteNotSupportedError
from hc_signals.db.models.base import READ_ONLY
from hc_signals.delivery.connections import EVERY_SENDER, connections_of
from hc_signals.delivery.identity import receiver_path
from hc_signals.delivery.listeners import HOW_TO_CONNECT, Extras, Listeners, unheard_models
from hc_signals.delivery.routing import SIGNALS
from hc_signals.exceptions import ConfigurationError
from hc_signals.tables import connected_models, connected_tables_of, is_connected

PGBOUNCER_PORT = "6432"
DEFAULT_POOL_SIZE = 4
"""Connections of a psycopg_pool without options."""


def _checked_conf() -> Conf:
    conf = get_conf()
    for key in MODEL_KEYS:
        chosen(key, getattr(conf, key), connected_models())
    return conf


def _conf() -> Conf | None:
    """Return the setting; None if E001 reports it."""
    try:
        return _checked_conf()
    except ConfigurationError:
        return None


def check_setting(**kwargs: Any) -> list[CheckMessage]:
    """E001: hc_listen would refuse the setting."""
    try:
        _checked_conf()
    except ConfigurationError as error:
        return [Error(str(error), hint="Correct HC_SIGNALS in the settings.", id="hc_signals.E001")]
    return []


def check_retention(**kwargs: Any) -> list[CheckMessage]:
    """W006: changes are kept for a shorter time than a worker may sleep."""
    conf = _conf()
    if conf is None or conf.RETENTION_HOURS * 3600 >= conf.POLL_INTERVAL:
        return []
    return [
        Warning(
            f"HC_SIGNALS['RETENTION_HOURS'] is {conf.RETENTION_HOURS:g}, shorter than POLL_INTERVAL "
            f"({conf.POLL_INTERVAL:g} seconds).",
            hint="Keep changes longer than a worker may sleep; otherwise hc_replay finds nothing when it wakes.",
            id="hc_signals.W006",
        )
    ]


def check_uncalled_receivers(**kwargs: Any) -> list[CheckMessage]:
    """W001: a receiver is connected to a sender that never sends the signal."""
    return [
        Warning(
            f"{receiver_path(receiver)} is connected to {name} of {why}: it is never called.",
            hint="Connect it to a model with an sf_object_name, to a proxy or a multi-table child of one, or to no "
            "sender.",
            obj=receiver,
            id="hc_signals.W001",
        )
        for name, signal in SIGNALS.items()
        if signal not in (post_save, post_delete)
        for receiver, sender in _connected(signal)
        if (why := _silent(sender))
    ]


def _silent(sender: type[models.Model] | None) -> str:
    """Return why a sender never sends a signal of ours; empty if it does."""
    if sender is None:
        return "a sender that is not a model class, perhaps an instance"
    if connected_tables_of(sender):
        return ""
    why = "abstract" if sender._meta.abstract else "not a connected model"
    return f"{sender.__module__}.{sender.__qualname__}, which is {why}"


def check_django_receivers(**kwargs: Any) -> list[CheckMessage]:
    """W002: a receiver of Django's own signals is not called for Salesforce's changes."""
    conf = _conf()
    if conf is None:
        return []
    sending = tuple(chosen("DJANGO_SIGNALS", conf.DJANGO_SIGNALS, connected_models()))
    return [
        Warning(
            f"{receiver_path(receiver)} is connected to Django's {name} of {sender._meta.label}: it is called for what "
            "this project writes, not for what Heroku Connect writes.",
            hint="Connect it to a signal of hc_signals, "
            f"or add '{sender._meta.label}' to HC_SIGNALS['DJANGO_SIGNALS'].",
            obj=receiver,
            id="hc_signals.W002",
        )
        for name, signal in (("post_save", post_save), ("post_delete", post_delete))
        for receiver, sender in _connected(signal)
        if sender and _has_connected_table(sender) and not issubclass(sender, sending)
        if not receiver.__module__.startswith("django.")
    ]


def _has_connected_table(model: type[models.Model]) -> bool:
    return not model._meta.abstract and is_connected(model._meta.concrete_model)  # type: ignore[arg-type]


def _connected(signal: Signal) -> Iterator[tuple[Callable[..., Any], type[models.Model] | None]]:
    """Yield each receiver that is connected to one sender, with the model; None if the sender is no model.

    Django stores only the sender's id().
    """
    by_id = {id(model): model for model in _subclasses(models.Model)}
    for connection in connections_of(signal):
        if connection.sender_id != EVERY_SENDER:
            yield connection.receiver, by_id.get(connection.sender_id)


def _subclasses(model: type[models.Model]) -> Iterator[type[models.Model]]:
    for each in model.__subclasses__():
        yield each
        yield from _subclasses(each)


def check_unheard(**kwargs: Any) -> list[CheckMessage]:
    """W010: an app has connected models without receivers, usually because the receivers' module is not imported."""
    conf = _conf()
    if conf is None:
        return []
    unheard = unheard_models(conf)
    heard_apps = {model._meta.app_label for model in connected_models() if model not in unheard}
    by_app: dict[str, list[str]] = defaultdict(list)
    for model in unheard:
        if model._meta.app_label not in heard_apps:
            by_app[model._meta.app_label].append(model._meta.label)
    return [
        Warning(
            f"No receiver is connected to any model of the app {app!r} ({', '.join(labels)}): their changes reach no "
            "receiver.",
            hint=f"To connect receivers, {HOW_TO_CONNECT}. If this project has none on purpose, add "
            "'hc_signals.W010' to SILENCED_SYSTEM_CHECKS.",
            id="hc_signals.W010",
        )
        for app, labels in by_app.items()
    ]


def check_names(**kwargs: Any) -> list[CheckMessage]:
    """W011: receivers share a name, and differ only by the order in which they are connected."""
    conf = _conf()
    if conf is None:
        return []
    listeners = Listeners(Extras.of(conf, connected_models()))
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for model in connected_models():
        for name, count in listeners.names_of(model).by_order.items():
            found[name, count].append(model._meta.label)
    return [
        Warning(
            f"{count} receivers of {', '.join(labels)} share the name {name}: they differ only by the order in which "
            "they are connected.",
            hint="Connect each with a dispatch_uid of its own: if the order changes, a stored delivery is retried with "
            "the wrong receiver.",
            id="hc_signals.W011",
        )
        for (name, count), labels in found.items()
    ]


def check_managed(**kwargs: Any) -> list[CheckMessage]:
    """W012: a model of a Salesforce object is not connected, because Django manages its table."""
    return [
        Warning(
            f"{model._meta.label} has an sf_object_name, but Django manages its table: it is not a connected model, "
            "and no command of hc_signals knows it.",
            hint="Set `managed = False` in its Meta, or remove sf_object_name.",
            obj=model,
            id="hc_signals.W012",
        )
        for model in apps.get_models()
        if getattr(model, "sf_object_name", "") and model._meta.managed and not connected_tables_of(model)
    ]


def check_router(**kwargs: Any) -> list[CheckMessage]:
    """W004: no database router refuses writes to read-only models."""
    unguarded = [model._meta.label for model in connected_models() if _is_read_only(model) and _is_writable(model)]
    if not unguarded:
        return []
    return [
        Warning(
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
    except Exception as error:  # django-heroku-connect's router raises an error of its own with the same name
        return type(error).__name__ != WriteNotSupportedError.__name__
    return True


def check_admin(**kwargs: Any) -> list[CheckMessage]:
    """W005: an admin of a read-only model lets users add, change or delete records."""
    if not apps.is_installed("django.contrib.admin"):
        return []
    from django.contrib.admin.sites import all_sites

    return [
        Warning(
            f"{admin.__module__}.{admin.__qualname__} lets users {', '.join(_permitted(admin))} records of "
            f"{model._meta.label}, which is read-only: saving ends in an error.",
            hint="Derive it from hc_signals.admin.ReadOnlyModelAdmin; in an inline let has_add_permission, "
            "has_change_permission and has_delete_permission return False.",
            obj=model,
            id="hc_signals.W005",
        )
        for site in all_sites
        for registered, model_admin in site._registry.items()
        for admin, model in ((type(model_admin), registered), *((each, each.model) for each in model_admin.inlines))
        if _is_read_only(model) and _permitted(admin)
    ]


def _permitted(admin: type[Any]) -> list[str]:
    """Return the actions that Django's own permissions decide."""
    methods = {action: getattr(admin, f"has_{action}_permission") for action in ("add", "change", "delete")}
    return [action for action, method in methods.items() if method.__module__.startswith("django.")]


def check_cached_log(**kwargs: Any) -> list[CheckMessage]:
    """W015: django-cachalot caches the log, and cannot see what triggers write."""
    if not apps.is_installed("cachalot") or not getattr(settings, "CACHALOT_ENABLED", True):
        return []
    from cachalot.utils import filter_cachable

    cached = sorted(filter_cachable({model._meta.db_table for model in apps.get_app_config("hc_signals").get_models()}))
    if not cached:
        return []
    return [
        Warning(
            f"django-cachalot caches {len(cached)} tables of hc_signals, and cannot see the rows that triggers write "
            "there: the admin and a worker may get old rows.",
            hint='Add "hc_signals" to CACHALOT_UNCACHABLE_APPS.',
            id="hc_signals.W015",
        )
    ]


def check_triggers(**kwargs: Any) -> list[CheckMessage]:
    """W016: django-pgtrigger and django-pghistory install no trigger of a connected model: a router refuses it."""
    return [
        Warning(
            f"{model._meta.label} has triggers of django-pgtrigger ({names}). `pgtrigger install` skips them, because "
            "the database router refuses migrations of connected models.",
            hint="Do their work in a receiver, which cannot make a statement of Heroku Connect fail.",
            obj=model,
            id="hc_signals.W016",
        )
        for model in connected_models()
        if (names := ", ".join(str(each) for each in getattr(model._meta, "triggers", ())))
        and not any(_migrates(alias, model) for alias in connections)
    ]


def _migrates(alias: str, model: type[models.Model]) -> bool:
    return bool(router.allow_migrate(alias, model._meta.app_label, model_name=model._meta.model_name))


def check_database_urls(**kwargs: Any) -> list[CheckMessage]:
    """W003: hc_listen has no direct connection. One direct alias is enough: ``--database`` chooses it."""
    aliases = [alias for alias in connections if connections[alias].vendor == "postgresql"]
    pooled = {alias: _pooler_of(connections[alias].settings_dict) for alias in aliases}
    if not connected_models() or not all(pooled.values()):
        return []
    return [
        Warning(
            f"The database {alias!r} is behind a pooler ({sign}): hc_listen needs a direct connection.",
            hint="Add an alias with the direct URL (on Heroku DATABASE_URL), and run `hc_listen --database ALIAS`.",
            id="hc_signals.W003",
        )
        for alias, sign in pooled.items()
    ]


def _pooler_of(settings: dict[str, Any]) -> str:
    """Return by which sign a database is behind a pooler; empty if it is not."""
    host, port = str(settings.get("HOST") or ""), str(settings.get("PORT") or "")
    pool = urlsplit(os.environ.get("DATABASE_CONNECTION_POOL_URL", ""))
    if pool.hostname and (host, port) == (pool.hostname, str(pool.port or "")):
        return "host and port are those of DATABASE_CONNECTION_POOL_URL"
    if port == PGBOUNCER_PORT:
        return f"port {port} is PgBouncer's"
    if "pgbouncer" in host.lower():
        return f"its host is {host!r}"
    return _small_pool(settings.get("OPTIONS", {}).get("pool"))


def _small_pool(options: Any) -> str:
    """Return why Django's own pool is too small: each thread of hc_listen keeps its connection; empty if it is not."""
    conf = _conf()
    if not options or conf is None:
        return ""
    given = options if isinstance(options, dict) else {}
    size = given.get("max_size") or given.get("min_size") or DEFAULT_POOL_SIZE
    if size >= conf.SHARDS:
        return ""
    return f"OPTIONS['pool'] lends {size} connections, fewer than SHARDS = {conf.SHARDS}"
