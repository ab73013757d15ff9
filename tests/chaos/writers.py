"""Hostile writers: they play Heroku Connect in transactions of every kind, and keep a ledger of the committed changes.

A change and its line in ``chaos_truth`` commit together, under the lock of the record's counter: so the versions of one
record rise in the order in which its changes happened.

There are two paces. In a storm half of the transactions change rows one by one, the others many rows with one
statement: the readers fall behind. In a calm there are small transactions with long pauses in them: the readers reach
the end of the log and sleep, and then meet commits that are late and out of order.
"""

import random
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg

SESSION = "SET xmlbinary = 'hex'; SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = 0"
"""Settings of a writer. The run sets the last one for receivers; after a jump of the clock it would end any session."""
TABLES = """
CREATE TABLE chaos_counter (
    record text PRIMARY KEY, version integer NOT NULL DEFAULT 0, alive boolean NOT NULL DEFAULT false, operation text
) WITH (fillfactor = 50);
INSERT INTO chaos_counter (record) SELECT lpad(n::text, 18, '0') FROM generate_series(0, %(records)s - 1) n;
CREATE TABLE chaos_other (id serial);
-- Heroku Connect's own triggers only slow the run down.
ALTER TABLE salesforce.account DISABLE TRIGGER hc_account_status_trigger;
ALTER TABLE salesforce.account DISABLE TRIGGER hc_account_logtrigger;

-- Changes the records, each as its dice say. Every statement has a new snapshot, so it sees the accounts as the lock on
-- the counters protects them.
CREATE FUNCTION chaos_change(records text[], dice float8[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    operations text[];
BEGIN
    PERFORM FROM chaos_counter WHERE record = ANY (records) ORDER BY record FOR UPDATE;
    WITH bumped AS (
        UPDATE chaos_counter c SET version = version + 1, alive = NOT alive OR d.number < 0.88,
            operation = CASE WHEN NOT alive THEN 'CREATE' WHEN d.number < 0.84 THEN 'UPDATE'
                             WHEN d.number < 0.88 THEN 'REKEY' ELSE 'DELETE' END
        FROM unnest(records, dice) d (record, number) WHERE c.record = d.record RETURNING c.operation
    )
    SELECT array_agg(DISTINCT operation) INTO operations FROM bumped;
    IF 'CREATE' = ANY (operations) THEN
        INSERT INTO salesforce.account (sfid, numberofemployees)
        SELECT record, version FROM chaos_counter WHERE record = ANY (records) AND operation = 'CREATE';
    END IF;
    IF operations && '{UPDATE,REKEY}' THEN  -- another key: a deletion and a creation
        UPDATE salesforce.account a SET numberofemployees = c.version,
            id = CASE c.operation WHEN 'REKEY' THEN nextval('salesforce.account_id_seq') ELSE a.id END
        FROM chaos_counter c
        WHERE a.sfid = c.record AND c.record = ANY (records) AND c.operation IN ('UPDATE', 'REKEY');
    END IF;
    IF 'DELETE' = ANY (operations) THEN
        DELETE FROM salesforce.account a USING chaos_counter c
        WHERE a.sfid = c.record AND c.record = ANY (records) AND c.operation = 'DELETE';
    END IF;
    -- A deletion carries the version before.
    INSERT INTO chaos_truth (record, operation, version)
    SELECT record, half.operation, version - (half.operation = 'DELETE')::int
    FROM chaos_counter c, unnest(CASE c.operation WHEN 'REKEY' THEN '{DELETE,CREATE}' ELSE ARRAY[c.operation] END)
        half (operation)
    WHERE record = ANY (records);
END
$$;
"""


class Writer(threading.Thread):
    """Writes until stopped; survives the loss of the server.

    Args:
        url: the server.
        seed: of all its choices.
        records: number of records.
        stop: ends the thread.
        storm: set during a storm: write as fast as possible.
    """

    connect = psycopg.connect

    def __init__(self, url: str, seed: int, records: int, stop: threading.Event, storm: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.records, self.stopping, self.storm = url, records, stop, storm
        self.chance = random.Random(seed)
        self.name, self.number = f"chaos {seed}", 0

    def run(self) -> None:
        """Write until stopped."""
        while not self.stopping.is_set():
            with suppress(psycopg.OperationalError), self.connect(self.url) as connection:
                connection.execute(SESSION)
                connection.commit()
                self.finish_prepared(connection)
                while not self.stopping.is_set():
                    self.transaction(connection)
                    if not self.storm.is_set():
                        self.stopping.wait(self.chance.random() * 0.05)

    def transaction(self, connection: Any) -> None:
        """One transaction of some statements, with pauses, savepoints, rollbacks and two-phase commits among them."""
        storm = self.storm.is_set()
        statements, rows = self.chance.randint(1, 4), 1
        if storm and self.chance.random() < 0.5:
            rows = self.chance.randint(2, 25)
        # In one order, else the writers would spend their time in deadlocks.
        chosen = sorted(self.chance.sample(range(self.records), min(self.records, statements * rows)))
        try:
            for first in range(0, len(chosen), rows):
                self.change(connection, [f"{record:018d}" for record in chosen[first : first + rows]])
                if self.chance.random() < (0.1 if storm else 0.6):
                    time.sleep(self.chance.random() * 0.02)
            self.end(connection)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            connection.rollback()

    def end(self, connection: Any) -> None:
        """Commit, roll back, or prepare and then either."""
        dice = self.chance.random()
        if dice < 0.1:
            connection.rollback()
        elif dice < 0.15:
            self.prepare(connection)
        else:
            connection.commit()

    def prepare(self, connection: Any) -> None:
        """End by two-phase commit."""
        self.number += 1
        name = f"{self.name} {self.number}"
        try:
            connection.execute(f"PREPARE TRANSACTION '{name}'")
        except psycopg.errors.FeatureNotSupported:  # it has notified
            connection.rollback()
            return
        connection.autocommit = True
        time.sleep(self.chance.random() * 0.05)
        connection.execute(f"{'COMMIT' if self.chance.random() < 0.7 else 'ROLLBACK'} PREPARED '{name}'")
        connection.autocommit = False

    def finish_prepared(self, connection: Any) -> None:
        """End transactions that were prepared when the connection was lost: their locks would block all writers."""
        connection.autocommit = True
        prepared = "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, %s)"
        for (name,) in connection.execute(prepared, [f"{self.name} "]).fetchall():
            connection.execute(f"{'COMMIT' if self.chance.random() < 0.7 else 'ROLLBACK'} PREPARED '{name}'")
        connection.autocommit = False

    def change(self, connection: Any, records: list[str]) -> None:
        """Change some records, sometimes inside a savepoint, which is sometimes rolled back."""
        dice = [self.chance.random() for _ in records]
        if self.chance.random() < 0.2:
            with suppress(_TakenBack), connection.transaction():
                connection.execute("SELECT chaos_change(%s, %s)", [records, dice])
                if self.chance.random() < 0.5:
                    raise _TakenBack
        else:
            connection.execute("SELECT chaos_change(%s, %s)", [records, dice])


class _TakenBack(Exception):
    pass


class OtherSession(threading.Thread):
    """Holds an unrelated transaction open that has written; it must not delay delivery."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.stopping = url, stop

    def run(self) -> None:
        """Hold transactions of a few seconds until stopped."""
        while not self.stopping.is_set():
            with suppress(psycopg.OperationalError), psycopg.connect(self.url) as connection:
                connection.execute(SESSION)
                connection.execute("INSERT INTO chaos_other DEFAULT VALUES")
                self.stopping.wait(3)
