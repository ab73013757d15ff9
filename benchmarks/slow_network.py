"""A network with a given round-trip time: a relay process between the measuring process and the server."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from django.db import connection

CHUNK = 1 << 18


@contextmanager
def round_trips_of(milliseconds: float) -> Iterator[None]:
    """Connect Django's database through a relay for the length of the block.

    Args:
        milliseconds: added to each round trip, half of it in each direction; 0 measures the relay alone.
    """
    settings = connection.settings_dict
    before = {name: settings[name] for name in ("HOST", "PORT")}
    with _running(milliseconds) as port:
        connection.close()
        settings.update(HOST="127.0.0.1", PORT=port)
        try:
            yield
        finally:
            connection.close()
            settings.update(before)


@contextmanager
def slow_url(url: str, milliseconds: float) -> Iterator[str]:
    """Return the URL of the same database through such a relay, for other processes, for the length of the block."""
    with _running(milliseconds) as port:
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0] or parts.username or ""
        yield urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}", query=""))


@contextmanager
def _running(milliseconds: float) -> Iterator[str]:
    """Run a relay to Django's server; return its port."""
    settings = connection.settings_dict
    host = settings["HOST"] or settings["OPTIONS"].get("host", "127.0.0.1")  # the directory of a socket is an option
    server = str(host), str(settings["PORT"] or 5432)
    relay = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.slow_network", *server, str(milliseconds)], stdout=subprocess.PIPE, text=True
    )
    assert relay.stdout is not None
    try:
        yield relay.stdout.readline().strip()
    finally:
        relay.terminate()
        relay.communicate()


async def _relay(host: str, port: str, milliseconds: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            answers, requests = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            answers, requests = await asyncio.open_connection(host, int(port))
        delay = milliseconds / 2000
        await asyncio.gather(_pass_on(reader, requests, delay), _pass_on(answers, writer, delay))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
    """Write each chunk ``delay`` seconds after it was read: chunks overlap, as on a real network."""
    loop, waiting = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def write() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                return
            sink.write(data)
            await sink.drain()

    writing = asyncio.create_task(write())
    data = b"-"
    while data:
        try:
            data = await source.read(CHUNK)
        except OSError:
            data = b""
        waiting.put_nowait((loop.time() + delay, data))
    await asyncio.gather(writing, return_exceptions=True)
    sink.close()


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1], sys.argv[2], float(sys.argv[3])))
