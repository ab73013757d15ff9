"""Break a connection on which another thread is blocked: it gets an error instead of an answer."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg


def shut_down(raw: Any) -> None:
    """Shut down the socket of a psycopg connection, if it is open, from any thread.

    The connection's own thread still closes the descriptor.
    """
    if raw is not None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(raw.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering_within(seconds: float, connection: Callable[[], Any]) -> Iterator[None]:
    """Break the connection that ``connection`` returns if the block takes longer, so that the block raises."""
    timer = threading.Timer(seconds, lambda: shut_down(connection()))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # the timer must not shut down a descriptor that was used again
