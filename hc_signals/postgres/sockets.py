"""Break a connection on which another thread is blocked: it gets an error instead of an answer."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg


def shut_down(raw: Any) -> None:
    """Shut down the socket of a psycopg connection, from any thread. Its own thread still closes the descriptor.

    Args:
        raw: nothing is done if it is None or closed.
    """
    if raw is not None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(raw.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering_within(seconds: float, connection: Callable[[], Any]) -> Iterator[None]:
    """Break a connection if the block takes longer, so that the block raises.

    Args:
        seconds: from the beginning of the block.
        connection: returns the psycopg connection at that time, or None.
    """
    timer = threading.Timer(seconds, lambda: shut_down(connection()))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # the timer must not shut down a descriptor that was used again
