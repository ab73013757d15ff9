"""How the worker's connections notice that the other end is gone: a silent network must not look like a quiet day."""

from typing import Any

from django.db import connections

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


def fail_fast_at_the_server(using: str, consumer: str, part: str = "") -> None:
    """Ask the server to look after the connection that is open now, and to show whose it is.

    A name of the project's own settings stays.
    """
    own = connections[using].settings_dict.get("OPTIONS", {}).get("application_name")
    with connections[using].cursor() as cursor:
        cursor.execute(_SERVER_SIDE, [own or application_name(consumer, part)])
