"""The probe: triggers without a WHEN, for a time, that note which statements reach a table, and from which sessions.

They note no values of records. They do nothing once the session is gone that holds the lock PROBE, also after a kill;
:func:`remove_abandoned` removes such ones. They raise no error and wait at most a tenth of a second for anything.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError, connections, models

from hc_signals.capture.install import drop_function_sql, run_in_turn
from hc_signals.capture.triggers import always_sql
from hc_signals.conf import origin_rules
from hc_signals.origins import APP, origin_sql
from hc_signals.postgres.locks import PROBE
from hc_signals.postgres.moments import aware_row
from hc_signals.postgres.names import literal, quote
from hc_signals.postgres.query import execute, relation_exists, row, rows
from hc_signals.tables import quoted_table, table_label

_FUNCTION_PREFIX = "hc_signals_probe_"
_TABLE = "public.hc_signals_probed"
IS_ENDED = f"pg_catalog.pg_try_advisory_xact_lock({PROBE[0]}, {PROBE[1]})"
"""SQL that takes the lock of a probe to the end of the transaction; false while a probe holds it."""

_CREATE_TABLE = f"""
CREATE UNLOGGED TABLE {_TABLE} (
    id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    table_name text, operation text, statement text, row_count bigint, application_name text, session_role text,
    current_role_name text, xmlbinary text, replication_role text, variables json, origin text)
"""
# DELETE ... RETURNING, so that a transaction that commits late is read late and once, whatever its ids.
_TAKE = f"""
WITH taken AS (DELETE FROM {_TABLE} RETURNING *)
SELECT at, table_name, operation, statement, row_count, application_name, session_role, current_role_name, xmlbinary,
    replication_role, variables, origin
FROM taken ORDER BY id
"""
# The function runs as its owner, so current_user is of no use: `role` has what SET ROLE has set.
_BODY = """
DECLARE
    counted bigint;
    query text := left(current_query(), 4000) || right(current_query(), 2000);
    word text;
BEGIN
    IF pg_try_advisory_lock_shared({lock}) THEN  -- the probe has ended
        PERFORM pg_advisory_unlock_shared({lock});
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        SELECT count(*) INTO counted FROM hc_old;
    ELSIF TG_OP <> 'TRUNCATE' THEN
        SELECT count(*) INTO counted FROM hc_new;
    END IF;
    query := regexp_replace(query, '/[*]([^*]|[*]+[^*/])*[*]+/|--[^\\n]*|''[^'']*''', ' ', 'g');
    word := upper(substring(ltrim(query, E' \\t\\r\\n(;') FROM '^[A-Za-z]+'));
    INSERT INTO {table} (table_name, operation, statement, row_count, application_name, session_role,
        current_role_name, xmlbinary, replication_role, variables, origin)
    VALUES (TG_ARGV[0], TG_OP,
        CASE WHEN pg_trigger_depth() > 1 THEN 'trigger'
            WHEN word = 'MERGE' OR query ~* '^[^;]*\\mmerge\\s+into\\M' THEN 'MERGE'
            WHEN word = 'COPY' THEN 'COPY'
            WHEN word IN ('SELECT', 'CALL', 'DO', 'EXECUTE') THEN word
            WHEN query ~* '\\mon\\s+conflict\\M' THEN 'INSERT ON CONFLICT'
            ELSE TG_OP END,
        counted, current_setting('application_name'), current_setting('session_authorization'),
        CASE current_setting('role') WHEN 'none' THEN current_setting('session_authorization')
            ELSE current_setting('role') END,
        current_setting('xmlbinary'), current_setting('session_replication_role'), {variables}, {origin});
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
"""
_REFERENCING = {
    "INSERT": "REFERENCING NEW TABLE AS hc_new ",
    "UPDATE": "REFERENCING NEW TABLE AS hc_new ",
    "DELETE": "REFERENCING OLD TABLE AS hc_old ",
    "TRUNCATE": "",
}


@dataclass(frozen=True)
class Statement:
    """One statement that has reached a table, as the probe has noted it."""

    at: datetime
    table: str
    operation: str
    """INSERT, UPDATE, DELETE or TRUNCATE. One MERGE or INSERT ... ON CONFLICT can be two."""
    statement: str
    """The command, by the first words of the query: COPY, MERGE, INSERT ON CONFLICT, DO, trigger ..."""
    rows: int | None
    """None for a TRUNCATE."""
    application_name: str
    session_role: str
    """The role of the login."""
    current_role: str
    """The role that SET ROLE has set, else that of the login."""
    xmlbinary: str
    replication_role: str
    variables: dict[str, str | None]
    origin: str

    @property
    def fits(self) -> bool:
        """True if a rule of ORIGINS fits the session."""
        return self.origin != APP


def prepare(using: str) -> None:
    """Remove what an earlier probe has left, and create the table for the notes. The caller holds the lock PROBE."""
    remove(using)
    execute(using, _CREATE_TABLE)


def install(model: type[models.Model], using: str, variables: Sequence[str]) -> None:
    """Install the probe on one table; raise OperationalError if it stays locked."""
    run_in_turn(using, lambda: _install_sql(model, variables))


def _install_sql(model: type[models.Model], variables: Sequence[str]) -> list[str]:
    table, name = quoted_table(model), _function_name(model)
    pairs = ", ".join(f"{literal(each)}, current_setting({literal(each)}, true)" for each in variables)
    body = _BODY.format(
        lock=f"{PROBE[0]}, {PROBE[1]}",
        table=_TABLE,
        variables=f"json_build_object({pairs})",
        origin=origin_sql(origin_rules()),
    )
    settings = (
        "SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' SET jit = off "
        "SET standard_conforming_strings = on"
    )
    function = (
        f"CREATE OR REPLACE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {settings} "
        f"AS $hc_probe${body}$hc_probe$"
    )
    triggers = [
        f"CREATE TRIGGER {quote(_trigger_name(operation))} AFTER {operation} ON {table} {referencing}"
        f"FOR EACH STATEMENT EXECUTE FUNCTION public.{name}({literal(table_label(model))})"
        for operation, referencing in _REFERENCING.items()
    ]
    always = always_sql(table, map(_trigger_name, _REFERENCING))
    return [function, f"REVOKE ALL ON FUNCTION public.{name}() FROM PUBLIC", *triggers, always]


def _trigger_name(operation: str) -> str:
    # Not hc_signals_...: the triggers of capture have not changed.
    return f"hc_probe_{operation.lower()}"


def _function_name(model: type[models.Model]) -> str:
    return _FUNCTION_PREFIX + hashlib.sha256(table_label(model).encode()).hexdigest()[:16]


def take(using: str) -> list[Statement]:
    """Return the statements that have committed since the last call."""
    return [Statement(*aware_row(found)) for found in rows(using, _TAKE)]


def remove(using: str, attempts: int = 5) -> None:
    """Remove every probe, one table per transaction; raise OperationalError if one stays locked."""
    for function in _functions(using):
        run_in_turn(using, lambda function=function: [drop_function_sql(function)], attempts)  # type: ignore[misc]
    if relation_exists(using, _TABLE):
        run_in_turn(using, lambda: [f"DROP TABLE IF EXISTS {_TABLE}"], attempts)


def remove_abandoned(using: str) -> bool:
    """Remove probes whose process has ended; return True if there were any, and they are removed.

    It gives up on a locked table or without the right; the next call tries again.
    """
    if not _functions(using) and not relation_exists(using, _TABLE):
        return False
    try:
        if not row(using, f"SELECT {IS_ENDED}")[0]:
            return False
        remove(using, attempts=1)
    except DatabaseError:
        if connections[using].in_atomic_block:
            raise
        return False
    return True


def _functions(using: str) -> list[str]:
    found = rows(
        using,
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND starts_with(proname, %s) "
        "ORDER BY 1",
        [_FUNCTION_PREFIX],
    )
    return [name for (name,) in found]
