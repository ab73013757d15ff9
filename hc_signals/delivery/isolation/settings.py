"""The check that a receiver leaves the settings of its session as they were. The functions are in migrations_sql."""

from hc_signals.exceptions import LeftSettingsError
from hc_signals.postgres.errors import message

NOTE = "CALL public.hc_signals_note_settings()"
CHECK = "CALL public.hc_signals_check_settings()"
RESTORE = "CALL public.hc_signals_restore_settings()"
READ = "SELECT public.hc_signals_settings()"
"""Outside a transaction: its value is for :data:`CHECK_AGAINST`."""
CHECK_AGAINST = "CALL public.hc_signals_check_settings(%s)"


def left_settings_error(error: BaseException) -> LeftSettingsError:
    """Return the error that is stored for the receiver, with the names of the settings."""
    return LeftSettingsError(
        f"The receiver changed settings of its session and left them so: {message(error)}. They are set back, and in a "
        "transaction whatever it wrote is gone. Put SET LOCAL into a block of transaction.atomic(), together with the "
        "queries that need it."
    )
