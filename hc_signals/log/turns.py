"""Workers of one consumer that start at once take turns at its layout: its first position, its records split anew.

Whoever does either claims all shards, one by one. So would one who only comes to find that it is done: it would hold
the shards that it has got, and nobody would deliver them, while it waits for one at which the first is at work already.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction

from hc_signals.postgres.locks import CLAIMS


@contextmanager
def turn_at_layout(using: str, consumer: str) -> Iterator[None]:
    """Run the block in a transaction, as the only one of the consumer's workers; wait until that is so.

    A lock of the transaction: it ends with the connection of a worker that dies, and a transaction pooler cannot leave
    it to somebody else. Taken before any claim, so two cannot wait for each other.
    """
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            # Of the class of claims, beside those of the shards, which have numbers in this place.
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [CLAIMS, f"{consumer} layout"])
        yield
