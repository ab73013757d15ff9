"""Hostile writers: they play Heroku Connect in transactions of every kind, and keep the ledger of what they committed.

A change and its line in ``chaos_truth`` commit together, under the lock of the record's counter: so the versions of one
record rise in the order in which its changes happened.
"""

import random
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg

RECORDS = 150


class Writer(threading.Thread):
    """Writes until told to stop; survives the loss of the server."""

    def __init__(self, url: str, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.stopping, self.chance = url, stop, random.Random(seed)
        self.number = 0

    def run(self) -> None:
        """Write until stopped."""
        while not self.stopping.is_set():
            with suppress(psycopg.OperationalError), psycopg.connect(self.url) as connection:
                connection.execute("SET xmlbinary = 'hex'; SET lock_timeout = '2s'")
                connection.commit()
                while not self.stopping.is_set():
                    self.transaction(connection)

    def transaction(self, connection: Any) -> None:
        """One transaction of a few changes, with pauses, savepoints, rollbacks and two-phase commits among them."""
        try:
            for record in sorted(self.chance.sample(range(RECORDS), self.chance.randint(1, 4))):
                self.change(connection, f"{record:018d}")
                if self.chance.random() < 0.1:
                    time.sleep(self.chance.random() * 0.02)
            self.end(connection)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            connection.rollback()

    def end(self, connection: Any) -> None:
        dice = self.chance.random()
        if dice < 0.1:
            connection.rollback()
        elif dice < 0.15:
            self.number += 1
            name = f"chaos {threading.get_ident()} {self.number}"
            try:
                connection.execute(f"PREPARE TRANSACTION '{name}'")
            except psycopg.errors.FeatureNotSupported:  # it has rung the bell
                connection.rollback()
                return
            connection.autocommit = True
            time.sleep(self.chance.random() * 0.05)
            connection.execute(f"{'COMMIT' if self.chance.random() < 0.7 else 'ROLLBACK'} PREPARED '{name}'")
            connection.autocommit = False
        else:
            connection.commit()

    def change(self, connection: Any, record: str) -> None:
        """Change one record, sometimes inside a savepoint, sometimes only to take it back."""
        if self.chance.random() < 0.2:
            with suppress(_TakenBack), connection.transaction():
                self.write(connection, record)
                if self.chance.random() < 0.5:
                    raise _TakenBack
        else:
            self.write(connection, record)

    def write(self, connection: Any, record: str) -> None:
        row = connection.execute(
            "UPDATE chaos_counter SET version = version + 1 WHERE record = %s RETURNING version, alive", [record]
        ).fetchone()
        version, alive = row
        operation = "UPDATE" if alive and self.chance.random() < 0.85 else "DELETE" if alive else "CREATE"
        if operation == "CREATE":
            statement = "INSERT INTO salesforce.account (numberofemployees, sfid) VALUES (%s, %s)"
        elif operation == "UPDATE":
            statement = "UPDATE salesforce.account SET numberofemployees = %s WHERE sfid = %s"
            if self.chance.random() < 0.05:  # the row gets another key: a deletion and a creation
                statement = statement.replace("SET", "SET id = nextval('salesforce.account_id_seq'),")
                operation = "REKEY"
        else:
            # an update first would be one more change: the deletion carries the version before
            statement = "DELETE FROM salesforce.account WHERE %s > 0 AND sfid = %s"
        connection.execute(statement, [version, record])
        connection.execute("UPDATE chaos_counter SET alive = %s WHERE record = %s", [operation != "DELETE", record])
        connection.execute(
            "INSERT INTO chaos_truth (record, version, operation) VALUES (%s, %s, %s)", [record, version, operation]
        )


class _TakenBack(Exception):
    pass


class Stranger(threading.Thread):
    """Holds a transaction open that has written something else; it must cost nothing."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.stopping = url, stop

    def run(self) -> None:
        """Hold transactions of a few seconds until stopped."""
        while not self.stopping.is_set():
            with suppress(psycopg.OperationalError), psycopg.connect(self.url) as connection:
                connection.execute("INSERT INTO chaos_stranger DEFAULT VALUES")
                self.stopping.wait(3)
