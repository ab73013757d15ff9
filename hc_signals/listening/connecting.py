"""How the worker's connections notice that the other end is gone: a silent network must not look like a quiet day."""

import os
import socket
import threading
from typing import Any

from django.db import DatabaseError, InterfaceError, NotSupportedError, connections

from hc_signals.postgres.sessions import is_ours

FAIL_FAST: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 14_000,
}
"""Options of libpq: a dead server is noticed within 14 seconds. Over a Unix socket they mean nothing."""

# The same at the server's end, so that the claim of a worker that was cut off is free soon; and a query for a client
# that is gone is given up.
_SERVER_SIDE = """
SELECT set_config('application_name', %s, false),
       set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '3', false),
       set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '14000', false),
       set_config('client_connection_check_interval', '5000', false)
"""


def application_name(consumer: str, part: str = "") -> str:
    """Return the name under which pg_stat_activity shows a worker's connection; PostgreSQL keeps 63 bytes of it."""
    return f"hc_listen {consumer} {part}".strip()


def fail_fast(using: str) -> None:
    """Give the database alias the options of FAIL_FAST in this process; what its settings say already stays."""
    options = connections.settings[using].setdefault("OPTIONS", {})
    for name, value in FAIL_FAST.items():
        options.setdefault(name, value)


def fail_fast_at_the_server(connection: Any, consumer: str, part: str = "") -> bool:
    """Ask the server to look after an open connection of Django's, and to show whose it is; return whether it does.

    It does where the session is ours; behind a pooler the settings would stay with whoever gets the session next. A
    name of the project's own settings stays.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors:
        if not is_ours(connection.connection):
            return False
    own = connection.settings_dict.get("OPTIONS", {}).get("application_name")
    with connection.cursor() as cursor:
        cursor.execute(_SERVER_SIDE, [own or application_name(consumer, part)])
    return True


def answers(using: str, seconds: float) -> bool:
    """Tell whether the connection that is open now still is: the server's session answers in time.

    It is asked by a bare Sync of the protocol, no query and no transaction. Where no answer comes the connection is
    broken afterwards; so it cannot hang for ever behind something that holds it open and passes nothing on.
    """
    connection = connections[using]
    if connection.connection.closed:
        return False
    timer = threading.Timer(seconds, shut_down, [connection.connection.fileno()])
    timer.start()
    try:
        with connection.wrap_database_errors, connection.connection.pipeline():
            pass  # its end sends the Sync and waits for the answer
    except NotSupportedError:  # libpq before 14
        return connection.is_usable()
    except (DatabaseError, InterfaceError):
        return False
    finally:
        timer.cancel()
        timer.join()  # it must not meet a descriptor that is somebody else's by then
    return True


def shut_down(number: int) -> None:
    """End what a thread waits for at a socket, by the number of its descriptor, which stays that thread's to close."""
    with socket.socket(fileno=os.dup(number)) as same:
        same.shutdown(socket.SHUT_RDWR)
