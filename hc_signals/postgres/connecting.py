"""How the worker's connections notice that the other end is gone: a silent network must not look like a quiet day."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, Error, InterfaceError, NotSupportedError, connections

from hc_signals.postgres.limits import own_limits
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
# that is gone is given up. A worker that sleeps must not lose its session; receivers only see it in a transaction.
_SERVER_SIDE = """
SELECT set_config('application_name', %s, false),
       set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '3', false),
       set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '14000', false),
       set_config('client_connection_check_interval', '5000', false), set_config('idle_session_timeout', '0', false)
"""


TROUBLED = r"^hc_listen !([0-9A-Z]{5}) (.*)$"
"""Regular expression for the name of a session whose worker cannot deliver: SQLSTATE and consumer."""


def troubled_name(consumer: str, code: str) -> str:
    """Return the name under which pg_stat_activity shows the connection of a worker that cannot deliver."""
    return f"hc_listen !{code} {consumer}"


def application_name(consumer: str, part: str = "") -> str:
    """Return the name under which pg_stat_activity shows a worker's connection; PostgreSQL keeps 63 bytes of it."""
    return f"hc_listen {consumer} {part}".strip()


@contextmanager
def own_options(using: str) -> Iterator[None]:
    """Give this thread's connection the options of FAIL_FAST for the length of the block.

    The settings of the project stay as they are, and so do the connections of other threads. What the settings say
    already goes before. A connection that is open keeps the options with which it was opened.
    """
    connection: Any = connections[using]
    settings = connection.settings_dict
    connection.settings_dict = {**settings, "OPTIONS": {**FAIL_FAST, **settings.get("OPTIONS", {})}}
    try:
        yield
    finally:
        connection.settings_dict = settings


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


def lift_limits(connection: Any, **limits: str) -> None:
    """Let no limit of the role or the database end what one of our own sessions does: for the whole session.

    Only for a session that is ours alone. Never for one in which receivers are called: they keep what the project
    wants.

    Args:
        connection: an open connection of Django's.
        limits: other values than those of OWN_LIMITS.
    """
    with connection.cursor() as cursor:
        cursor.execute(*own_limits(is_local=False, **limits))


def show_trouble(connection: Any, consumer: str, code: str) -> None:
    """Show hc_status, by the name of a session in pg_stat_activity, why its worker cannot deliver.

    Nothing can be written to a table of a database that refuses to be written to. A name of the project's own settings
    stays; then hc_status cannot tell.

    Args:
        connection: a connection of Django's; nothing is done if it is closed.
        code: SQLSTATE.
    """
    raw = connection.connection
    if raw is None or raw.closed or connection.settings_dict.get("OPTIONS", {}).get("application_name"):
        return
    with suppress(Error), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('application_name', %s, false)", [troubled_name(consumer, code)])


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
