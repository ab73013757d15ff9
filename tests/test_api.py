"""The API's client and ``hc_mappings import`` against a server that plays Heroku Connect; no output has the token."""

import asyncio
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from health_check.exceptions import ServiceReturnedUnexpectedResult, ServiceUnavailable

from hc_signals.contrib.health_check import HerokuConnectHealthCheck
from hc_signals.exceptions import APIError, ConfigurationError
from hc_signals.heroku import api as api_module
from hc_signals.heroku.api import ConnectionState, HerokuConnectAPI, MappingState, Problem, check_health
from hc_signals.heroku.mappings import get_mapping
from hc_signals.management.commands.hc_mappings import Command

TOKEN = "4e9a7c52-secret-of-the-account"


class FakeHeroku(ThreadingHTTPServer):
    """Answers as Heroku Connect does; each GET of a connection answers the next of ``states``, then the last."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.connections: list[dict[str, Any]] = [{"id": "c1", "name": "one"}]
        self.linkable: list[dict[str, Any]] = []
        self.states = ["IDLE"]
        self.mappings: list[Any] = []
        self.fault: tuple[int, str] | None = None
        self.faults: list[tuple[int, dict[str, str]]] = []
        """Statuses and headers of the next answers, before the one of ``fault``."""
        self.arrived: list[float] = []
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.imported: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/v3"

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, str]:
        url = urlsplit(target)
        path = url.path.removeprefix("/api/v3")
        self.requests.append(f"{method} {path}" + (f"?{url.query}" if url.query else ""))
        if self.fault is not None:
            return self.fault
        if method == "GET" and path == "/connections":
            assert parse_qs(url.query) == {"app": ["my-app"]}
            return 200, json.dumps({"count": len(self.connections), "results": self.connections})
        if method == "POST" and path == "/users/me/apps/my-app/auth":
            self.connections = self.linkable
            return 200, ""
        if method == "POST" and path.endswith("/actions/import"):
            self.imported.append(json.loads(body))
            return 202, ""
        found = [each for each in self.connections if path == f"/connections/{each['id']}"]
        if method != "GET" or not found:
            return 404, json.dumps({"error": "not found"})
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        deep = {"mappings": self.mappings} if parse_qs(url.query) == {"deep": ["true"]} else {}
        return 200, json.dumps({**found[0], "state": state, **deep})


class Handler(BaseHTTPRequestHandler):
    server: FakeHeroku

    def do_GET(self) -> None:
        self.server.tokens.add(self.headers["Authorization"])
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.arrived.append(time.monotonic())
        status, text = self.server.answer(self.command, self.path, body)
        headers: dict[str, str] = {}
        if self.server.faults:
            (status, headers), text = self.server.faults.pop(0), "later"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        with suppress(ConnectionError):  # the client of the timeout test has closed the connection
            self.end_headers()
            self.wfile.write(text.encode())

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def heroku_api(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[FakeHeroku]:
    """The server instead of Heroku's; after the test the token must be in no log and no output."""
    caplog.set_level(logging.DEBUG)
    for name in ("HEROKU_AUTH_TOKEN", "HEROKU_APP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeHeroku()
    monkeypatch.setenv("HEROKU_CONNECT_API_ENDPOINT", server.url)
    monkeypatch.setenv("HEROKU_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(api_module, "PAUSE_SECONDS", 0.01)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text
    assert server.tokens <= {f"Bearer {TOKEN}"}


def report_of(error: BaseException | None) -> str:
    """Return all text of an error and of the errors that it is chained to."""
    parts = []
    while error is not None:
        parts.append(f"{error!r} {error} {vars(error)}")
        assert not hasattr(error, "request"), "httpx's exception carries the request, and with it the token"
        error = error.__cause__ or error.__context__
    return " ".join(parts)


def test_calls_send_the_documented_requests(heroku_api: FakeHeroku) -> None:
    heroku_api.mappings = [{"object_name": "Account", "state": "DATA_SYNCED"}]
    api = HerokuConnectAPI("my-app")
    assert api.connections() == [{"id": "c1", "name": "one"}]
    assert api.connection("c1") == {"id": "c1", "name": "one", "state": "IDLE"}
    assert api.connection("c1", deep=True)["mappings"] == heroku_api.mappings
    api.import_mapping("c1", {"version": 1, "mappings": []})
    assert heroku_api.imported == [{"version": 1, "mappings": []}]
    assert heroku_api.tokens == {f"Bearer {TOKEN}"}
    assert heroku_api.requests == [
        "GET /connections?app=my-app",
        "GET /connections/c1",
        "GET /connections/c1?deep=true",
        "POST /connections/c1/actions/import",
    ]


def test_token_is_not_shown(heroku_api: FakeHeroku) -> None:
    api = HerokuConnectAPI("my-app")
    assert repr(api) == f"HerokuConnectAPI('my-app', endpoint={heroku_api.url!r})"
    assert TOKEN not in str(api)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "401 Unauthorized; "), (403, "403 Forbidden; "), (404, "404 Not Found; "), (500, "500 ")],
)
@pytest.mark.parametrize(
    ("call", "arguments", "request_line"),
    [
        ("connections", (), "GET /connections"),
        ("connection", ("c1",), "GET /connections/c1"),
        ("import_mapping", ("c1", {}), "POST /connections/c1/actions/import"),
        ("link_account", (), "POST /users/me/apps/my-app/auth"),
    ],
)
def test_refusal_is_an_api_error(
    heroku_api: FakeHeroku, call: str, arguments: Any, request_line: str, status: int, words: str
) -> None:
    heroku_api.fault = (status, f"you sent {TOKEN}, and the secret is hunter2")
    with pytest.raises(APIError) as error:
        getattr(HerokuConnectAPI("my-app"), call)(*arguments)
    assert str(error.value).startswith(f"{request_line}: status {words}")
    assert error.value.status == status
    assert TOKEN not in report_of(error.value)
    assert "hunter2" not in report_of(error.value)


@pytest.mark.parametrize("body", ["<html>hunter2</html>", "", "[]", '"hunter2"', "[" * 100_000])
def test_answer_that_is_no_json_object_is_an_error(heroku_api: FakeHeroku, body: str) -> None:
    heroku_api.fault = (200, body)
    with pytest.raises(
        APIError, match=r"^GET /connections/c1: status 200, but the answer is not a JSON object\.$"
    ) as e:
        HerokuConnectAPI("my-app").connection("c1")
    assert "hunter2" not in report_of(e.value)


@pytest.mark.parametrize("body", ["{}", '{"results": {}}', '{"results": [1]}', '{"results": [{"name": "x"}]}'])
def test_answer_without_connections_is_an_error(heroku_api: FakeHeroku, body: str) -> None:
    heroku_api.fault = (200, body)
    with pytest.raises(APIError, match=r"^GET /connections: the answer has no 'results'"):
        HerokuConnectAPI("my-app").connections()


def test_redirect_does_not_get_the_token(heroku_api: FakeHeroku) -> None:
    heroku_api.fault = (302, "")
    with pytest.raises(APIError, match="status 302 Found"):
        HerokuConnectAPI("my-app").connections()
    assert len(heroku_api.requests) == 1


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [("http://127.0.0.1:1/api", "ConnectError"), ("connect", "UnsupportedProtocol"), ("http://a:b", "InvalidURL")],
)
@pytest.mark.usefixtures("heroku_api")
def test_unreachable_server_is_an_api_error(endpoint: str, fault: str) -> None:
    with pytest.raises(APIError, match=rf"GET /connections: no answer from .* \({fault}\)") as error:
        HerokuConnectAPI("my-app", endpoint=endpoint).connections()
    assert TOKEN not in report_of(error.value)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_get_is_sent_again_after_a_temporary_status(heroku_api: FakeHeroku, status: int) -> None:
    heroku_api.faults = [(status, {}), (status, {})]
    assert HerokuConnectAPI("my-app").connections() == heroku_api.connections
    assert heroku_api.requests == ["GET /connections?app=my-app"] * 3


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_get_is_sent_once_if_the_status_stays(heroku_api: FakeHeroku, status: int) -> None:
    heroku_api.faults = [(status, {"Retry-After": "0"})]
    with pytest.raises(APIError, match=f"status {status}"):
        HerokuConnectAPI("my-app").connections()
    assert len(heroku_api.requests) == 1


def test_post_is_never_sent_again(heroku_api: FakeHeroku) -> None:
    """A proxy that answers 502 or 504 may have passed the request on."""
    for status in (429, 502, 503, 504):
        heroku_api.faults = [(status, {"Retry-After": "0"})]
        with pytest.raises(APIError, match=f"status {status}"):
            HerokuConnectAPI("my-app").import_mapping("c1", {})
        heroku_api.faults = [(status, {"Retry-After": "0"})]
        with pytest.raises(APIError, match=f"status {status}"):
            HerokuConnectAPI("my-app").link_account()
    assert len(heroku_api.requests) == 8


def in_seconds(seconds: float, form: str) -> str:
    """Return a Retry-After of so many seconds: a number, or a date, which has no fractions."""
    return str(int(seconds)) if form == "seconds" else formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize(("form", "least"), [("seconds", 2.0), ("date", 1.0)])
def test_retry_after_is_waited_for(heroku_api: FakeHeroku, form: str, least: float) -> None:
    heroku_api.faults = [(429, {"Retry-After": in_seconds(2, form)})]
    assert HerokuConnectAPI("my-app").connections()
    first, second = heroku_api.arrived
    assert second - first >= least


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_that_is_too_long_ends_the_call(heroku_api: FakeHeroku, form: str) -> None:
    heroku_api.faults = [(503, {"Retry-After": in_seconds(3600, form)})]
    with pytest.raises(APIError, match="status 503 Service Unavailable") as error:
        HerokuConnectAPI("my-app").connections()
    assert error.value.status == 503
    assert len(heroku_api.requests) == 1


@pytest.mark.parametrize(
    "value", ["soon", "-1", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 -0000", "1.5"]
)
def test_retry_after_without_sense_delays_nothing(heroku_api: FakeHeroku, value: str) -> None:
    heroku_api.faults = [(429, {"Retry-After": value})]
    assert HerokuConnectAPI("my-app").connections()


def test_get_ends_after_the_last_attempt(heroku_api: FakeHeroku) -> None:
    heroku_api.fault = (503, f"you sent {TOKEN}")
    with pytest.raises(APIError, match="status 503") as error:
        HerokuConnectAPI("my-app").connections()
    assert len(heroku_api.requests) == api_module.ATTEMPTS
    assert TOKEN not in report_of(error.value)


def test_get_ends_in_time(heroku_api: FakeHeroku, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "RETRY_SECONDS", 0.5)
    heroku_api.faults = [(503, {"Retry-After": "0"}), (503, {"Retry-After": "1"})]
    with pytest.raises(APIError, match="status 503"):
        HerokuConnectAPI("my-app").connections()
    assert len(heroku_api.requests) == 2


def test_get_survives_a_server_that_starts_late(heroku_api: FakeHeroku, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PAUSE_SECONDS", 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    late: list[ThreadingHTTPServer] = []

    def start() -> None:
        server = FakeHeroku(port)
        late.append(server)
        server.serve_forever(poll_interval=0.01)

    thread = threading.Timer(0.3, start)
    thread.start()
    try:
        assert HerokuConnectAPI("my-app", endpoint=f"http://127.0.0.1:{port}/api/v3").connections()
    finally:
        thread.join(0.5)
        late[0].shutdown()
        thread.join()
        late[0].server_close()


def test_id_is_quoted_in_the_path(heroku_api: FakeHeroku) -> None:
    with pytest.raises(APIError, match="404"):
        HerokuConnectAPI("my-app").connection("../users?x")
    assert heroku_api.requests == ["GET /connections/..%2Fusers%3Fx"]


def test_token_and_endpoint_are_checked(heroku_api: FakeHeroku, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(HEROKU_AUTH_TOKEN=TOKEN + "\n"):
        monkeypatch.delenv("HEROKU_AUTH_TOKEN")
        assert HerokuConnectAPI("my-app").connections()
    with pytest.raises(ConfigurationError, match="set HEROKU_AUTH_TOKEN"):
        HerokuConnectAPI("my-app")
    for unusable in ("hunter\n2", "hünter2"):
        with pytest.raises(ConfigurationError, match="cannot be sent") as error:
            HerokuConnectAPI("my-app", token=unusable)
        assert unusable not in report_of(error.value)
    with pytest.raises(ConfigurationError, match="HEROKU_CONNECT_APP_NAME"):
        HerokuConnectAPI("", token=TOKEN).connections()
    monkeypatch.delenv("HEROKU_CONNECT_API_ENDPOINT")
    assert HerokuConnectAPI("x", token=TOKEN).endpoint == "https://connect-eu.heroku.com/api/v3"
    with override_settings(HEROKU_CONNECT_API_ENDPOINT="https://example.com/api/"):
        assert HerokuConnectAPI("x", token=TOKEN).endpoint == "https://example.com/api"


@pytest.mark.parametrize("package", ["httpx", "tenacity"])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(APIError, match=r"pip install hc-signals\[api\]"):
        HerokuConnectAPI("my-app", token=TOKEN)


def test_states_are_sorted_into_good_and_bad() -> None:
    assert {*ConnectionState} - ConnectionState.OK_STATES == {"NEED_AUTHENTICATION", "INACTIVE_ORG", "PAUSED"}
    groups = [MappingState.ok_states(), MappingState.TEMPORARY_ERROR_STATES, MappingState.ERROR_STATES]
    assert sorted(word for group in groups for word in group) == sorted(MappingState)


@pytest.mark.parametrize("state", sorted(ConnectionState.OK_STATES))
def test_healthy_app_has_no_problems(heroku_api: FakeHeroku, state: str) -> None:
    heroku_api.states = [state]
    heroku_api.mappings = [{"object_name": word, "state": word} for word in MappingState.ok_states()]
    assert check_health(HerokuConnectAPI("my-app")) == []


def test_bad_states_are_problems(heroku_api: FakeHeroku) -> None:
    heroku_api.connections.append({"id": "c2"})
    heroku_api.states = ["PAUSED", "ON_FIRE"]
    heroku_api.mappings = [
        {"object_name": "Account", "state": "BAD_CONFIG"},
        {"object_name": "Contact", "state": "RECOVERY"},
        {"object_name": "Lead", "state": "DREAMING"},
        {"object_name": "Case", "state": "DATA_SYNCED"},
        {"object_name": "Task", "state": ["x"]},
        "nonsense",
    ]
    problems = check_health(HerokuConnectAPI("my-app"))
    assert problems[0] == Problem(connection="one", state="PAUSED", reason="not a working state")
    assert [str(problem) for problem in problems[1:7]] == [
        "connection 'one', mapping Account: state BAD_CONFIG: an error",
        "connection 'one', mapping Contact: state RECOVERY: temporary, no data is synchronised until it ends",
        "connection 'one', mapping Lead: state DREAMING: an unknown state",
        "connection 'one', mapping Task: state ['x']: an unknown state",
        "connection 'one', mapping without name: state missing: an unknown state",
        "connection 'c2': state ON_FIRE: an unknown state",
    ]


def test_app_without_mappings_is_healthy(heroku_api: FakeHeroku) -> None:
    assert check_health(HerokuConnectAPI("my-app")) == []
    heroku_api.mappings = None  # type: ignore[assignment]
    assert check_health(HerokuConnectAPI("my-app")) == []


def test_import_sends_the_models(heroku_api: FakeHeroku, capfd: pytest.CaptureFixture[str]) -> None:
    call_command("hc_mappings", "import", "--app", "my-app")
    (sent,) = heroku_api.imported
    assert sent["connection"]["app_name"] == "my-app"
    assert sent["mappings"] == get_mapping()["mappings"]
    assert capfd.readouterr().out == f"Sent {len(sent['mappings'])} mappings to the connection c1.\n"


def test_import_sends_a_file(heroku_api: FakeHeroku, tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text('{"version": 1, "mappings": [], "kept": 1}', encoding="utf-8")
    call_command("hc_mappings", "import", str(path), app="my-app")
    assert heroku_api.imported == [{"version": 1, "mappings": [], "kept": 1}]
    with pytest.raises(CommandError, match="There is no file"):
        call_command("hc_mappings", "import", str(tmp_path / "none"), app="my-app")
    assert len(heroku_api.imported) == 1


def test_import_reads_the_app_from_setting_or_environment(
    heroku_api: FakeHeroku, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="No app was named; pass --app"):
        call_command("hc_mappings", "import")
    with override_settings(HEROKU_CONNECT_APP_NAME="my-app"):
        call_command("hc_mappings", "import")
    monkeypatch.setenv("HEROKU_APP_NAME", "my-app")
    call_command("hc_mappings", "import")
    assert [sent["connection"]["app_name"] for sent in heroku_api.imported] == ["my-app", "my-app"]


def test_import_waits_until_it_is_applied(heroku_api: FakeHeroku, capfd: pytest.CaptureFixture[str]) -> None:
    heroku_api.states = ["IMPORT_CONFIGURATION", "IMPORT_CONFIGURATION", "IDLE"]
    call_command("hc_mappings", "import", "--app", "my-app", "--wait", "--wait-interval", "0")
    assert heroku_api.requests[-3:] == ["GET /connections/c1"] * 3
    assert capfd.readouterr().out.splitlines()[1:] == [
        "Heroku Connect is importing the configuration.",
        "Heroku Connect is importing the configuration.",
        "Imported; the connection is now in the state IDLE.",
    ]


@pytest.mark.parametrize("state", ["NEED_AUTHENTICATION", "ON_FIRE"])
def test_import_fails_in_a_bad_state(heroku_api: FakeHeroku, state: str) -> None:
    heroku_api.states = ["IMPORT_CONFIGURATION", state]
    with pytest.raises(CommandError, match=f"c1 is now in the state {state}"):
        call_command("hc_mappings", "import", "--app", "my-app", "--wait", "--wait-interval", "0")


def test_import_gives_up_after_the_timeout(heroku_api: FakeHeroku, monkeypatch: pytest.MonkeyPatch) -> None:
    heroku_api.states = ["IMPORT_CONFIGURATION"]
    monkeypatch.setattr(Command, "MAX_WAIT_SECONDS", 0.0)
    with pytest.raises(CommandError, match="Still importing after 0 seconds"):
        call_command("hc_mappings", "import", "--app", "my-app", "--wait", "--wait-interval", "0")


def test_import_finds_the_connection_of_the_schema(heroku_api: FakeHeroku) -> None:
    heroku_api.connections = [
        {"id": "c1", "name": "one", "schema_name": "salesforce2"},
        {"id": "c2", "name": "two", "schema_name": "salesforce"},
    ]
    call_command("hc_mappings", "import", app="my-app", schema="salesforce")
    assert heroku_api.requests[-1] == "POST /connections/c2/actions/import"
    call_command("hc_mappings", "import", app="my-app")
    assert heroku_api.requests[-1] == "POST /connections/c2/actions/import"
    del heroku_api.connections[1]
    with pytest.raises(
        CommandError, match=r"has 1 connections; none of them writes to the schema 'salesforce'; .*: c1"
    ):
        call_command("hc_mappings", "import", app="my-app")
    with pytest.raises(CommandError, match=r"No connected model has its table in the schema 'salesforce2'"):
        call_command("hc_mappings", "import", app="my-app", schema="salesforce2")


def test_import_does_not_guess_among_connections(heroku_api: FakeHeroku) -> None:
    heroku_api.connections.append({"id": "c2", "name": "two"})
    with pytest.raises(CommandError, match=r"has 2 connections; .*: c1 \(one\), c2 \(two\)\.$"):
        call_command("hc_mappings", "import", "--app", "my-app")
    assert heroku_api.imported == []
    call_command("hc_mappings", "import", "--connection", "c2")
    assert heroku_api.requests[-1] == "POST /connections/c2/actions/import"


def test_import_links_the_account_once(heroku_api: FakeHeroku) -> None:
    heroku_api.connections, heroku_api.linkable = [], [{"id": "c9", "name": "linked"}]
    call_command("hc_mappings", "import", "--app", "my-app")
    assert heroku_api.requests == [
        "GET /connections?app=my-app",
        "POST /users/me/apps/my-app/auth",
        "GET /connections?app=my-app",
        "POST /connections/c9/actions/import",
    ]
    heroku_api.connections, heroku_api.linkable = [], []
    with pytest.raises(CommandError, match="'my-app' has no connection"):
        call_command("hc_mappings", "import", "--app", "my-app")


def test_import_shows_a_refusal_in_one_sentence(heroku_api: FakeHeroku) -> None:
    heroku_api.fault = (401, TOKEN)
    with pytest.raises(CommandError, match="status 401 Unauthorized") as error:
        call_command("hc_mappings", "import", "--app", "my-app")
    assert error.value.returncode == 1
    assert TOKEN not in report_of(error.value)


def test_request_has_a_timeout(heroku_api: FakeHeroku, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_module.TIMEOUT_SECONDS == 30
    monkeypatch.setattr(api_module, "TIMEOUT_SECONDS", 0.05)
    released = threading.Event()
    monkeypatch.setattr(heroku_api, "answer", lambda *args: (released.wait(20), (200, "{}"))[1])
    began = time.monotonic()
    try:
        with pytest.raises(APIError, match=r"no answer from .* \(ReadTimeout\)"):
            HerokuConnectAPI("my-app").connections()
        assert time.monotonic() - began < 4, "the client waited for httpx's own default"
    finally:
        released.set()


def test_health_check_reports_problems(heroku_api: FakeHeroku, monkeypatch: pytest.MonkeyPatch) -> None:
    check = HerokuConnectHealthCheck(app_name="my-app")
    assert TOKEN not in repr(check)
    assert asyncio.run(check.get_result()).error is None
    heroku_api.mappings = [{"object_name": "Account", "state": "BAD_CONFIG"}]
    result = asyncio.run(check.get_result())
    assert isinstance(result.error, ServiceUnavailable)
    assert "mapping Account: state BAD_CONFIG" in str(result.error)
    heroku_api.fault = (500, "oops")
    assert isinstance(asyncio.run(check.get_result()).error, ServiceReturnedUnexpectedResult)
    monkeypatch.delenv("HEROKU_AUTH_TOKEN")
    result = asyncio.run(check.get_result())
    assert isinstance(result.error, ServiceUnavailable)
    assert "set HEROKU_AUTH_TOKEN" in str(result.error)
