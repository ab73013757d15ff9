"""Context managers for tests of projects that use Heroku Connect."""

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.test import override_settings
from django.utils.module_loading import import_string

from hc_signals.db.router import HerokuConnectRouter


@contextmanager
def no_heroku_connect_write_restrictions() -> Iterator[None]:
    """Let the ORM write to read-only models inside the block, to create test data; other routers still apply."""
    routers = [import_string(router) if isinstance(router, str) else router for router in settings.DATABASE_ROUTERS]
    others = [
        router
        for router in routers
        if not isinstance(router, HerokuConnectRouter)
        and not (isinstance(router, type) and issubclass(router, HerokuConnectRouter))
    ]
    with override_settings(DATABASE_ROUTERS=[router() if isinstance(router, type) else router for router in others]):
        yield


@contextmanager
def heroku_cli(stdout: str = "", stderr: str = "", exit_code: int = 0) -> Iterator[None]:
    """Put a ``heroku`` on the PATH that prints the given texts and exits with the given code."""
    before = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "heroku"
        lines = [
            "#!/bin/sh",
            f"printf '%s\\n' {shlex.quote(stdout)}",
            f"printf '%s\\n' {shlex.quote(stderr)} >&2",
            f"exit {exit_code:d}",
        ]
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        script.chmod(0o755)
        os.environ["PATH"] = f"{directory}:{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before
