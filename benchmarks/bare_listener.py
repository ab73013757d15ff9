"""The least that can hear of a new row: LISTEN, and one SELECT for each notification. A process of its own."""

import socket
import sys
import time

import psycopg


def main(url: str, mailbox: str) -> None:
    """Listen until terminated."""
    box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    last = 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LISTEN bench_bare")
        print("listening", flush=True)
        while True:
            for _ in connection.notifies(stop_after=1):
                pass
            rows = connection.execute("SELECT * FROM bench_bare WHERE id > %s ORDER BY id", [last]).fetchall()
            for last, number, _ in rows:  # noqa: B007
                box.sendto(f"{time.monotonic_ns()} {number}".encode(), mailbox)


if __name__ == "__main__":
    main(*sys.argv[1:])
