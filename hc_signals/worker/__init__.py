"""The process of ``hc_listen``: deliver every committed change at once, sleep while there is none, never stop.

The package decides when a shard is delivered and when a thread sleeps; what a delivery is, hc_signals.delivery knows.
It owns no table. It owns the advisory lock BELL, and the sessions whose names begin with ``hc_listen``::

    Crew ──┬─ Worker 0 ─┐  one thread each: deliver a page of every shard with changes; nothing left? sleep
           ├─ Worker n ─┴─► Doorbell ── the sleepers of the process; one of them listens for all
           │                 ├── BellLock ────── held only during sleep: writers who cannot share it notify
           │                 └── BellConnection ─ LISTEN, pings, reconnect, poolers
           ├─ Chores ─────► rotation of the log, watch over capture, end of reloads, record of minutes
           └─ Watchdog ───► breaks connections of all threads that wait for an answer that never comes

A thread sleeps without losing a change because of the order of its steps: take the lock, then read the log once more,
then sleep. A writer that saw the lock free has committed before that read, or commits later and then notifies. The
proof is in migrations_sql/02_capture.sql; tests/machines/test_bell.py tries every order of steps.

A failed connection is found in two ways. TCP reports a dead host or network within 14 seconds. The watchdog breaks a
connection that something on the way keeps open without passing anything on. An idle connection waits for nothing, so
the doorbell pings: then the watchdog sees the wait. Work on a broken connection is rolled back and done again.

``crew`` starts and ends the threads; ``loop`` is the rounds of one worker, its connection, its retries after an error;
``threads`` lists workers and helpers for /healthz and the metrics. The other modules are in the drawing.

What it must never do:

- sleep with the lock released and the log not read since: a change would wait for the next poll;
- hold the lock while a thread is awake: every writer would notify for nothing;
- take session state (LISTEN, a lock of the session, SET) in a session that a pooler lends to other clients;
- end because of an error of the database: it retries, logs and shows the error, and goes on by itself;
- call a receiver, or a chore, in the thread that serves /healthz.
"""
