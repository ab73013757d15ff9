"""The services of docker-compose.yml as processes: they start in their order and survive a restart of the database.

There is no Docker engine where the tests run. Order, commands, environment and restart rules are those of the file.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg
import pytest

from tests.server import Server, installation
from tests.terminal import Terminal
from tests.test_compose import OURS, ROOT

SECONDS = 40


class Stack:
    """The services as processes, restarted by the rules of docker-compose.yml."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url, self.directory = url, directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.running: dict[str, Terminal] = {}
        self.restarts: dict[str, int] = {}

    def start(self, name: str) -> None:
        """Start a service once the conditions of its ``depends_on`` hold."""
        for other, wanted in OURS[name].get("depends_on", {}).items():
            if other in OURS and other not in self.running:
                self.start(other)
                if wanted["condition"] == "service_completed_successfully":
                    self.wait_until(lambda other=other: self.running[other].process.poll() == 0)  # type: ignore[misc]
        self._run(name)

    def _run(self, name: str) -> None:
        command = " ".join(OURS[name]["command"]).replace("0.0.0.0:8000", f"127.0.0.1:{self.port}")
        environment = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        environment |= OURS[name]["environment"]
        environment |= {"DATABASE_URL": self.url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        record = self.directory / f"{name}{self.restarts.get(name, '')}"
        self.running[name] = Terminal(f"exec {command}", ROOT / "example", environment, record)

    def watch(self) -> None:
        """Restart services that have ended, by their rules, as Docker does."""
        for name, terminal in self.running.items():
            code = terminal.process.poll()
            if code is not None and (OURS[name]["restart"] == "unless-stopped" or code != 0):
                self.restarts[name] = self.restarts.get(name, 0) + 1
                self._run(name)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, {name: each.output[-800:] for name, each in self.running.items()}
            self.watch()
            time.sleep(0.1)

    def delivered(self) -> int:
        """Return the number of changes that the example's receiver has stored."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT count(*) FROM crm_seen").fetchone()
        return int(row[0]) if row else 0

    def page(self, path: str) -> str:
        """Return a page of the site; empty while the site does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except HTTPError as error:
            error.close()
        except OSError:
            pass
        return ""


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(installation())
    yield running
    running.stop()


@pytest.fixture
def stack(server: Server, tmp_path: Path) -> Iterator[Stack]:
    services = Stack(server.url, tmp_path)
    yield services
    for terminal in services.running.values():
        terminal.kill()


def test_stack_starts_and_survives_a_database_restart(server: Server, stack: Stack) -> None:
    for name in ("listener", "simulator", "web"):
        stack.start(name)
    assert list(stack.running)[:3] == ["migrate", "tables", "triggers"]
    stack.wait_until(lambda: stack.delivered() > 5)
    stack.wait_until(lambda: "Django administration" in stack.page("/admin/login/"))
    assert "color" in stack.page("/static/admin/css/base.css"), "without DEBUG, too"

    before = stack.delivered()
    server.crash()
    stack.wait_until(lambda: stack.delivered() > before + 5)
    stack.wait_until(lambda: "Django administration" in stack.page("/admin/login/"))

    assert "listener" not in stack.restarts, "the listener connects again by itself"
    assert not {"migrate", "tables", "triggers"} & set(stack.restarts)
    assert stack.running["listener"].stop(signal.SIGTERM) == 0
    assert stack.running["web"].stop(signal.SIGTERM) == 0
