"""Shows a receiver's exception, with its traceback, to whoever collects such things: Sentry and its like.

The exception's message may hold a customer's data, and our own log never does. So these go to a logger of their own,
``hc_signals.receivers``, which hc_listen does not print.
"""

import logging

logger = logging.getLogger("hc_signals.receivers")
# Without any handler Python would print them to stderr after all.
logger.addHandler(logging.NullHandler())


def show(receiver: str, error: BaseException, **fields: object) -> None:
    """Log a receiver's exception for those who listen to ``hc_signals.receivers``.

    Args:
        receiver: dotted path.
        error: what it raised.
        fields: what it was called with, without contents: attributes of the log record.
    """
    known = {"receiver": receiver, **fields}
    logger.error(
        "Receiver %s raised %s",
        receiver,
        type(error).__name__,
        exc_info=(type(error), error, error.__traceback__),
        extra=known,
    )
