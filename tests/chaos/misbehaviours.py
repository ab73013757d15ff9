"""Receivers that misbehave in each way of docs/receivers.md: no other receiver may lose or repeat an effect.

A call misbehaves once for an event; the retry succeeds. A file with the name of the way marks it: files survive every
rollback and the end of the process, and the run counts them.
"""

import asyncio
import hashlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from django.db import Error, connections, transaction

IDLE_SECONDS = 10
"""idle_in_transaction_session_timeout of the run's database."""
ONE_IN = 1000
"""One event in so many meets a receiver that misbehaves."""
DEAR_ONE_IN = 20
"""One in so many of the chosen events meets the ways in DEAR, which take seconds."""
_held: list[Any] = []
"""References that keep objects from the garbage collector."""


class _Bare(BaseException):
    pass


def _sql(using: str, statement: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(statement)


def raises_base_exception(using: str, name: str) -> None:
    raise _Bare


def raises_a_group(using: str, name: str) -> None:
    raise BaseExceptionGroup("several", [_Bare(), ValueError()])


def exits(using: str, name: str) -> None:
    sys.exit(3)


def catches_a_database_error(using: str, name: str) -> None:
    with suppress(Error):
        _sql(using, "SELECT 1 / 0")


def leaves_a_setting(using: str, name: str) -> None:
    _sql(using, "SET search_path = pg_catalog")


def leaves_a_local_setting(using: str, name: str) -> None:
    _sql(using, "SET LOCAL xmlbinary = 'hex'")


def leaves_a_configured_setting(using: str, name: str) -> None:
    _sql(using, "SELECT set_config('statement_timeout', '1', false)")


def leaves_a_role(using: str, name: str) -> None:
    _sql(using, "SET ROLE pg_monitor")


def leaves_a_row_factory(using: str, name: str) -> None:
    connections[using].ensure_connection()
    connections[using].connection.row_factory = psycopg.rows.dict_row


def leaves_a_cursor_factory(using: str, name: str) -> None:
    connections[using].ensure_connection()
    connections[using].connection.cursor_factory = psycopg.ServerCursor


def commits(using: str, name: str) -> None:
    _sql(using, "COMMIT")


def commits_past_django(using: str, name: str) -> None:
    connections[using].connection.execute("COMMIT")


def commits_by_the_driver(using: str, name: str) -> None:
    connections[using].connection.commit()


def prepares(using: str, name: str) -> None:
    _sql(using, f"PREPARE TRANSACTION 'receiver {name}'")


def rolls_back(using: str, name: str) -> None:
    _sql(using, "ROLLBACK")


def rolls_back_and_begins(using: str, name: str) -> None:
    _sql(using, "ROLLBACK")
    _sql(using, "BEGIN")


def closes_the_connection(using: str, name: str) -> None:
    connections[using].close()


def leaves_a_copy_open(using: str, name: str) -> None:
    _sql(using, "COPY chaos_gap FROM STDIN")


def leaves_a_block_open(using: str, name: str) -> None:
    transaction.atomic(using=using).__enter__()


def leaves_the_rollback_mark(using: str, name: str) -> None:
    transaction.set_rollback(True, using=using)


def leaves_a_cursor_that_fails_at_the_commit(using: str, name: str) -> None:
    _sql(using, "DECLARE late CURSOR WITH HOLD FOR SELECT 1 / (3 - g) FROM generate_series(1, 5) g")
    raise RuntimeError


def violates_a_deferred_constraint(using: str, name: str) -> None:
    _sql(
        using,
        "INSERT INTO django_admin_log (action_time, object_repr, action_flag, change_message, user_id) "
        "VALUES (now(), '', 1, '', 4711)",
    )


def leaves_another_database_open(using: str, name: str) -> None:
    connections["other"].set_autocommit(False)
    _sql("other", "INSERT INTO chaos_gap VALUES ('other', 'must be rolled back')")


def leaves_a_task(using: str, name: str) -> Any:
    async def leave() -> None:
        _held.append(asyncio.get_running_loop().create_task(asyncio.sleep(10)))

    return leave()


def is_a_generator(using: str, name: str) -> Any:
    def generator() -> Any:
        yield

    return generator()


def leaves_an_alarm(using: str, name: str) -> None:
    signal.alarm(100)


def forks(using: str, name: str) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)


def hook_leaves_a_setting(using: str, name: str) -> None:
    transaction.on_commit(lambda: _sql(using, "SET search_path = pg_catalog"), using=using)


def hook_leaves_a_copy_open(using: str, name: str) -> None:
    transaction.on_commit(lambda: _sql(using, "COPY chaos_gap TO STDOUT"), using=using)


def hook_closes_the_connection(using: str, name: str) -> None:
    transaction.on_commit(connections[using].close, using=using)


def sleeps_past_the_idle_timeout(using: str, name: str) -> None:
    _sql(using, "SELECT 1")
    time.sleep(IDLE_SECONDS + 0.3)


def ends_the_process(using: str, name: str) -> None:
    os._exit(1)


DEAR = (sleeps_past_the_idle_timeout, ends_the_process)
WAYS: tuple[Callable[[str, str], Any], ...] = (
    raises_base_exception,
    raises_a_group,
    exits,
    catches_a_database_error,
    leaves_a_setting,
    leaves_a_local_setting,
    leaves_a_configured_setting,
    leaves_a_role,
    leaves_a_row_factory,
    leaves_a_cursor_factory,
    commits,
    commits_past_django,
    commits_by_the_driver,
    prepares,
    rolls_back,
    rolls_back_and_begins,
    closes_the_connection,
    leaves_a_copy_open,
    leaves_a_block_open,
    leaves_the_rollback_mark,
    leaves_a_cursor_that_fails_at_the_commit,
    violates_a_deferred_constraint,
    leaves_another_database_open,
    leaves_a_task,
    is_a_generator,
    leaves_an_alarm,
    forks,
    hook_leaves_a_setting,
    hook_leaves_a_copy_open,
    hook_closes_the_connection,
)


def misbehave(event: Any, using: str, **kwargs: Any) -> Any:
    """Misbehave at some events, each time in one way."""
    name = hashlib.sha256(event.event_id.encode()).hexdigest()
    which, is_dear, chosen = int(name[:8], 16), int(name[8:16], 16) % DEAR_ONE_IN == 0, int(name[16:24], 16)
    if chosen % ONE_IN or event.attempt > 1:
        return None
    ways = DEAR if is_dear else WAYS
    way = ways[which % len(ways)]
    marker = Path(os.environ["CHAOS_MISBEHAVIOURS"]) / f"{way.__name__} {os.environ['CHAOS_CONSUMER']} {name}"
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return None
    return way(using, name[:16])


def count(directory: Path) -> Counter[str]:
    """Return how often a receiver has misbehaved in each way."""
    return Counter(path.name.partition(" ")[0] for path in directory.iterdir())
