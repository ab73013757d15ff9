"""The limits that PostgreSQL sets to sessions, statements and transactions, as our own sessions need them.

Role or database may have others, small ones: made for the requests of a site, they would end a session that listens, or
a chore that takes its time.
"""

from typing import Any

OWN_LIMITS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
    "transaction_timeout": "0",
    "jit": "off",
}
"""0 means none. A transaction that a suspended process has left open must end, or it holds its locks for ever. No
statement of ours is worth compiling."""

# transaction_timeout exists from PostgreSQL 17 on; to set an unknown one is an error.
_SET = """
SELECT set_config(name, value, %s) FROM unnest(%s::text[], %s::text[]) AS limits (name, value)
WHERE name <> 'transaction_timeout' OR current_setting('server_version_num')::int >= 170000
"""


def own_limits(*, is_local: bool, **limits: str) -> tuple[str, list[Any]]:
    """Return the statement, with its parameters, that gives a session of ours its own limits.

    Args:
        is_local: only to the end of the transaction. That is right everywhere; for the whole session it is right only
            where the session is ours alone, not a pooler's.
        limits: other values than those of OWN_LIMITS.
    """
    wanted = {**OWN_LIMITS, **limits}
    return _SET, [is_local, list(wanted), list(wanted.values())]
