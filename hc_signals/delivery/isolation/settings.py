"""The check that a receiver leaves the settings of its session as they were. The functions are in migrations_sql."""

from hc_signals.exceptions import LeftSettingsError
from hc_signals.postgres.errors import sqlstate

NOTE = "CALL public.hc_signals_note_settings()"
CHECK = "CALL public.hc_signals_check_settings()"
RESTORE = "CALL public.hc_signals_restore_settings()"
READ = "SELECT public.hc_signals_settings()"
"""Outside a transaction: its value is for :data:`CHECK_AGAINST`."""
CHECK_AGAINST = "CALL public.hc_signals_check_settings(%s)"

_LEFT = "ZHC01"
"""SQLSTATE of a check that has found a changed setting."""


def has_left_settings(error: BaseException | None) -> bool:
    """Return whether the error is that of a check that has found a changed setting."""
    return error is not None and sqlstate(error) == _LEFT


def left_settings(error: BaseException) -> LeftSettingsError:
    """Return the error that is stored for the receiver, with the names of the settings."""
    names = getattr(getattr(error.__cause__, "diag", None), "message_primary", None)
    return LeftSettingsError(
        f"The receiver changed settings of its session and left them so: {names}. They are set back, and in a "
        "transaction whatever it wrote is gone. Put SET LOCAL into a block of transaction.atomic(), together with the "
        "queries that need it."
    )
