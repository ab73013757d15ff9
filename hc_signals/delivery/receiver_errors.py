"""Logs receivers' exceptions with traceback, for error trackers such as Sentry.

The message of an exception may hold a customer's data; the messages of our own log do not. So they go to a logger of
their own, ``hc_signals.receivers``, which hc_listen does not print.
"""

import logging

logger = logging.getLogger("hc_signals.receivers")
# Without a handler Python would print them to stderr.
logger.addHandler(logging.NullHandler())


def show(receiver: str, error: BaseException, **fields: object) -> None:
    """Log a receiver's exception to ``hc_signals.receivers``.

    Args:
        receiver: name of the receiver.
        error: the exception.
        fields: attributes of the log record that describe the call, without a record's contents.
    """
    known = {"receiver": receiver, **fields}
    logger.error(
        "Receiver %s raised %s",
        receiver,
        type(error).__name__,
        exc_info=(type(error), error, error.__traceback__),
        extra=known,
    )
