"""The database router that guards read-only models."""

from typing import Any

from hc_signals.db.exceptions import WriteNotSupportedError
from hc_signals.db.models.base import READ_ONLY


class HerokuConnectRouter:
    """Refuse writes to models whose ``sf_access`` is read-only; leave every other decision to the next router."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        """Return None, or refuse.

        Raises:
            WriteNotSupportedError: the model is a read-only connected model.
        """
        if getattr(model, "sf_access", None) == READ_ONLY:
            raise WriteNotSupportedError(f"{model!r} is a read-only model.")
        return None
