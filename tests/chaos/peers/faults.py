"""The faults of the table. Each is caused some times in one run, and a change that it delays shows when it is over."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from tests.chaos.peers.cell import Cell

LATE = 20
"""Records of the transactions that commit late; the other writers leave them alone."""
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'chaos writer'
"""


@dataclass(frozen=True)
class Fault:
    """One kind.

    Args:
        label: in the table.
        times: number of times in a run.
        begin, end: cause and end it.
        hold: seconds between both.
        from_end: the time to recover starts at the end; else at the beginning.
    """

    label: str
    times: int
    begin: "Callable[[Cell], None]"
    end: "Callable[[Cell], None]" = lambda cell: None
    hold: float = 0.0
    from_end: bool = False


def kill_worker(cell: "Cell") -> None:
    """SIGKILL; another process starts."""
    with cell.lock:
        cell.worker.kill()
        cell.worker.start()


def freeze_worker(cell: "Cell") -> None:
    """SIGSTOP; a platform starts another process instead."""
    with cell.lock:
        cell.worker.process.send_signal(signal.SIGSTOP)
        cell.frozen = cell.worker
        cell.worker = cell.new_worker()
        cell.worker.start()


def thaw_worker(cell: "Cell") -> None:
    """SIGCONT; some seconds later the platform ends the process, which was replaced."""
    assert cell.frozen is not None
    cell.frozen.process.send_signal(signal.SIGCONT)
    time.sleep(5)
    cell.frozen.stop()
    cell.frozen = None


def terminate_backends(cell: "Cell") -> None:
    """End all sessions of the worker at the server."""
    cell.server.query(_TERMINATE)


def cut_network(cell: "Cell") -> None:
    """Close the worker's connections, at both ends."""
    cell.worker.proxy.cut()


def silence(cell: "Cell") -> None:
    """Pass nothing on, and accept connections."""
    cell.worker.proxy.go_silent()


def end_silence(cell: "Cell") -> None:
    """Close the connections of the silence."""
    cell.worker.proxy.recover()


def stall(cell: "Cell") -> None:
    """Pass nothing on for the present connections, for ever and without an error; new ones work."""
    cell.worker.proxy.stall()


def kill_server(cell: "Cell") -> None:
    """SIGKILL the postmaster, then stop in immediate mode, by turns; start the server again."""
    server = cell.server.primary
    if cell.crashes % 2:
        server.crash()
    else:
        server.kill()
        server.start_after_kill()
    cell.crashes += 1


def commit_late(cell: "Cell") -> None:
    """Change a record, let other transactions commit, and then commit; ten times."""
    chance = random.Random(cell.options.seed)
    with psycopg.connect(cell.writer_url) as connection:
        connection.execute("SET xmlbinary = 'hex'")
        connection.commit()
        for _ in range(10):
            record = f"{cell.options.records + chance.randrange(LATE):018d}"
            connection.execute("SELECT chaos_change(%s, %s)", [[record], [0.5]])
            time.sleep(chance.uniform(0.5, 1.5))
            connection.commit()


FAULTS = {
    "none": Fault("no fault", 0, lambda cell: None),
    "kill": Fault("worker killed", 2, kill_worker),
    "freeze": Fault("worker frozen", 1, freeze_worker, thaw_worker, hold=45),
    "terminate": Fault("sessions terminated", 3, terminate_backends),
    "cut": Fault("network cut", 3, cut_network),
    "black_hole": Fault("network silent for 10 s", 1, silence, end_silence, hold=10, from_end=True),
    "stall": Fault("connections stalled", 1, stall),
    "crash": Fault("server killed", 2, kill_server),
    "late": Fault("late commits", 1, commit_late),
}
