"""A TCP port in front of the server, so that the network between a worker and the server can fail."""

import socket
import threading
from contextlib import suppress

from psycopg.conninfo import conninfo_to_dict


class Proxy:
    """Passes bytes between a port of 127.0.0.1 and the server, until a method makes it fail.

    Args:
        url: of the server; its host may be a directory of a Unix socket.
        port: to listen on; default: a free one.
    """

    def __init__(self, url: str, port: int = 0) -> None:
        parts = conninfo_to_dict(url)
        host, of_server = str(parts.get("host") or "127.0.0.1"), int(parts.get("port") or 5432)
        self._server = f"{host}/.s.PGSQL.{of_server}" if host.startswith("/") else (host, of_server)
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._silent = False
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection, at both ends."""
        with self._lock:
            pairs = list(self._pairs)
            self._pairs.clear()
        for pair in pairs:
            pair.close()

    def go_silent(self) -> None:
        """Accept, and pass nothing on in either direction, until :meth:`recover`."""
        with self._lock:
            self._silent = True
            for pair in self._pairs:
                pair.passing.clear()

    def sever(self) -> None:
        """Close the server's ends, not the clients': their connections are unresponsive, new ones work."""
        with self._lock:
            for pair in self._pairs:
                pair.passing.clear()
                _close(pair.server)

    def stall(self) -> None:
        """Pass nothing on any more, and close neither end: the connections are unresponsive, new ones work."""
        with self._lock:
            for pair in self._pairs:
                pair.passing.clear()

    def recover(self) -> None:
        """Drop all bytes of the silence, and pass bytes on from now on."""
        self.cut()
        self._silent = False

    def close(self) -> None:
        """Accept no more connections, and close all."""
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
        pair = _Pair(client, server)
        try:
            server.connect(self._server)
        except OSError:  # the server is starting again
            pair.close()
            return
        with self._lock:
            self._pairs.add(pair)
            if not self._silent:
                pair.passing.set()
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pass_on, args=(pair, source, sink), daemon=True).start()

    def _pass_on(self, pair: "_Pair", source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                pair.passing.wait()
                sink.sendall(data)
        pair.passing.wait()  # a silent network does not show that the other end is gone
        with self._lock:
            self._pairs.discard(pair)
        pair.close()


class _Pair:
    """A client's connection and its connection to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.passing = threading.Event()

    def close(self) -> None:
        """Close both, and wake the threads that pass bytes on."""
        _close(self.client)
        _close(self.server)
        self.passing.set()


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)  # close() alone would leave a thread in recv() for ever
    one.close()
