"""Serves ``/metrics`` and ``/healthz`` of one hc_listen process over HTTP, in threads of its own.

No error of a worker ends it, and no answer waits for the database.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from hc_signals.exceptions import ConfigurationError
from hc_signals.observability.liveness import Liveness, liveness
from hc_signals.postgres.trouble import places
from hc_signals.worker.crew import Crew
from hc_signals.worker.threads import Helper, keep_turning

if TYPE_CHECKING:
    from hc_signals.observability.metrics import Metrics

logger = logging.getLogger("hc_signals")


@contextmanager
def serve_metrics(host: str, port: int, crew: Crew, metrics: "Metrics") -> "Iterator[MetricsServer]":
    """For the length of the block, serve the metrics and the health of the crew: see :class:`MetricsServer`.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    from prometheus_client import REGISTRY

    server = MetricsServer(host, port, render_metrics, lambda: liveness(crew.bell))
    REGISTRY.register(metrics)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        REGISTRY.unregister(metrics)


class MetricsServer:
    """Serves both pages on one address; port 0 takes a free one.

    ``metrics`` renders the metrics: ``Accept`` header in, content type and body out.

    Raises:
        ConfigurationError: the address cannot be used.
    """

    def __init__(
        self, host: str, port: int, metrics: Callable[[str], tuple[str, bytes]], liveness: Callable[[], Liveness]
    ) -> None:
        pages = {"/metrics": lambda accept: (HTTPStatus.OK, *metrics(accept)), "/healthz": lambda _: health(liveness())}
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            self._server = _Server(host, port, handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            advice = "Choose another --metrics-port, or stop the process that uses it."
            raise ConfigurationError(f"Metrics cannot be served on {host}:{port}: {reason}. {advice}") from error
        self.port = self._server.server_port
        self._stopping = Event()
        turning = ("metrics server", self._turn, self._stopping)
        self._thread = Thread(None, keep_turning, "hc_listen-http", turning, {"longest": 1.0}, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close the port."""
        self._stopping.set()
        self._thread.join(timeout=2 * _Server.timeout)
        self._server.server_close()

    def _turn(self, helper: Helper) -> float:
        self._server.handle_request()  # waits for _Server.timeout; another thread answers
        return 0.0


def health(found: Liveness) -> tuple[HTTPStatus, str, bytes]:
    """Return status, content type and body of ``/healthz``, one line of JSON."""
    body = {
        "healthy": found.is_alive,
        "reasons": found.reasons,
        "listening": found.bell.listens,
        "polling": found.bell.polls or None,
        "last_ping": found.bell.heard_at,
        "doorbell": found.bell.errors.text if found.bell.errors else "",
        "workers": found.workers,
        "helpers": found.helpers,
    }
    status = HTTPStatus.OK if found.is_alive else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(body).encode() + b"\n"


def render_metrics(accept: str) -> tuple[str, bytes]:
    """Return content type and body of all metrics in prometheus_client's registry, for a request's ``Accept``."""
    from prometheus_client import REGISTRY
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return content_type, encode(REGISTRY)


class _Server(ThreadingHTTPServer):
    timeout = 0.5
    """Seconds for which one turn waits for a request."""

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = AF_INET6 if ":" in host else AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind as TCPServer does: HTTPServer would ask a name server for our name, which can be slow."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: usually the client has closed the connection before the end of the answer."""
        logger.debug("A request for metrics was not answered.")


class _Handler(BaseHTTPRequestHandler):
    pages: dict[str, Callable[[str], tuple[HTTPStatus, str, bytes]]]
    timeout = 10.0
    """Seconds for which a client may send nothing."""

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain="There are /metrics and /healthz.")
            return
        try:
            status, content_type, body = page(self.headers.get("Accept", ""))
        except Exception as error:  # for example, of the project's own collector
            logger.warning("%s could not be answered (%s at %s).", self.path, type(error).__name__, places(error))
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: a line per scrape is noise."""
