"""gunicorn with --preload, and uvicorn: the overview of the admin."""

import sys
import urllib.request
from typing import Any

from tests.ecosystem.site import PORT, equal, is_open, wait_until

PACKAGES = ("gunicorn", "uvicorn", "whitenoise")
SETTINGS: dict[str, Any] = {
    "SESSION_ENGINE": "django.contrib.sessions.backends.db",
    "STORAGES": {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    },
}


def check(site: Any) -> None:
    port = str(PORT)
    gunicorn = ("-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}")
    check_site(site, *gunicorn, "tests.ecosystem.web:wsgi")
    check_site(site, "-m", "uvicorn", "--port", port, "tests.ecosystem.web:asgi")


def check_site(site: Any, *command: str) -> None:
    """Get pages of ours and a file, over HTTP."""
    port = PORT
    wait_until(lambda: not is_open(port), "the port")
    cookies = {"Cookie": f"sessionid={site.client().cookies['sessionid'].value}"}
    with site.process(sys.executable, *command):
        wait_until(lambda: is_open(port), "the web server")
        for path in ("minute/", "change/", "connectedtable/", "delivery/", "position/"):
            for _ in range(4):
                request = urllib.request.Request(f"http://127.0.0.1:{port}/admin/hc_signals/{path}", headers=cookies)
                with urllib.request.urlopen(request, timeout=20) as answer:
                    equal(answer.status, 200)
                    assert "hc_signals" in answer.read().decode(), path
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/static/hc_signals/admin.css", timeout=20) as answer:
            equal(answer.status, 200)
