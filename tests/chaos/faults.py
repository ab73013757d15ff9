"""The faults of a run: of processes, backends, the server, the network, the layout of the shards."""

import argparse
import random
import signal
import threading
import time
from collections import Counter

from tests.chaos.server import Server
from tests.chaos.workers import Worker, Workers
from tests.clock import Clock
from tests.pgbouncer import PgBouncer

_HELD = """
SELECT l.objid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.granted AND a.application_name = %s
"""
_TAKEN_OVER = """
SELECT extract(epoch FROM min(created_at))::float8 FROM public.hc_signals_position
WHERE consumer = %s AND hashtext(consumer || ' ' || shard)::bigint & 4294967295 = ANY (%s)
  AND created_at > to_timestamp(%s)
"""
_LAYOUT = "SELECT min(shards) FROM public.hc_signals_newest_position WHERE consumer = %s"
# Sessions that deliver: each has announced itself.
_SESSIONS = """
SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND classid = %s AND mode = 'ShareLock' AND granted AND application_name = %s
"""
STANDBYS = ("synchronous", "lossy")
"""The standby has all confirmed changes, or lacks the last of them."""
KINDS = (
    "kill_worker",
    "freeze_worker",
    "terminate_backend",
    "cut_network",
    "black_hole",
    "crash_server",
    "change_shards",
    "stall_worker",
    "promote_standby",
    "restart_pooler",
    "jump_clock",
    "fill_disk",
)
CLOCKS = (0, -12 * 3600, 5 * 86400)
"""Seconds after the right time."""


class Faults:
    """Breaks one thing after another.

    Args:
        server, workers: what is broken.
        chance: every choice comes from it.
        options: of the command line.
        pooler: in front of the workers.
        clock: of the server.
    """

    def __init__(
        self,
        server: Server,
        workers: Workers,
        chance: random.Random,
        options: argparse.Namespace,
        pooler: PgBouncer | None,
        clock: Clock | None,
    ) -> None:
        self.server, self.workers, self.chance = server, workers, chance
        self.pooler, self.clock = pooler, clock
        self.silence, self.limit, self.standby = options.silence, options.unresponsive, options.standby
        self.takeover = options.takeover
        self.done: Counter[str] = Counter()
        self.takeovers: dict[str, list[float]] = {"killed": [], "frozen": [], "unresponsive": []}
        """Seconds, by fault; figures.py says from when to when."""
        self.missed = 0
        """Takeovers that no worker made in time."""
        is_possible = {
            "stall_worker": bool(self.limit),
            "promote_standby": bool(self.standby),
            "restart_pooler": bool(pooler),
            "jump_clock": bool(clock),
            "fill_disk": bool(server.disk),
            "crash_server": not server.disk,
        }
        self.kinds = [kind for kind in KINDS if is_possible.get(kind, True)]
        self._turns: list[str] = []
        self._voided = 0
        """Rises when a takeover that is still awaited may never show."""

    @property
    def had_all(self) -> bool:
        """True if every kind has had its turn."""
        return len(self.done) == len(self.kinds)

    def next(self) -> str:
        """Cause the next fault; all kinds have their turn before one is repeated."""
        if not self._turns:
            self._turns = list(self.kinds)
            self.chance.shuffle(self._turns)
        kind = self._turns.pop()
        getattr(self, kind)()
        self.done[kind] += 1
        return kind

    def end(self) -> None:
        """Note that no more changes come: a takeover that is still awaited may never show."""
        self._voided += 1

    def kill_worker(self) -> None:
        """SIGKILL one worker and start another."""
        worker = self._victim()
        with self.workers.lock:
            held = self._stop(worker)
            killed_at = self._now()
            worker.process.kill()
            worker.process.wait()
            worker.start()
        self._watch("killed", worker, held, killed_at)

    def freeze_worker(self) -> None:
        """Suspend a process; another one takes over; then the first goes on and must not commit its page."""
        worker = self._victim()
        with self.workers.lock:
            held = self._stop(worker)
            noticed_at = self._now()
            worker.proxy.sever()
        watching = self._watch("frozen", worker, held, noticed_at)
        pause = self.chance.uniform(0.3, self.silence)
        if self._has_company(worker):
            watching.join(timeout=pause)
        else:
            time.sleep(pause)
        worker.process.send_signal(signal.SIGCONT)
        time.sleep(0.2)  # it may say COMMIT into the silence
        worker.proxy.recover()

    def stall_worker(self) -> None:
        """Make a worker's connections unresponsive for ever, though TCP finds nothing wrong; new ones work.

        The server's ends are closed, or stay with all their locks.
        """
        worker = self._victim()
        stalled = self._sessions(worker)
        self.chance.choice([worker.proxy.sever, worker.proxy.stall])()
        since = time.time()
        while len(self._sessions(worker) - stalled) < max(1, len(stalled)):
            if time.time() > since + self.limit:
                self.missed += 1
                return
            time.sleep(0.05)
        self.takeovers["unresponsive"].append(time.time() - since)

    def _sessions(self, worker: Worker) -> set[int]:
        from hc_signals.postgres.locks import PRESENCE

        return {pid for (pid,) in self.server.query(_SESSIONS, [PRESENCE, worker.name])}

    def terminate_backend(self) -> None:
        """Cut a connection at the server's end, a worker's or a writer's."""
        self.server.query(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1) victim"
        )

    def cut_network(self) -> None:
        """Cut all connections of one worker."""
        self._victim().proxy.cut()

    def black_hole(self) -> None:
        """Make the network of one worker accept and pass nothing on, then drop all of it."""
        proxy = self._victim().proxy
        proxy.go_silent()
        time.sleep(self.chance.uniform(0.3, self.silence))
        proxy.recover()

    def crash_server(self) -> None:
        """Stop the server in immediate mode, and start it again."""
        self.server.crash()

    def promote_standby(self) -> None:
        """Let a standby follow, stop the primary in immediate mode, and give its address to the promoted standby.

        ``lossy``: the standby was cut off some time before, so all later changes and positions are gone.
        """
        standby = self.server.follow(synchronous=self.standby == "synchronous")
        time.sleep(self.chance.uniform(0.3, self.silence))
        if self.standby == "lossy":
            standby.cut_off()
            time.sleep(self.chance.uniform(0.1, self.silence))
        self._voided += 1  # a shard that was claimed then need not be claimed again
        self.server.fail_over().stop()

    def change_shards(self) -> None:
        """Give the first consumer another number of shards, one worker after the other."""
        self._voided += 1
        peers = [worker for worker in self.workers.all if worker.consumer == self.workers.all[0].consumer]
        before = peers[0].environment["CHAOS_SHARDS"]
        shards = self.chance.choice([n for n in "1235" if n != before])
        for worker in peers:
            with self.workers.lock:
                worker.end(self.chance.choice([signal.SIGTERM, signal.SIGKILL]))
                worker.environment["CHAOS_SHARDS"] = shards
                worker.start()

    def restart_pooler(self) -> None:
        """Kill PgBouncer, with all its connections, and start it again."""
        assert self.pooler is not None
        self.pooler.restart()

    def jump_clock(self) -> None:
        """Set the server's clock back or forward."""
        assert self.clock is not None
        self._voided += 1
        self.clock.set_to(self.chance.choice([offset for offset in CLOCKS if offset != self.clock.offset]))
        time.sleep(self.clock.delay + 0.5)

    def fill_disk(self) -> None:
        """Leave no room for the workers' positions and deliveries for some seconds."""
        assert self.server.disk is not None
        self.server.disk.fill()
        time.sleep(self.chance.uniform(0.3, self.silence))
        self.server.disk.make_room()

    def _now(self) -> float:
        """Return the time of the server's clock."""
        return time.time() + (self.clock.offset if self.clock else 0)

    def _victim(self) -> Worker:
        return self.chance.choice([worker for worker in self.workers.all if not worker.is_wrong])

    def _has_company(self, worker: Worker) -> bool:
        return sum(other.consumer == worker.consumer for other in self.workers.all) > 1

    def _stop(self, worker: Worker) -> list[int]:
        """Suspend a worker, in the middle of a page if it begins one soon; return the shards that it has claimed."""
        from hc_signals.postgres.locks import CLAIMS

        for _ in range(20):
            worker.process.send_signal(signal.SIGSTOP)
            if held := [row[0] for row in self.server.query(_HELD, [CLAIMS, worker.name])]:
                return held
            worker.process.send_signal(signal.SIGCONT)
            time.sleep(0.03)
        worker.process.send_signal(signal.SIGSTOP)
        return []

    def _watch(self, kind: str, worker: Worker, held: list[int], since: float) -> threading.Thread:
        """Measure in the background when another worker continues a claimed shard.

        With a change of the layout the measurement ends: shards of the old layout may never be seen again. The workers
        change it some time after they have got the new number.
        """
        voided, layout = self._voided, self.server.query(_LAYOUT, [worker.consumer])

        def watch() -> None:
            deadline = time.monotonic() + self.takeover
            while (first := self.server.query(_TAKEN_OVER, [worker.consumer, held, since])[0][0]) is None:
                if voided != self._voided or layout != self.server.query(_LAYOUT, [worker.consumer]):
                    return
                if time.monotonic() > deadline:
                    self.missed += 1
                    return
                time.sleep(0.02)
            if voided == self._voided:
                self.takeovers[kind].append(first - since)

        thread = threading.Thread(target=watch if held and self._has_company(worker) else lambda: None, daemon=True)
        thread.start()
        return thread
