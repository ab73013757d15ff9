"""A server with a small disk for some of its tables, which a test or the chaos run fills and empties."""

import os
import shutil
import subprocess
from contextlib import suppress

import psycopg

from tests.server import Server

UNPRIVILEGED_UID = 65534
"""User id of the servers that root starts: see tests.server."""


def small_disk(megabytes: int = 8) -> list[str]:
    """Return the command that gives a server a small disk, below "small"; other processes do not see it.

    It needs no rights: the server's processes get their own user namespace, and in it their user name. When the server
    is stopped, the disk and all of its files are gone.
    """
    user = UNPRIVILEGED_UID if os.geteuid() == 0 else os.geteuid()
    script = (
        f"mkdir -p small && mount -t tmpfs -o size={megabytes}m,mode=700 tmpfs small && mkdir small/space && "
        f'exec unshare --user --map-user={user} --map-group={user} "$@"'
    )
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def can_have_small_disk() -> bool:
    """Return True if this machine has unshare, and allows user namespaces."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


_TABLES = """
SELECT c.oid::regclass::text, c.relkind = 'i' FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i')
  AND coalesce((SELECT relname FROM pg_class WHERE oid = i.indrelid), c.relname) ~ %s
"""


class SmallDisk:
    """The small disk of a server that was started by :func:`small_disk`."""

    def __init__(self, server: Server) -> None:
        self.server, self.file = server, server.directory / "small" / "filler"
        server.execute(f"CREATE TABLESPACE small LOCATION '{server.directory}/small/space'")

    def put(self, tables: str) -> None:
        """Move tables and their indexes to the disk.

        Args:
            tables: pattern of their names in the schema "public".
        """
        for name, is_index in self.server.execute(_TABLES, [tables]):
            self.server.execute(f"ALTER {'INDEX' if is_index else 'TABLE'} {name} SET TABLESPACE small")

    def fill(self) -> None:
        """Leave no room on the disk."""
        with suppress(psycopg.errors.DiskFull):
            self.server.execute(f"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO '{self.file}'")
            raise AssertionError("the disk has room for everything")

    def make_room(self) -> None:
        """Leave the room that there was before :meth:`fill`."""
        self.server.execute(f"COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm {self.file}'")
