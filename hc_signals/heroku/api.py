"""A small client of Heroku Connect's REST API, and a check of the states of an app's connections."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum, nonmember
from http import HTTPStatus
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hc_signals.conf import heroku_setting
from hc_signals.exceptions import APIError, ConfigurationError

if TYPE_CHECKING:
    import httpx
    import tenacity

ENDPOINT = "https://connect-eu.heroku.com/api/v3"
TIMEOUT_SECONDS = 30.0
"""Seconds that a request waits for a connection, and for each part of the answer."""
RETRY_SECONDS = 20.0
"""Seconds after the first request in which a GET is sent again. Heroku's router gives the site's pages 30 s."""
ATTEMPTS = 5
"""Most requests of one GET."""
PAUSE_SECONDS = 0.5
"""Seconds before the second request, plus up to as much at random; then the pause doubles, up to 5 s."""
TEMPORARY = frozenset({429, 502, 503, 504})
"""Statuses after which a GET is sent again."""


class ConnectionState(StrEnum):
    """The known states of a connection; the API may return others."""

    IDLE = "IDLE"
    POLLING_DB_CHANGES = "POLLING_DB_CHANGES"
    IMPORT_CONFIGURATION = "IMPORT_CONFIGURATION"
    BUSY = "BUSY"
    NEED_AUTHENTICATION = "NEED_AUTHENTICATION"
    INACTIVE_ORG = "INACTIVE_ORG"
    PAUSED = "PAUSED"

    OK_STATES = nonmember(frozenset({IDLE, POLLING_DB_CHANGES, IMPORT_CONFIGURATION, BUSY}))


class MappingState(StrEnum):
    """The states of a mapping in Heroku's documentation; the API may return others."""

    DATA_SYNCED = "DATA_SYNCED"
    RESYNC = "RESYNC"
    RELOAD_TABLE = "RELOAD_TABLE"
    POLLING_SF_CHANGES = "POLLING_SF_CHANGES"
    POLLING_SF_BULK = "POLLING_SF_BULK"
    POLLING_SF_FOR_DELETES = "POLLING_SF_FOR_DELETES"
    WAIT_BULK_LOAD = "WAIT_BULK_LOAD"
    LOADING_BULK_JOB = "LOADING_BULK_JOB"
    RESOLVE_EXTERNAL_IDS = "RESOLVE_EXTERNAL_IDS"
    WAIT_BULK_UPDATE = "WAIT_BULK_UPDATE"
    APPLYING_BULK_UPDATE = "APPLYING_BULK_UPDATE"
    POLL_EXTERNAL_IDS = "POLL_EXTERNAL_IDS"
    ABORTED = "ABORTED"
    INITIAL = "INITIAL"
    SCHEMA_CHANGED = "SCHEMA_CHANGED"
    RECOVERY = "RECOVERY"
    BULK_LOAD_ERROR = "BULK_LOAD_ERROR"
    SYSTEM_ERROR = "SYSTEM_ERROR"
    DB_UNAVAILABLE = "DB_UNAVAILABLE"
    BAD_CONFIG = "BAD_CONFIG"
    SYNC_REMOVED = "SYNC_REMOVED"
    INACTIVE_ORG = "INACTIVE_ORG"
    UNAUTHORIZED = "UNAUTHORIZED"

    # The mapping does not work now; these states end by themselves.
    TEMPORARY_ERROR_STATES = nonmember(frozenset({INITIAL, SCHEMA_CHANGED, RECOVERY}))
    ERROR_STATES = nonmember(
        frozenset({BULK_LOAD_ERROR, SYSTEM_ERROR, DB_UNAVAILABLE, BAD_CONFIG, SYNC_REMOVED, INACTIVE_ORG, UNAUTHORIZED})
    )

    @classmethod
    def ok_states(cls) -> frozenset["MappingState"]:
        """Return the states in which Heroku Connect synchronises data, or is about to."""
        return frozenset(cls) - cls.TEMPORARY_ERROR_STATES - cls.ERROR_STATES


class HerokuConnectAPI:
    """The connections of one Heroku app.

    Args:
        app_name: name of the Heroku app; may be empty if you pass ids of connections.
        token: Heroku's API token; default: ``HEROKU_AUTH_TOKEN``, a Django setting or environment variable.
        endpoint: root of the API; default: ``HEROKU_CONNECT_API_ENDPOINT``, else the European region.

    The client sends a GET again after a failed connection and after status 429, 502, 503 or 504, up to four times
    within 20 s. It waits as long as the server's Retry-After says; if that is too long, it raises at once. It sends a
    POST once: a server that gives no good answer may have done it.

    Raises:
        APIError: httpx or tenacity is not installed.
        ConfigurationError: there is no token, or it has characters that HTTP cannot send.
    """

    def __init__(self, app_name: str, token: str | None = None, endpoint: str | None = None) -> None:
        self.app_name = app_name
        self.endpoint = (endpoint or heroku_setting("HEROKU_CONNECT_API_ENDPOINT") or ENDPOINT).rstrip("/")
        self._httpx, self._tenacity = _import_clients()
        self._headers = {"Authorization": f"Bearer {_usable(token)}"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.app_name!r}, endpoint={self.endpoint!r})"

    def connections(self) -> list[dict[str, Any]]:
        """Return the connections of the app.

        Raises:
            APIError: the request failed, or the answer is not a list of connections.
            ConfigurationError: the name of the app is empty.
        """
        path = "/connections"
        answer = self._json("GET", path, params={"app": self._app()})
        results = answer.get("results")
        if not isinstance(results, list) or not all(isinstance(item, dict) and item.get("id") for item in results):
            raise APIError(f"GET {path}: the answer has no 'results' with connections and their ids.")
        return results

    def connection(self, connection_id: str, deep: bool = False) -> dict[str, Any]:
        """Return one connection; with ``deep`` its mappings as well.

        Raises:
            APIError: the request failed, or the answer is not an object.
        """
        return self._json("GET", _path(connection_id), params={"deep": "true"} if deep else None)

    def import_mapping(self, connection_id: str, mapping: dict[str, Any]) -> None:
        """Send a configuration to a connection. Its state is ``IMPORT_CONFIGURATION`` until it has applied it.

        Raises:
            APIError: the request failed.
        """
        self._request("POST", f"{_path(connection_id)}/actions/import", json=mapping)

    def link_account(self) -> None:
        """Give the token's user access to the connections of the app; no user has access to those of a new add-on.

        Raises:
            APIError: the request failed.
            ConfigurationError: the name of the app is empty.
        """
        self._request("POST", f"/users/me/apps/{quote(self._app(), safe='')}/auth")

    def _app(self) -> str:
        if not self.app_name:
            raise ConfigurationError("There is no name of a Heroku app; set HEROKU_CONNECT_APP_NAME.")
        return self.app_name

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = self._request(method, path, **options)
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        # Raised outside the handler: the decoder's exception has the whole body, and would be chained.
        if not isinstance(answer, dict):
            status = response.status_code
            raise APIError(f"{method} {path}: status {status}, but the answer is not a JSON object.", status)
        return answer

    def _send_until_answered(self, method: str, path: str, options: dict[str, Any]) -> "httpx.Response":
        if method != "GET":
            return self._send(method, path, options)
        retry = self._tenacity
        growing = retry.wait_exponential(PAUSE_SECONDS, max=5) + retry.wait_random(0, PAUSE_SECONDS)
        connecting = retry.retry_if_exception_type((self._httpx.ConnectError, self._httpx.ConnectTimeout))
        retrying: tenacity.Retrying = retry.Retrying(
            retry=connecting | retry.retry_if_result(lambda response: response.status_code in TEMPORARY),
            stop=retry.stop_after_attempt(ATTEMPTS) | retry.stop_before_delay(RETRY_SECONDS),
            wait=_Pause(growing),
            retry_error_callback=lambda state: state.outcome.result(),  # the last answer or error, as it is
        )
        response: httpx.Response = retrying(self._send, method, path, options)
        return response

    def _send(self, method: str, path: str, options: dict[str, Any]) -> "httpx.Response":
        response: httpx.Response = self._httpx.request(
            method, self.endpoint + path, headers=self._headers, timeout=TIMEOUT_SECONDS, **options
        )
        return response

    def _request(self, method: str, path: str, **options: Any) -> "httpx.Response":
        fault = ""
        try:
            response = self._send_until_answered(method, path, options)
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            fault = type(error).__name__
        # Raised outside the handler: httpx's exception has the request, and so the token.
        if fault:
            raise APIError(f"{method} {path}: no answer from {self.endpoint} ({fault}).")
        if not response.is_success:
            raise APIError(f"{method} {path}: status {_words(response.status_code)}.", response.status_code)
        return response


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A connection or mapping in a bad state."""

    connection: str
    """Name of the connection, else its id; empty if the app has no connection."""
    mapping: str = ""
    """API name of the Salesforce object; empty if the connection itself is in a bad state."""
    state: str
    """The state, as the API returned it; empty if it returned none."""
    reason: str
    """Why the state is bad."""

    def __str__(self) -> str:
        where = f"connection {self.connection!r}" + (f", mapping {self.mapping}" if self.mapping else "")
        return f"{where}: state {self.state or 'missing'}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What the API says about one mapping."""

    schema: str
    """Schema of the connection's tables; empty if the API does not name it."""
    object_name: str
    state: str
    poll_seconds: float | None
    """Seconds between two polls; None if the API does not say."""


def connections_with_mappings(api: HerokuConnectAPI) -> list[dict[str, Any]]:
    """Return the connections of the app, each with its mappings.

    Raises:
        APIError: a request failed.
        ConfigurationError: the name of the app is empty.
    """
    return [listed | api.connection(listed["id"], deep=True) for listed in api.connections()]


def check_health(api: HerokuConnectAPI) -> list[Problem]:
    """Return the connections and mappings of the app that are in a bad state; it raises as the function above does."""
    return problems_of(connections_with_mappings(api))


def problems_of(connections: Iterable[dict[str, Any]]) -> list[Problem]:
    """Return those that are in a bad state, of connections with mappings."""
    return [problem for found in connections for problem in _connection_problems(found)]


def mappings_of(connections: Iterable[dict[str, Any]]) -> list[Mapped]:
    """Return the mappings of connections with mappings."""
    return [
        _mapped(str(found.get("schema_name") or ""), entry)
        for found in connections
        for entry in _entries(found.get("mappings"))
    ]


def _mapped(schema: str, entry: dict[str, Any]) -> Mapped:
    config = entry.get("config")
    seconds = config.get("sf_polling_seconds") if isinstance(config, dict) else None
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0
    return Mapped(
        schema=schema,
        object_name=_word(entry.get("object_name")),
        state=_word(entry.get("state")),
        poll_seconds=float(seconds) if is_number else None,  # type: ignore[arg-type]
    )


def _entries(mappings: Any) -> list[dict[str, Any]]:
    return [entry if isinstance(entry, dict) else {} for entry in (mappings if isinstance(mappings, list) else [])]


def _connection_problems(found: dict[str, Any]) -> Iterator[Problem]:
    name = str(found.get("name") or found["id"])
    state = _word(found.get("state"))
    if state not in ConnectionState.OK_STATES:
        reason = "not a working state" if state in set(ConnectionState) else "an unknown state"
        yield Problem(connection=name, state=state, reason=reason)
    for entry in _entries(found.get("mappings")):
        state = _word(entry.get("state"))
        if reason := _mapping_reason(state):
            yield Problem(
                connection=name, mapping=_word(entry.get("object_name")) or "without name", state=state, reason=reason
            )


def _mapping_reason(state: str) -> str:
    """Return why the state of a mapping is bad; empty for a good state."""
    if state in MappingState.ok_states():
        return ""
    if state in MappingState.TEMPORARY_ERROR_STATES:
        return "temporary, no data is synchronised until it ends"
    return "an error" if state in MappingState.ERROR_STATES else "an unknown state"


def _word(value: Any) -> str:
    return "" if value is None else str(value)


def _words(status: int) -> str:
    known = {item.value: item.phrase for item in HTTPStatus}
    hints = {401: "check HEROKU_AUTH_TOKEN", 403: "check that its user may see the app", 404: "check the name or id"}
    return f"{status} {known.get(status, '')}".strip() + (f"; {hints[status]}" if status in hints else "")


def _path(connection_id: str) -> str:
    return f"/connections/{quote(connection_id, safe='')}"


def _usable(token: str | None) -> str:
    found = (heroku_setting("HEROKU_AUTH_TOKEN") if token is None else token).strip()
    if not found:
        raise ConfigurationError("There is no token for Heroku's API; set HEROKU_AUTH_TOKEN in the environment.")
    if not (found.isascii() and found.isprintable()):
        raise ConfigurationError("HEROKU_AUTH_TOKEN has characters that cannot be sent in an HTTP header.")
    return found


class _Pause:
    """Seconds before the next request: what the server's Retry-After says, else a growing pause."""

    def __init__(self, growing: "tenacity.wait.wait_base") -> None:
        self._growing = growing

    def __call__(self, state: "tenacity.RetryCallState") -> float:
        outcome = state.outcome
        if outcome is not None and not outcome.failed:
            asked = _retry_after(outcome.result().headers.get("Retry-After", ""))
            if asked is not None:
                return asked
        return self._growing(state)


def _retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After header, which has a number or a date; None if it has neither."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, at.timestamp() - time.time())


def _import_clients() -> tuple[ModuleType, ModuleType]:
    try:
        import httpx
        import tenacity
    except ImportError:
        raise APIError("Heroku Connect's API needs httpx and tenacity; run `pip install hc-signals[api]`.") from None
    return httpx, tenacity
