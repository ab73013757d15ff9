"""Follows docs/start.md and docs/your-app.md literally, in an empty folder: files, commands, output, links."""

import http.cookiejar
import os
import re
import signal
import socket
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pages import BLOCKS, TEXT, file_of, write_file
from tests.terminal import Terminal

# Variables of the test run, which a reader does not have.
FOREIGN = ("DATABASE_URL", "DJANGO_SETTINGS_MODULE", "PYTHONPATH", "PYTHONWARNINGS", "VIRTUAL_ENV")

STAYS = {"hc_listen": "listening", "runserver": "Quit the server"}
"""Commands that keep running, each with the text that it prints when it is ready."""

SITE = "http://127.0.0.1:8000"


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder. It is not in tmp_path, which other users cannot read: for root the server is another user."""
    with tempfile.TemporaryDirectory(prefix="hc_signals_") as directory:
        yield Path(directory)


@pytest.fixture
def shell(folder: Path, tmp_path: Path, distributions: Path) -> Iterator[Callable[[str], Terminal]]:
    """Start a block of commands in its own terminal, in the folder; kill what is running at the end."""
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    # pip finds the package here, because it is not published yet.
    environment |= {"PIP_FIND_LINKS": str(distributions), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    terminals: list[Terminal] = []

    def start(block: str) -> Terminal:
        # Every terminal uses the same .venv. `exec` lets a single command get the signals itself.
        before = ". .venv/bin/activate; " if (folder / ".venv").exists() else ""
        before += "exec " if block.count("\n") == 1 else ""
        terminals.append(Terminal(before + block, folder, environment, tmp_path / f"terminal{len(terminals)}"))
        return terminals[-1]

    yield start
    for terminal in reversed(terminals):
        terminal.kill()


def follow(page: str, folder: Path, shell: Callable[[str], Terminal], site: str) -> dict[str, Terminal]:
    """Do what a page says; return the running terminals, by command."""
    running: dict[str, Terminal] = {}
    for block in (block for block in BLOCKS if block.page == page):
        if file_of(block.code)[0]:
            write_file(folder, block.code)
        elif block.language == "text":
            listener = running["hc_listen"]
            listener.wait_until(lambda output: block.code.rstrip("\n") in output)  # noqa: B023
        else:
            lines = block.code.splitlines(keepends=True)
            stays = next((name for name in STAYS if f"manage.py {name}" in lines[-1]), "")
            if before := "".join(lines[:-1] if stays else lines):
                shell(before).succeed()
            if stays:
                command = lines[-1].rstrip()
                if stays == "runserver":  # on a free port, and it does not flush what it prints
                    command = f"env PYTHONUNBUFFERED=1 {command} {site.removeprefix('http://')}"
                running[stays] = shell(f"{command}\n")
                running[stays].wait_until(lambda output: STAYS[stays] in output)  # noqa: B023
    return running


def test_pages_lead_to_a_signal_and_a_tested_app(folder: Path, shell: Callable[[str], Terminal]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        site = f"http://127.0.0.1:{free.getsockname()[1]}"
    listener = follow("start.md", folder, shell, site)["hc_listen"]
    assert listener.stop(signal.SIGINT) == 0
    assert listener.output.count("CREATE") > 1, "the simulator's records were delivered"

    running = follow("your-app.md", folder, shell, site)
    links = re.findall(rf"\({SITE}(/admin/\S+)\)", TEXT["your-app.md"])
    assert len(links) == 5
    pages = read_admin(site, links)
    assert re.search(r'href="/admin/orders/order/\d+/change/', pages[links[0]]), "the list has orders"
    (order, *_) = re.findall(r'href="(/admin/orders/order/\d+/change/)', pages[links[0]])
    assert 'name="_save"' not in read_admin(site, [order])[order], "a read-only record has no save button"
    (shipment, *_) = re.findall(r'href="(/admin/orders/shipment/\d+/change/)', pages[links[1]])
    assert 'name="_save"' in read_admin(site, [shipment])[shipment]
    for terminal in (running["hc_listen"], running["runserver"]):
        assert terminal.stop(signal.SIGINT) == 0, terminal.output


def read_admin(site: str, links: list[str]) -> dict[str, str]:
    """Log in by HTTP as the page says; return the text of each link."""
    command = next(block.code for block in BLOCKS if block.page == "your-app.md" and "createsuperuser" in block.code)
    (password,) = re.findall(r"DJANGO_SUPERUSER_PASSWORD=(\S+)", command)
    cookies = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    with browser.open(f"{site}/admin/login/"):
        token = next(cookie.value for cookie in cookies if cookie.name == "csrftoken")
    form = {"username": "admin", "password": password, "csrfmiddlewaretoken": token, "next": links[0]}
    with browser.open(f"{site}/admin/login/", urllib.parse.urlencode(form).encode()) as answer:
        assert answer.url == f"{site}{links[0]}", "logged in"
    pages = {}
    for link in links:
        with browser.open(f"{site}{link}") as answer:
            pages[link] = answer.read().decode()
    return pages
