"""The server refuses connections of hc_listen: the others go on, and the refused one is retried."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.conf import settings
from django.db import connection
from example.crm.models import Seen

from tests.server import own
from tests.test_worker_process import asleep, insert, start, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

ROLE = own("hc_limited")


def run(sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def limit(number: int) -> None:
    """Limit the connections of the worker's role; -1: no limit."""
    run(f"ALTER ROLE {ROLE} CONNECTION LIMIT {number}")


def names() -> set[str]:
    """Return the names of the worker's connections."""
    return {name for (name,) in run(f"SELECT application_name FROM pg_stat_activity WHERE usename = '{ROLE}'")}


@pytest.fixture
def listen(captured: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start hc_listen as a role with a limit of its own."""
    server, started = settings.DATABASES["default"], []
    run(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'limited' IN ROLE pg_read_all_data, pg_write_all_data")
    run(f"GRANT ALL ON ALL TABLES IN SCHEMA public, salesforce TO {ROLE}")
    run(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public, salesforce TO {ROLE}")
    where = {"host": server["HOST"] or "127.0.0.1", "port": server["PORT"] or 5432}
    url = f"postgresql://{ROLE}:limited@/{quote(connection.settings_dict['NAME'])}?{urlencode(where)}"

    def launch(**conf: Any) -> subprocess.Popen[str]:
        started.append(start("hc_listen", "--poll-interval", "600", DATABASE_URL=url, HC_SIGNALS_JSON=json.dumps(conf)))
        return started[-1]

    yield launch
    for process in started:
        process.kill()
        process.communicate()
    run(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{ROLE}'")
    run(f"DROP OWNED BY {ROLE}")
    run(f"DROP ROLE {ROLE}")


@pytest.mark.fault(
    "`max_connections` or a role's limit refuses all but one connection at the start",
    outcome="changes are delivered by polling; the worker is woken again once there is room",
)
def test_worker_delivers_over_its_only_connection(listen: Any) -> None:
    limit(1)
    process = listen()
    for count in (3, 6):
        insert(3)
        wait_until(lambda n=count: Seen.objects.count() == n)  # type: ignore[misc]
    assert len(names()) == 1
    limit(-1)
    wait_until(asleep)
    insert(3)
    wait_until(lambda: Seen.objects.count() == 9)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output


@pytest.mark.fault(
    "a connection of `hc_listen` is lost, and no other is to be had", outcome="delivered as soon as it is to be had"
)
@pytest.mark.parametrize("atomic", [True, False])
def test_worker_goes_on_when_a_lost_connection_is_refused(listen: Any, atomic: bool) -> None:
    process = listen(ATOMIC=atomic)
    expected = {"hc_listen default", "hc_listen default bell", "hc_listen default chores"}
    expected |= set() if atomic else {"hc_listen default claim"}
    wait_until(lambda: expected <= names() and asleep())
    for number, name in enumerate(sorted(expected), 1):
        limit(0)
        run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE application_name = '{name}' AND usename = '{ROLE}'"
        )
        insert(3)
        wait_until(lambda n=name: n not in names())  # type: ignore[misc]
        if name in ("hc_listen default bell", "hc_listen default chores"):  # the worker needs neither
            wait_until(lambda n=number: Seen.objects.count() == 3 * n)  # type: ignore[misc]
        limit(-1)
        wait_until(lambda n=number: Seen.objects.count() == 3 * n)  # type: ignore[misc]
        wait_until(lambda: asleep() and expected - {"hc_listen default chores"} <= names())
    assert Seen.objects.values("event_id").distinct().count() == Seen.objects.count()
    assert process.poll() is None
