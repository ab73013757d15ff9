"""pgqueuer: a trigger enqueues a job for each change; one job at a time, retries in the database, ``pgq run``."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from tests.chaos.peers.system import TRIGGER, System

# fn_pgqueuer_enqueue is the function of pgqueuer's page "PostgREST Integration".
ENQUEUE = """
CREATE FUNCTION fn_pgqueuer_enqueue(
    entrypoint text, payload bytea DEFAULT NULL, priority int DEFAULT 0, execute_after interval DEFAULT '0'::interval,
    dedupe_key text DEFAULT NULL, headers jsonb DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _job_id bigint;
BEGIN
    INSERT INTO pgqueuer (priority, entrypoint, payload, execute_after, dedupe_key, headers, status)
    VALUES (priority, entrypoint, payload, now() + execute_after, dedupe_key, headers, 'queued')
    RETURNING id INTO _job_id;
    INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority) VALUES (_job_id, 'queued', entrypoint, priority);
    RETURN _job_id;
END
$$;
CREATE FUNCTION chaos_enqueue(record text, operation text, version integer) RETURNS void LANGUAGE sql AS $$
    SELECT fn_pgqueuer_enqueue('keep', convert_to(jsonb_build_array(record, operation, version)::text, 'UTF8'))
$$;
"""
KEEP = "INSERT INTO chaos_ledger (consumer, record, operation, version) VALUES ('it', $1, $2, $3)"

SYSTEM = System(
    name="pgqueuer",
    label="pgqueuer",
    install=(
        ("-m", "tests.chaos.peers.systems.pgqueuer", "install"),
        ("-m", "tests.chaos.peers.systems.pgqueuer", "autovac"),
    ),
    work=(
        *("-m", "pgqueuer", "run", "tests.chaos.peers.systems.pgqueuer:main"),
        *("--shutdown-on-listener-failure", "--dequeue-timeout", "5"),
    ),
    sql=ENQUEUE + TRIGGER,
)


@asynccontextmanager
async def main() -> AsyncIterator[Any]:
    """Make the worker: a connection for the queue, and a pool for the jobs."""
    import asyncpg
    from pgqueuer import PgQueuer
    from pgqueuer.executors import DatabaseRetryEntrypointExecutor
    from pgqueuer.models import Context, Job

    url = os.environ["DATABASE_URL"]
    pool = await asyncpg.create_pool(url, min_size=1, max_size=4)
    queuer = PgQueuer.from_asyncpg_connection(await asyncpg.connect(url), resources={"pool": pool})

    @queuer.entrypoint(
        "keep",
        concurrency_limit=1,
        on_failure="hold",
        executor_factory=lambda parameters: DatabaseRetryEntrypointExecutor(
            parameters=parameters, max_attempts=20, initial_delay=timedelta(seconds=1), max_delay=timedelta(seconds=5)
        ),
    )
    async def keep(job: Job, context: Context) -> None:
        await context.resources["pool"].execute(KEEP, *json.loads(job.payload or b""))

    yield queuer


if __name__ == "__main__":
    import subprocess
    import sys

    command = [sys.executable, "-m", "pgqueuer", "--pg-dsn", os.environ["DATABASE_URL"], *sys.argv[1:]]
    sys.exit(subprocess.run(command, check=False).returncode)
