"""Questions that any layer may ask of PostgreSQL: run a statement, judge an error, know a session, hold a lock.

The package knows no table and no model of hc_signals, and imports nothing of it but its exceptions. Every other layer
may import it. Two rules explain most of its modules.

1. The server session may not be ours. Behind a pooler, session state (SET, LISTEN, locks of the session, prepared
   statements) stays in a session that the pooler lends to other clients. So ``sessions.is_ours`` decides, and a session
   that is not ours gets settings to the end of the transaction only.
2. Role and database belong to the project. Its time limits, execute_wrappers and application_name hold for its code,
   and never end or change a statement of ours.

- ``query``: run one statement and return its rows; does a relation exist?
- ``errors``: the only module that knows SQLSTATEs: kind of an error, remedy, one line without contents of rows.
- ``trouble``: the failed tries of a thread: counted, logged at growing intervals, retried after growing pauses.
- ``sessions``: has a connection a server session of its own? Break one on which another thread is blocked.
- ``own_connections``: the worker's connections: options, names in pg_stat_activity, setup of the session.
- ``limits``: time limits and keepalives of our sessions and transactions; the project's, for its code.
- ``held_lock``: an advisory lock in a transaction that stays open, safe behind every pooler.
- ``locks``: the numbers of all advisory locks.
- ``side_connection``: send statements now, fetch their rows later.
- ``written_rows``: how many rows has the current transaction written, by table?
- ``wrappers``: keep the project's execute_wrappers from our statements.
- ``names``: quote names and literals; make texts fit for the database's encoding.
- ``hstore``: parse the text of an hstore.
- ``dates``: read dates that Python cannot hold.
- ``moments``: aware datetimes, shown in the project's time zone.

It must never name a table of ours, decide by the words of a message, leave a setting in a session that is not ours, or
log a value of a row.
"""
