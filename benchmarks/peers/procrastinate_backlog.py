"""procrastinate on psycopg 3: one worker works off waiting jobs, one by one."""

import asyncio
import json
import os
import sys
import time

import procrastinate

COUNT = int(os.environ["COUNT"])
ARGUMENTS = {f"column_{number}": f"value {number}" for number in range(24)}
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))
delivered, last = 0, 0.0


@app.task(name="receive")
async def receive(**record: str) -> None:
    """Count the calls and note the time of the last one."""
    global delivered, last
    delivered, last = delivered + 1, time.perf_counter()


async def main() -> None:
    """Defer the jobs, work them off, print the seconds."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await receive.batch_defer_async(*[ARGUMENTS] * COUNT)
        began = time.perf_counter()
        await app.run_worker_async(wait=False, install_signal_handlers=False)
        seconds = last - began
    if delivered != COUNT:
        sys.exit(f"{delivered} of {COUNT} were delivered")
    print(json.dumps({"seconds": seconds}))


asyncio.run(main())
