"""Receivers' exceptions: logged with traceback for error trackers such as Sentry, and described for the database.

The message of an exception may hold a customer's data; the messages of our own log do not. So the
exceptions go to a logger of their own, ``hc_signals.receivers``, which hc_listen does not print.
"""

import logging
import traceback

from hc_signals.postgres.names import storable

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


def describe(error: BaseException, using: str) -> str:
    """Return the text that is stored for an error: class and message, then the traceback."""
    trace = "".join(traceback.format_tb(error.__traceback__))
    try:
        message = str(error)
    except Exception as another:  # raised by a __str__ of the project
        message = f"its message cannot be read ({type(another).__name__})"
    return storable(f"{type(error).__name__}: {message[:5000]}\n{trace[-5000:]}".rstrip(), using)
