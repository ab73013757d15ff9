"""The errors that a user may catch. Each message says what was found, what was expected and what to do."""


class HCSignalsError(Exception):
    """Base of all errors of hc_signals."""


class ConfigurationError(HCSignalsError):
    """The setting HC_SIGNALS or the set-up of the database is wrong."""


class RedeliveryError(HCSignalsError):
    """A stored delivery cannot be retried now; the message says what is missing."""


class ProcessEndedError(HCSignalsError):
    """A receiver was not called, because the worker's process has ended several times during that call."""


class LeftSettingsError(HCSignalsError):
    """A receiver has changed settings of its database session and has not set them back."""


class ReplayError(HCSignalsError):
    """The chosen changes cannot be replayed: they are of another database, or no longer in the log."""


class SnapshotError(HCSignalsError):
    """The rows of a table cannot be written to the log; the message says what is missing."""


class ExportError(HCSignalsError):
    """The receiver of pushed metrics has not taken them."""


class MappingError(HCSignalsError):
    """A file with an exported configuration of Heroku Connect cannot be used."""


class APIError(HCSignalsError):
    """Heroku Connect's API refused a request, did not answer, or answered with something else than documented."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ConsumerError(HCSignalsError):
    """A consumer of the change log cannot be removed as asked."""
