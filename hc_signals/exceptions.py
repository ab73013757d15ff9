"""The errors that a user may meet; each message says what was found, what was expected and what to do."""


class HCSignalsError(Exception):
    """Base of all errors of hc_signals."""


class ConfigurationError(HCSignalsError):
    """The setting HC_SIGNALS or the set-up of the database is wrong."""


class RedeliveryError(HCSignalsError):
    """A kept delivery cannot be tried again as things are; the message says what is gone."""
