-- The change log, part 1 of 3: its tables.
--
-- Run the three files with psql, in order, or by `manage.py migrate hc_signals`: both give the same catalog.
-- They lock no table that exists already.

-- CACHE 1: a writer draws the id while it holds the row lock of the changed record. So the ids of one record are in the
-- order of its changes. A session's cached range of ids would break that.
CREATE SEQUENCE public.hc_signals_change_id_seq AS bigint CACHE 1;

-- Counts statements whose changes are not in the log. A sequence survives a rollback, needs no table lock, and cannot
-- fail on a constraint.
CREATE SEQUENCE public.hc_signals_lost_seq AS bigint CACHE 1;


-- The number of the bucket for changes of this moment, out of eight. Each holds twelve hours of changes, so a number is
-- used again after 96 hours. A bucket that could not be emptied by that time gets new rows as well: retention grows,
-- and no change is lost. With RETURN the names in it are resolved here, whatever search_path the caller has.
CREATE FUNCTION public.hc_signals_bucket() RETURNS smallint
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (floor(extract(epoch FROM clock_timestamp()) / 43200)::bigint % 8)::smallint;


-- What was changed. Capture functions append to it in the writer's transaction; nothing updates it. Old buckets are
-- emptied by TRUNCATE, so an old snapshot that some session holds leaves no dead rows behind.
CREATE TABLE public.hc_signals_change (
    id bigint NOT NULL DEFAULT nextval('public.hc_signals_change_id_seq'::regclass),
    -- Not the system column xmin: inside a savepoint xmin is the sub-transaction, and snapshots do not list those.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    captured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    table_name text NOT NULL,
    operation text NOT NULL,
    origin text NOT NULL,
    record_key text,
    record_id text,
    changed text[],
    -- The row before and after. The old image of an update may have the changed columns only.
    old json,
    new json,
    -- What a row says beyond the change of one record: cause and times of a gap, counts of a reload, the consumer and
    -- the receivers that a snapshot is for.
    note json,
    -- 1 for Heroku Connect's own statement, more for a statement that a customer's trigger ran inside it.
    depth smallint NOT NULL DEFAULT pg_trigger_depth(),
    bucket smallint NOT NULL DEFAULT public.hc_signals_bucket()
) PARTITION BY LIST (bucket);

ALTER SEQUENCE public.hc_signals_change_id_seq OWNED BY public.hc_signals_change.id;

-- No vacuum_truncate: it locks out writers for a moment, and a writer does not wait for us.
-- Replica identity FULL: hc_signals_reorder() deletes. If a publication covers a table without replica identity,
-- PostgreSQL refuses the DELETE; FOR ALL TABLES covers these. It makes an INSERT no slower.
DO $$
BEGIN
    FOR bucket IN 0 .. 7 LOOP
        EXECUTE format('CREATE TABLE public.hc_signals_change_%s PARTITION OF public.hc_signals_change '
                       'FOR VALUES IN (%s) WITH (vacuum_truncate = false)', bucket, bucket);
        EXECUTE format('ALTER TABLE public.hc_signals_change_%s REPLICA IDENTITY FULL', bucket);
    END LOOP;
END
$$;

CREATE INDEX hc_signals_change_id_idx ON public.hc_signals_change (id);
CREATE INDEX hc_signals_change_xid_idx ON public.hc_signals_change (xid, id);
-- Usually empty: see hc_signals_reorder().
CREATE INDEX hc_signals_change_nested_idx ON public.hc_signals_change (xid, depth, id) WHERE depth > 1;

-- The server's timeline. It changes when a standby is promoted, or a server is forked or recovered to a point in time.
-- The system_identifier stays. The name of a WAL file shows it at once, pg_control_checkpoint() only after a
-- checkpoint. NULL on a server in recovery.
CREATE FUNCTION public.hc_signals_timeline() RETURNS integer
LANGUAGE sql VOLATILE
AS $$ SELECT CASE WHEN NOT pg_is_in_recovery()
                  THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END $$;

-- One row. The epoch is part of every replay id. It changes when the log goes on somewhere else, where ids are drawn a
-- second time. It rises, so an application that keeps the highest replay id skips no later change. The log goes on
-- somewhere else if server, database, this table or timeline differ from the values stored here. If more than the
-- timeline differs, stored transaction ids mean nothing.
CREATE TABLE public.hc_signals_control (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    epoch text NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    control_oid oid NOT NULL,   -- of this table: another one if a dump was restored into its own database
    timeline integer NOT NULL,
    paused_at timestamptz,      -- when `hc_triggers pause` switched capture off; NULL: it is on
    is_removed boolean NOT NULL DEFAULT false,  -- `hc_triggers pause --remove` took it off every table
    gap_since timestamptz,      -- when a pause began whose gap is not written yet
    max_bucket_bytes bigint,    -- largest size of the newest bucket, with or without a worker; NULL: unbounded
    emptied_id bigint NOT NULL DEFAULT 0,   -- the newest change that was emptied from the log, and when it was
    emptied_at timestamptz                  -- captured: a replay of older ones would be incomplete
) WITH (vacuum_truncate = false);

-- The next epoch: eight hexadecimal digits of seconds since 1970, or one more than the last if the clock went back;
-- then four random ones, because two copies of one database may go on in the same second.
CREATE FUNCTION public.hc_signals_next_epoch(epoch text) RETURNS text
LANGUAGE sql VOLATILE
AS $$ SELECT lpad(to_hex(greatest(extract(epoch FROM clock_timestamp())::bigint,
                                  ('x' || left(epoch, 8))::bit(32)::bigint + 1)), 8, '0')
             || left(md5(gen_random_uuid()::text), 4) $$;

INSERT INTO public.hc_signals_control (epoch, system_identifier, database_oid, control_oid, timeline)
SELECT public.hc_signals_next_epoch('00000000'), (pg_control_system()).system_identifier, oid,
       'public.hc_signals_control'::regclass, public.hc_signals_timeline()
FROM pg_database WHERE datname = current_database();

-- How far each consumer is in each of its shards. A worker appends a row per page, and the index finds the newest. A
-- row that is updated forever gets slow while any session holds an old snapshot.
CREATE TABLE public.hc_signals_position (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    shard smallint NOT NULL,
    shards smallint NOT NULL,
    seen pg_snapshot NOT NULL,      -- all changes visible in this snapshot are delivered
    floor_id bigint NOT NULL,       -- transactions that began after `seen` have only ids above this one;
    floor_xid xid8 NOT NULL,        -- they have xids from this one on: xmax of `seen` may lie far below
    target pg_snapshot,             -- the open window: visible in target, not in seen; NULL: no window is open
    ceiling_id bigint,              -- all changes visible in `target` have ids up to this one
    next_floor_id bigint,           -- floor_id and floor_xid of the next window
    next_floor_xid xid8,
    last_id bigint,                 -- the changes of the open window up to this id are delivered
    lost bigint NOT NULL,           -- value of hc_signals_lost_seq that is already reported as a gap
    gap json,                       -- a gap of every table that the next delivery reports: its cause and times
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX hc_signals_position_newest_idx ON public.hc_signals_position (consumer, shard, id DESC);

-- The newest position of each consumer and shard. The recursion goes from one to the next by the index. DISTINCT ON
-- would read all older positions too. Dead rows are among them while any session holds an old snapshot.
CREATE VIEW public.hc_signals_newest_position AS
WITH RECURSIVE known AS (
    (SELECT consumer, shard FROM public.hc_signals_position ORDER BY consumer, shard LIMIT 1)
    UNION ALL
    SELECT next.consumer, next.shard FROM known, LATERAL (
        SELECT p.consumer, p.shard FROM public.hc_signals_position p
        WHERE (p.consumer, p.shard) > (known.consumer, known.shard) ORDER BY p.consumer, p.shard LIMIT 1
    ) next
)
SELECT newest.* FROM known, LATERAL (
    SELECT p.* FROM public.hc_signals_position p
    WHERE p.consumer = known.consumer AND p.shard = known.shard ORDER BY p.id DESC LIMIT 1
) newest;

-- A failed delivery of one event to one receiver. The receiver failed on it ('retry'), or on an earlier one of the same
-- record ('parked'), or too often ('dead'). It has a copy of the change, because old buckets are emptied.
CREATE TABLE public.hc_signals_delivery (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    receiver text NOT NULL,
    signal text NOT NULL,
    sender text NOT NULL,
    state text NOT NULL,
    attempt integer NOT NULL,           -- number of calls so far
    next_attempt_at timestamptz,
    error text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    change_id bigint NOT NULL,
    xid xid8 NOT NULL,
    captured_at timestamptz NOT NULL,
    table_name text NOT NULL,
    operation text NOT NULL,
    origin text NOT NULL,
    record_key text,
    record_id text,
    changed text[],
    old json,
    new json,
    note json
);
CREATE INDEX hc_signals_delivery_record_idx ON public.hc_signals_delivery
    (consumer, table_name, coalesce(record_id, record_key, ''), id) WHERE state IN ('retry', 'parked');
CREATE INDEX hc_signals_delivery_due_idx ON public.hc_signals_delivery (consumer, next_attempt_at)
    WHERE state = 'retry';
CREATE INDEX hc_signals_delivery_state_idx ON public.hc_signals_delivery (consumer, state);

-- The worker processes that are running or were killed: a process deletes its row when it stops. If a row is left, the
-- next process marks its calls. It stops once it is past the changes of the killed one.
CREATE TABLE public.hc_signals_run (
    run text PRIMARY KEY,
    consumer text NOT NULL,
    is_locked boolean NOT NULL,         -- its sessions share an advisory lock; behind a pooler they cannot
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (vacuum_truncate = false);

-- The marks: the call that a worker is about to make, one per shard.
CREATE TABLE public.hc_signals_call (
    consumer text NOT NULL,
    shard smallint NOT NULL,
    receiver text NOT NULL,
    change_id bigint NOT NULL,
    attempt integer NOT NULL,
    begun integer NOT NULL,             -- number of processes that began it and did not end it
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, shard)
) WITH (vacuum_truncate = false);

-- Reloads: Heroku Connect clears a table and fills it again. The old images of the cleared records wait here for the
-- records to return.
CREATE TABLE public.hc_signals_cleared (
    table_name text NOT NULL,
    record_id text NOT NULL,
    record_key text,
    old json NOT NULL,
    PRIMARY KEY (table_name, record_id)
) WITH (vacuum_truncate = false);

-- One row per clearing. While a table has one, capture compares inserted rows with the cleared ones. It is a table of
-- its own, so that the check costs next to nothing.
CREATE TABLE public.hc_signals_reload (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    cleared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    records bigint NOT NULL
) WITH (vacuum_truncate = false);

-- The result of reloads, one row per statement. 'reload' counts rows that returned, 'missing' rows reported as deleted.
-- 'resync' counts rows that got the first value of a new column. Rows are appended, so that writers do not wait for
-- each other.
CREATE TABLE public.hc_signals_refill (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    unchanged bigint NOT NULL DEFAULT 0,
    changed bigint NOT NULL DEFAULT 0,
    created bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    resynced bigint NOT NULL DEFAULT 0
) WITH (vacuum_truncate = false);

-- The state of each captured table: when capture was last complete on it, and which table that was. Also what is to be
-- reported and read again since. The worker writes it when it changes, otherwise every few minutes.
CREATE TABLE public.hc_signals_table (
    table_name text PRIMARY KEY,
    relation oid,               -- the table, its file, and the versions of our trigger rows on it, which change with
    filenode oid,               -- DISABLE, ENABLE and DROP; all NULL before capture was first complete
    versions text,
    seen pg_snapshot,           -- what was committed at `good_at`
    good_at timestamptz,        -- capture was complete up to this time
    cause text,                 -- why it is not since; reported as a gap once capture is complete again
    uninstalled_at timestamptz, -- `hc_triggers uninstall` ran: the worker leaves it alone until `hc_triggers install`
    reread_since timestamptz,   -- rows changed since this time are to be read again,
    reread_after bigint         -- those with a larger id
) WITH (vacuum_truncate = false);

-- One row. PostgreSQL empties unlogged tables when the server crashes, and when a standby is promoted. If this table is
-- empty, so are all captured unlogged tables; nothing else shows that.
CREATE UNLOGGED TABLE public.hc_signals_unlogged (id boolean PRIMARY KEY DEFAULT true CHECK (id))
    WITH (vacuum_truncate = false);
INSERT INTO public.hc_signals_unlogged DEFAULT VALUES;

-- Tables whose changes a consumer skipped because it had no model for them. If it gets the model, they are a gap for
-- it.
CREATE TABLE public.hc_signals_passed (
    consumer text NOT NULL,
    table_name text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (consumer, table_name)
) WITH (vacuum_truncate = false);
