"""pgqueuer on psycopg 3: one worker drains waiting jobs."""

import asyncio
import json
import os
import sys
import time

import psycopg
from pgqueuer import PgQueuer
from pgqueuer.db import PsycopgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

COUNT = int(os.environ["COUNT"])
PAYLOAD = json.dumps({f"column_{number}": f"value {number}" for number in range(24)}).encode()
BATCH = 500
"""Jobs per batch: as many as our page has. Its default of 10 is slower."""


async def main() -> None:
    """Enqueue, drain, print the seconds."""
    connection = await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)
    driver = PsycopgDriver(connection)
    queries = Queries(driver)
    await queries.install()
    await queries.enqueue(["receive"] * COUNT, [PAYLOAD] * COUNT, [0] * COUNT)
    delivered, last = 0, 0.0
    queuer = PgQueuer(driver)

    @queuer.entrypoint("receive")
    async def receive(job: Job) -> None:
        nonlocal delivered, last
        delivered, last = delivered + 1, time.perf_counter()

    began = time.perf_counter()
    await queuer.qm.run(batch_size=BATCH, mode=QueueExecutionMode.drain)
    seconds = last - began  # it stops some time later
    if delivered != COUNT:
        sys.exit(f"{delivered} of {COUNT} were delivered")
    print(json.dumps({"seconds": seconds}))


asyncio.run(main())
