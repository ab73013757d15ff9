"""A TCP port in front of the server, so that the network between a worker and the server can fail."""

import socket
import threading
from contextlib import suppress

from psycopg.conninfo import conninfo_to_dict


class Proxy:
    """Passes bytes between a port of 127.0.0.1 and the server, until told not to.

    Args:
        url: the server; a Unix socket's directory as host is fine.
    """

    def __init__(self, url: str) -> None:
        parts = conninfo_to_dict(url)
        host, port = str(parts.get("host") or "127.0.0.1"), int(parts.get("port") or 5432)
        self._server = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection, at both ends."""
        for pair in self._taken():
            _close(*pair)

    def go_silent(self) -> None:
        """Accept, and pass nothing on in either direction, until :meth:`recover`."""
        self._flowing.clear()

    def sever(self) -> None:
        """Go silent towards the client and close the server's ends: the server has noticed, the client has not."""
        self._flowing.clear()
        with self._lock:
            pairs = list(self._pairs)
        for _, upstream in pairs:
            _close(upstream)

    def recover(self) -> None:
        """Drop what was caught in the silence, and pass on what comes from now on."""
        self.cut()
        self._flowing.set()

    def close(self) -> None:
        """Accept no more and close everything."""
        _close(self._listener)
        self.recover()

    def _taken(self) -> list[tuple[socket.socket, socket.socket]]:
        with self._lock:
            pairs = list(self._pairs)
            self._pairs.clear()
        return pairs

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
        try:
            server.connect(self._server)
        except OSError:  # the server is starting again: the client sees a refused connection
            _close(client, server)
            return
        with self._lock:
            self._pairs.add((client, server))
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pass_on, args=(source, sink, (client, server)), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing.wait()
                sink.sendall(data)
        self._flowing.wait()  # a silent network does not tell either that the other end is gone
        with self._lock:
            self._pairs.discard(pair)
        _close(*pair)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)  # close() alone would leave a thread in recv() for ever
        one.close()
