"""An outbox table that a reader follows by the highest id that it has read: the pattern of many tutorials."""

import os
import sys
import time
from pathlib import Path

import psycopg

from tests.chaos.peers.system import KEEP, TRIGGER, System

TABLES = """
CREATE TABLE outbox (id bigserial PRIMARY KEY, record text, operation text, version integer);
CREATE TABLE outbox_cursor (last bigint);
INSERT INTO outbox_cursor VALUES (0);
CREATE FUNCTION chaos_enqueue(record text, operation text, version integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO outbox (record, operation, version) VALUES (record, operation, version)
$$;
"""
PAGE = 200
PAUSE = 0.2
"""Seconds between two queries while there is nothing to read."""

SYSTEM = System(
    name="outbox",
    label="outbox, id cursor",
    install=(),
    work=("-m", "tests.chaos.peers.systems.outbox"),
    promises=frozenset({"once", "order"}),
    sql=TABLES + TRIGGER,
    python=Path(sys.executable),
)


def work() -> None:
    """Read page after page. The effects and the cursor commit together; an error ends the process."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        while True:
            with connection.transaction():
                ((last,),) = connection.execute("SELECT last FROM outbox_cursor FOR UPDATE").fetchall()
                rows = connection.execute(
                    "SELECT id, record, operation, version FROM outbox WHERE id > %s ORDER BY id LIMIT %s", [last, PAGE]
                ).fetchall()
                for row in rows:
                    connection.execute(KEEP, row[1:])
                if rows:
                    connection.execute("UPDATE outbox_cursor SET last = %s", [rows[-1][0]])
            if len(rows) < PAGE:
                time.sleep(PAUSE)


if __name__ == "__main__":
    work()
