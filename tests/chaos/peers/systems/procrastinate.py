"""procrastinate: a trigger defers a job for each change, locked by its record; a periodic task retries stalled jobs."""

import os
from typing import Any

from tests.chaos.peers.system import KEEP, TRIGGER, System

ENQUEUE = """
CREATE FUNCTION chaos_enqueue(record text, operation text, version integer) RETURNS void LANGUAGE sql AS $$
    SELECT procrastinate_defer_jobs_v1(ARRAY[
        ROW('default', 'keep', 0, record, NULL,
            jsonb_build_object('record', record, 'operation', operation, 'version', version), NULL
        )::procrastinate_job_to_defer_v1
    ])
$$;
"""
_APP = "--app=tests.chaos.peers.systems.procrastinate.app"

SYSTEM = System(
    name="procrastinate",
    label="procrastinate",
    install=(("-m", "procrastinate", _APP, "schema", "--apply"),),
    work=("-m", "procrastinate", "--log-level", "warning", _APP, "worker"),
    promises=frozenset({"order"}),
    sql=ENQUEUE + TRIGGER,
)


def _make() -> Any:
    import procrastinate
    import psycopg

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))
    connections: list[psycopg.AsyncConnection[Any]] = []

    @app.task(name="keep", retry=procrastinate.RetryStrategy(wait=1))
    async def keep(record: str, operation: str, version: int) -> None:
        """Append one change; without an end of retries."""
        if not connections or connections[0].closed:
            connections[:] = [await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)]
        await connections[0].execute(KEEP, [record, operation, version])

    # As on the page "Retry stalled jobs", though 60 times as often.
    @app.periodic(cron="* * * * * */10")
    @app.task(queueing_lock="retry_stalled_jobs", pass_context=True)
    async def retry_stalled_jobs(context: Any, timestamp: int) -> None:
        for job in await app.job_manager.get_stalled_jobs():
            await app.job_manager.retry_job(job)

    return app


def __getattr__(name: str) -> Any:
    """Make the app when the command asks for it: the conductor of the run has no procrastinate."""
    if name != "app":
        raise AttributeError(name)
    globals()["app"] = _make()
    return globals()["app"]
