"""The database router that guards Heroku Connect's tables."""

from typing import Any

from django.apps import apps

from hc_signals.db.exceptions import WriteNotSupportedError
from hc_signals.db.models.base import READ_ONLY
from hc_signals.tables import is_connected


class HerokuConnectRouter:
    """Refuse writes to read-only models and migrations of connected ones; leave the rest to the next router."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        """Return None, or refuse.

        Raises:
            WriteNotSupportedError: the model is a read-only connected model.
        """
        if getattr(model, "sf_access", None) == READ_ONLY:
            raise WriteNotSupportedError(f"{model!r} is a read-only model.")
        return None

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        """Return False for a connected model: its table belongs to Heroku Connect, whatever a migration says."""
        try:
            model = apps.get_model(app_label, model_name) if model_name else None
        except LookupError:
            return None
        return False if model is not None and is_connected(model) else None
