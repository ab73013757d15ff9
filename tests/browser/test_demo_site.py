"""`make demo-site`: a visitor logs in as the terminal says, and each page that it names is there."""

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.pages import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_PAGE = re.compile(r"^  \S.* (http://\S+)$", re.M)


def test_demo_site_serves_the_pages_that_it_names(browser: "Browser") -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ}
    demo = subprocess.Popen(
        [sys.executable, "example/demo.py", "--site"],
        cwd=ROOT,
        env={**environment, "PORT": port},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        pages = []
        assert demo.stdout is not None
        for line in demo.stdout:
            found = _PAGE.findall(line)
            if pages and not found:  # all pages are named; the demo plays on
                break
            pages += found
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/admin/")
        page.fill("#id_username", "demo")
        page.fill("#id_password", "demo")
        page.click("input[type=submit]")
        for address in pages:
            answer = page.goto(address)
            assert answer is not None and answer.status == 200, address
        assert len(pages) >= 3
    finally:
        os.killpg(demo.pid, signal.SIGINT)
        rest = demo.stdout.read()
        demo.stdout.close()
    assert demo.wait(timeout=60) == 0, rest
    assert " 0 lost" in rest
