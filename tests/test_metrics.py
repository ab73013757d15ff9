"""/metrics and /healthz: their figures, in this process and in a real hc_listen; red without a listener."""

import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from example.crm.models import Account, Seen
from prometheus_client import CollectorRegistry

from hc_signals import signals
from hc_signals.conf import Conf
from hc_signals.delivery import pulse
from hc_signals.delivery.counting import Counting
from hc_signals.exceptions import ConfigurationError
from hc_signals.observability.liveness import STUCK_SECONDS, Liveness, liveness
from hc_signals.observability.measuring import measured
from hc_signals.observability.metrics import Metrics
from hc_signals.observability.metrics_server import MetricsServer, health, serve_metrics
from hc_signals.observability.surveyor import figures
from hc_signals.testing import HerokuConnect
from hc_signals.worker import threads
from hc_signals.worker.bell_connection import BellConnection, BellState
from hc_signals.worker.crew import Crew
from hc_signals.worker.doorbell import Doorbell
from tests.chaos.proxy import Proxy
from tests.conftest import as_heroku_connect, as_the_app, deliver
from tests.test_worker_process import asleep, insert, listener, start, wait_until  # noqa: F401  (a fixture)

DOC = Path(__file__).parent.parent / "docs" / "metrics.md"
ALIVE = Liveness((), BellState("", 1.0, 0), ())


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def url_of(process: Any) -> str:
    """Return the address that the process prints."""
    for line in process.stdout:
        if found := re.search(r"/metrics and /healthz on (http://127\.0\.0\.1:\d+)/", line):
            return found[1]
    raise AssertionError("the process printed no address of its metrics")


@pytest.fixture
def counted() -> Iterator[Callable[..., Any]]:
    """Count in this process; ``counted(name, **labels)`` returns a figure."""
    registry = CollectorRegistry()
    counting = Counting()
    registry.register(Metrics(Conf(), 1, counting, lambda: ALIVE, lambda: figures("default", Conf())))
    pulse.observe(counting)
    yield lambda name, **labels: registry.get_sample_value(f"hc_signals_{name}", labels)
    pulse.unobserve(counting)


def test_deliveries_are_counted(captured: HerokuConnect, connect: Any, counted: Any) -> None:
    def fails(**kwargs: Any) -> None:
        raise ValueError("Top Secret")

    connect(signals.record_created, fails, Account)
    captured.create(Account, 3)
    as_heroku_connect("UPDATE salesforce.account SET name = 'Other'")
    as_the_app(
        "INSERT INTO hc_signals_change (table_name, operation, origin, note) "
        """VALUES ('salesforce.contact', 'GAP', 'heroku_connect', '{"cause": "paused"}')"""
    )
    deliver(RETRY_SECONDS=600)
    assert counted("changes_delivered_total", model="crm.Account", change_type="CREATE") == 3
    assert counted("changes_delivered_total", model="crm.Account", change_type="UPDATE") == 3
    assert counted("changes_delivered_total", model="crm.Contact", change_type="GAP_OVERFLOW") == 1
    assert counted("gaps_total", cause="paused") == 1
    assert counted("latency_seconds_count") == 7
    assert 0 <= counted("latency_seconds_sum") < 60
    path = f"{__name__}.test_deliveries_are_counted.<locals>.fails"
    assert counted("receiver_seconds_count", receiver=path) == 3
    assert counted("receiver_failures_total", receiver=path) == 3
    assert counted("deliveries", state="retry") == 3
    assert counted("deliveries", state="dead") == 0
    assert counted("backlog", shard="0") == counted("lag_seconds", shard="0") == 0
    assert counted("drift", table="salesforce.account") == 0


def test_uncommitted_page_is_not_counted(captured: HerokuConnect, connect: Any, counted: Any) -> None:
    def exits(**kwargs: Any) -> None:
        raise KeyboardInterrupt

    connect(signals.record_created, exits, Account)
    captured.create(Account, 1)
    with pytest.raises(KeyboardInterrupt):
        deliver()
    assert counted("changes_delivered_total", model="crm.Account", change_type="CREATE") is None
    assert counted("backlog", shard="0") == 1


def test_backlog_is_counted(captured: HerokuConnect, counted: Any) -> None:
    deliver()
    captured.create(Account, 5)
    assert counted("backlog", shard="0") == 5
    assert counted("lag_seconds", shard="0") > 0


def test_docs_list_every_metric_with_its_labels() -> None:
    metrics = Metrics(Conf(), 1, Counting(), lambda: ALIVE, lambda: None)
    real = {
        metric.name + ("_total" if metric.type == "counter" else ""): tuple(metric._labelnames)  # type: ignore[attr-defined]
        for metric in metrics.collect()
    }
    rows = re.findall(r"^\| `(hc_signals_\w+)` \| (\w+) \|([^|]*)\|", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: tuple(re.findall(r"`(\w+)`", labels)) for name, _, labels in rows} == real


@pytest.mark.usefixtures("captured")
def test_health_is_red_until_the_listener_reconnects(listener: Callable[..., Any]) -> None:  # noqa: F811
    process = listener("--poll-interval", "600", "--metrics-port", "0")
    url = url_of(process)
    wait_until(asleep)
    insert(2)
    wait_until(lambda: Seen.objects.count() == 2)
    wait_until(
        lambda: (
            'hc_signals_changes_delivered_total{change_type="CREATE",model="crm.Account"} 2.0'
            in get(url + "/metrics")[1]
        )
    )
    assert get(url + "/healthz")[0] == 200
    database = connection.settings_dict["NAME"]
    parameters = {**connection.get_connection_params(), "dbname": "postgres"}
    for name in ("cursor_factory", "context", "prepare_threshold"):
        parameters.pop(name, None)
    with psycopg.connect(**parameters, autocommit=True) as other:
        other.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        began = time.monotonic()
        try:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'hc_listen %%' AND datname = %s",
                [database],
            )
            wait_until(lambda: get(url + "/healthz")[0] == 503)
            assert time.monotonic() - began < 15
            status, body = get(url + "/healthz")
            assert body.count("\n") == 1
            found = json.loads(body)
            assert (status, found["healthy"], found["listening"]) == (503, False, False)
            assert "the LISTEN connection is broken" in found["reasons"]
            assert "hc_signals_listening 0.0" in get(url + "/metrics")[1]
        finally:
            other.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
    wait_until(lambda: get(url + "/healthz")[0] == 200)
    text = get(url + "/metrics")[1]
    assert "hc_signals_listening 1.0" in text
    assert re.search(r'hc_signals_reconnects_total{connection="listener"} [1-9]', text)
    insert(1)
    wait_until(lambda: Seen.objects.count() == 3)
    assert process.poll() is None


@pytest.fixture
def far_bell(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Proxy, Doorbell]]:
    """A doorbell behind a proxy that can pass nothing on, with a thread asleep at it."""
    monkeypatch.setattr(BellConnection, "PING_EVERY", 0.1)
    monkeypatch.setattr(BellConnection, "PING_TIMEOUT", 0.3)
    params = connection.get_connection_params()
    proxy = Proxy(psycopg.conninfo.make_conninfo(host=params["host"], port=params.get("port")))
    stopping = threading.Event()
    bell = Doorbell("default", stopping.is_set)
    bell._connection.params |= {"host": "127.0.0.1", "port": proxy.port}

    def sleep() -> None:
        with threads.as_worker(0) as of_sleeper:
            while not stopping.is_set():
                bell.sleep(lambda: False, lambda: 600.0, of_sleeper)
        connection.close()

    with bell:
        thread = threading.Thread(target=sleep)
        thread.start()
        yield proxy, bell
        stopping.set()
        proxy.close()
        thread.join(timeout=60)
    assert not thread.is_alive()


def test_health_is_red_while_the_listener_is_unresponsive(far_bell: tuple[Proxy, Doorbell]) -> None:
    proxy, bell = far_bell
    wait_until(lambda: bell._has_listener and liveness(bell).is_alive)
    proxy.go_silent()
    wait_until(lambda: any("is unresponsive: no answer for" in reason for reason in liveness(bell).reasons), 5)
    proxy.recover()
    wait_until(lambda: liveness(bell).is_alive)


def test_health_is_red_if_listen_is_swallowed() -> None:
    bell = Doorbell("default", lambda: False)
    bell._connection.raw = type("Open", (), {"closed": False})()
    assert bell.state().trouble == "LISTEN is swallowed: a transaction pooler is in the way"


def test_health_is_red_if_a_loop_is_stuck_outside_receivers() -> None:
    with threads.as_worker(3) as work:
        work.turned_at -= STUCK_SECONDS + 1
        assert "worker 3: stuck for 11 s" in liveness(None).reasons
        work.receiver_at, work.receiver = time.monotonic(), "builtins.print"
        found = liveness(None)
        assert not any("stuck" in reason for reason in found.reasons)
        assert found.workers[0]["receiver"] == "builtins.print"
        work.end_calls([], [], [], time.monotonic())
        assert not any("stuck" in reason for reason in liveness(None).reasons)
        with work.busy_with("something long"):
            work.turned_at -= STUCK_SECONDS + 1
            assert not any("stuck" in reason for reason in liveness(None).reasons)
            work.chore_at -= 301
            assert "worker 3: busy with something long for 301 s" in liveness(None).reasons
    assert "no worker has begun" in liveness(None).reasons


def test_error_in_a_scrape_does_not_end_the_server() -> None:
    def fails(accept: str) -> tuple[str, bytes]:
        raise ValueError("a collector of the project's own")

    server = MetricsServer("127.0.0.1", 0, fails, lambda: ALIVE)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        assert get(url + "/metrics")[0] == 500
        assert get(url + "/nothing")[0] == 404
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.sendall(b"GET /heal")  # and no more
            assert get(url + "/healthz") == (200, health(ALIVE)[2].decode())
    finally:
        server.stop()


@pytest.mark.usefixtures("captured")
def test_taken_port_ends_hc_listen_before_it_delivers() -> None:
    insert(3)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = start("hc_listen", "--metrics-port", str(port))
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"CommandError: Metrics cannot be served on 127.0.0.1:{port}: Address already in use." in output
    assert len(output.splitlines()) == 1, output
    assert Seen.objects.count() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics-port", "70000"], "70000 is no TCP port: expected 0 to 65535"),
        (["--metrics-port", "http"], "'http' is not a number"),
        (["--otlp-metrics", "--once"], "--otlp-metrics needs a worker that stays: leave out --once."),
        (["--metrics-port", "0", "--once"], "--metrics-port needs a worker that stays: leave out --once."),
        (["--log-format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from django.core.management import CommandError, ManagementUtility

    with pytest.raises((SystemExit, CommandError)) as raised:
        ManagementUtility(["manage.py", "hc_listen", *arguments]).execute()
    assert getattr(raised.value, "code", None) == 2
    assert words in capsys.readouterr().err


def test_missing_prometheus_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hc_signals.observability.metrics", None)
    with pytest.raises(ConfigurationError, match=r"run `pip install hc-signals\[metrics\]`"):
        measured(Crew("default", Conf(), 1)).__enter__()


def test_foreign_address_is_one_sentence() -> None:
    metrics = Metrics(Conf(), 1, Counting(), lambda: ALIVE, lambda: None)
    with pytest.raises(ConfigurationError, match=r"Metrics cannot be served on 192\.0\.2\.1:1: "):
        serve_metrics("192.0.2.1", 1, Crew("default", Conf(), 1), metrics).__enter__()
