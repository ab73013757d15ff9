"""The database router that guards Heroku Connect's tables."""

from typing import Any

from django.apps import apps

from hc_signals.db.exceptions import WriteNotSupportedError
from hc_signals.db.models.base import READ_ONLY
from hc_signals.tables import is_connected

_LOG = 'public"."hc_signals_'
"""Prefix of ``db_table`` in the models of the change log."""


class HerokuConnectRouter:
    """Refuse writes to read-only models and migrations of connected ones; the next router decides the rest."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        """Return None, so that the next router decides.

        Raises:
            WriteNotSupportedError: the model is a read-only connected model.
        """
        if getattr(model, "sf_access", None) == READ_ONLY:
            raise WriteNotSupportedError(
                f"{model._meta.label} is a read-only model: Heroku Connect overwrites or ignores an app's writes to "
                "its table. If the mapping is read-write, set sf_access = READ_WRITE. In tests, insert the record "
                "with hc_signals.testing.HerokuConnect, or write inside "
                "hc_signals.testing.utils.no_heroku_connect_write_restrictions()."
            )
        return None

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        """Return False for a connected model, because its table belongs to Heroku Connect.

        ``dumpdata``, ``loaddata`` and the fixtures of a test call this too, with the model itself. They may read and
        write Heroku Connect's tables. They leave out the change log, whose rows mean nothing in another database.
        """
        try:
            model = apps.get_model(app_label, model_name or "")
        except LookupError:
            return None
        if hints.get("model") is model:  # a migration passes its own class
            return False if model._meta.db_table.startswith(_LOG) else None
        return False if is_connected(model) else None
