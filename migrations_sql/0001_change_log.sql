-- The change log: what Salesforce changed, appended by the capture triggers in the writer's own transaction.
--
-- Runs with psql as it is, or through `manage.py migrate hc_signals` (the same file, the same catalog).
-- Locks: none on any existing table; everything here is new.
-- Nothing in the log is ever updated or deleted row by row: old buckets are emptied by TRUNCATE, so a snapshot that
-- someone holds open elsewhere leaves no dead rows behind.

-- CACHE 1: the id is taken under the row lock of the changed record, so that per record the order of ids is the order
-- of events. A cached range would break exactly that.
CREATE SEQUENCE public.hc_signals_change_id_seq AS bigint CACHE 1;

-- Counts changes that could not be written to the log at all. A sequence, because it survives a rollback, needs no
-- table lock and cannot fail on a constraint.
CREATE SEQUENCE public.hc_signals_lost_seq AS bigint CACHE 1;


CREATE TABLE public.hc_signals_change (
    id bigint NOT NULL DEFAULT nextval('public.hc_signals_change_id_seq'::regclass),
    -- Not the system column xmin: inside a savepoint that is the sub-transaction, which no snapshot lists.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    captured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    table_name text NOT NULL,
    operation text NOT NULL,
    origin text NOT NULL,
    record_key text,
    record_id text,
    changed text[],
    -- The row before and after. Of an update `old` need have no more than what differs.
    old json,
    new json,
    -- What a row says that is more than a change of one record: cause and times of a gap, counts of a reload, for whom
    -- a snapshot is.
    note json,
    -- 1 for Heroku Connect's own statement, more for one that a customer's trigger ran inside it.
    depth smallint NOT NULL DEFAULT pg_trigger_depth(),
    -- The ring: eight buckets of twelve hours. A slot comes round again after 96 hours; if its bucket could not be
    -- emptied by then, new rows are simply appended to it: retention grows, nothing is lost.
    bucket smallint NOT NULL DEFAULT ((floor(extract(epoch FROM clock_timestamp()) / 43200))::bigint % 8)::smallint
) PARTITION BY LIST (bucket);

ALTER SEQUENCE public.hc_signals_change_id_seq OWNED BY public.hc_signals_change.id;

-- No vacuum_truncate: it locks out writers for a moment, and a writer does not wait for us.
-- Replica identity FULL: PostgreSQL refuses a DELETE from a table that a publication covers and that has none; FOR ALL
-- TABLES covers these. hc_signals_settle() deletes. An INSERT costs no more by it.
CREATE TABLE public.hc_signals_change_0 PARTITION OF public.hc_signals_change FOR VALUES IN (0)
    WITH (vacuum_truncate = false);
ALTER TABLE public.hc_signals_change_0 REPLICA IDENTITY FULL;
CREATE TABLE public.hc_signals_change_1 PARTITION OF public.hc_signals_change FOR VALUES IN (1)
    WITH (vacuum_truncate = false);
ALTER TABLE public.hc_signals_change_1 REPLICA IDENTITY FULL;
CREATE TABLE public.hc_signals_change_2 PARTITION OF public.hc_signals_change FOR VALUES IN (2)
    WITH (vacuum_truncate = false);
ALTER TABLE public.hc_signals_change_2 REPLICA IDENTITY FULL;
CREATE TABLE public.hc_signals_change_3 PARTITION OF public.hc_signals_change FOR VALUES IN (3)
    WITH (vacuum_truncate = false);
ALTER TABLE public.hc_signals_change_3 REPLICA IDENTITY FULL;
CREATE TABLE public.hc_signals_change_4 PARTITION OF public.hc_signals_change FOR VALUES IN (4)
    WITH (vacuum_truncate = false);
ALTER TABLE public.hc_signals_change_4 REPLICA IDENTITY FULL;
CREATE TABLE public.hc_signals_change_5 PARTITION OF public.hc_signals_change FOR VALUES IN (5)
    WITH (vacuum_truncate = false);
ALTER TABLE public.hc_signals_change_5 REPLICA IDENTITY FULL;
CREATE TABLE public.hc_signals_change_6 PARTITION OF public.hc_signals_change FOR VALUES IN (6)
    WITH (vacuum_truncate = false);
ALTER TABLE public.hc_signals_change_6 REPLICA IDENTITY FULL;
CREATE TABLE public.hc_signals_change_7 PARTITION OF public.hc_signals_change FOR VALUES IN (7)
    WITH (vacuum_truncate = false);
ALTER TABLE public.hc_signals_change_7 REPLICA IDENTITY FULL;

CREATE INDEX hc_signals_change_id_idx ON public.hc_signals_change (id);
CREATE INDEX hc_signals_change_xid_idx ON public.hc_signals_change (xid, id);
-- Empty as a rule: see hc_signals_settle().
CREATE INDEX hc_signals_change_nested_idx ON public.hc_signals_change (xid, depth, id) WHERE depth > 1;

-- On which timeline of its history the server is: another one after each promotion of a standby, fork, or recovery to a
-- point in time, though the system_identifier stays. The name of a WAL file shows it at once, pg_control_checkpoint()
-- only after a checkpoint. NULL on a server in recovery.
CREATE FUNCTION public.hc_signals_timeline() RETURNS integer
LANGUAGE sql VOLATILE
AS $$ SELECT CASE WHEN NOT pg_is_in_recovery()
                  THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END $$;

-- One row. The epoch is part of every replay id. It changes when the log goes on somewhere else, where ids are drawn a
-- second time, and it rises: who keeps the highest replay id passes over no change that comes after. The log goes on
-- somewhere else where anything of server, database, this table or timeline is not as written here. If it is not the
-- timeline alone, transaction ids mean nothing there.
CREATE TABLE public.hc_signals_control (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    epoch text NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    control_oid oid NOT NULL,           -- of this table: another one where a dump was restored into its own database
    timeline integer NOT NULL,
    paused_at timestamptz,      -- since then capture is switched off: `hc_triggers pause`
    is_removed boolean NOT NULL DEFAULT false,  -- and taken off every table: `hc_triggers pause --remove`
    gap_since timestamptz,      -- since when it was, if its gap is still to be written
    max_bucket_bytes bigint,    -- the newest bucket gets no larger, whether or not a worker lives; NULL: unbounded
    emptied_id bigint NOT NULL DEFAULT 0,   -- the newest change that was emptied from the log, and when it was
    emptied_at timestamptz                  -- captured: a replay of older ones would be incomplete
) WITH (vacuum_truncate = false);

-- The next epoch: seconds since 1970, or one more than the last one's where the clock went back, in eight hexadecimal
-- digits; then four by chance, because two copies of one database may go on at the same second.
CREATE FUNCTION public.hc_signals_next_epoch(epoch text) RETURNS text
LANGUAGE sql VOLATILE
AS $$ SELECT lpad(to_hex(greatest(extract(epoch FROM clock_timestamp())::bigint,
                                  ('x' || left(epoch, 8))::bit(32)::bigint + 1)), 8, '0')
             || left(md5(gen_random_uuid()::text), 4) $$;

INSERT INTO public.hc_signals_control (epoch, system_identifier, database_oid, control_oid, timeline)
SELECT public.hc_signals_next_epoch('00000000'), (pg_control_system()).system_identifier, oid,
       'public.hc_signals_control'::regclass, public.hc_signals_timeline()
FROM pg_database WHERE datname = current_database();

-- Where each consumer has come to, per shard. Appended once per batch and read by the index, newest first: a single
-- row updated for ever gets slower while anyone holds an old snapshot.
CREATE TABLE public.hc_signals_position (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    shard smallint NOT NULL,
    shards smallint NOT NULL,
    seen pg_snapshot NOT NULL,      -- everything visible in this snapshot is done
    floor_id bigint NOT NULL,       -- transactions born after `seen` have only ids above this one;
    floor_xid xid8 NOT NULL,        -- they are those from here on: xmax of `seen` may lie far below
    target pg_snapshot,             -- the open window: visible in target, not in seen; NULL when no window is open
    ceiling_id bigint,              -- everything visible in `target` has an id up to this one
    next_floor_id bigint,           -- floor_id and floor_xid of the next window
    next_floor_xid xid8,
    last_id bigint,                 -- inside the open window, done up to here
    lost bigint NOT NULL,           -- hc_signals_lost_seq as far as it has been told as a gap
    gap json,                       -- a gap of every table that the next delivery has to tell: its cause and times
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX hc_signals_position_newest_idx ON public.hc_signals_position (consumer, shard, id DESC);

-- The newest position of each consumer and shard. It goes from one to the next by the index: DISTINCT ON would read all
-- the older positions, dead ones too, which pile up while anyone holds an old snapshot.
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

-- One event owed to one receiver: it failed on it ('retry'), or on an earlier one of the same record ('parked'), or it has
-- failed for good ('dead'). A copy of the change, because the log rotates on.
CREATE TABLE public.hc_signals_delivery (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    receiver text NOT NULL,
    signal text NOT NULL,
    sender text NOT NULL,
    state text NOT NULL,
    attempt integer NOT NULL,           -- calls so far
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

-- The runs of workers that have not ended in good order: a process removes its row when it stops. One that was killed
-- leaves it, and the next process marks the calls that it makes until it is past what the killed one was at.
CREATE TABLE public.hc_signals_run (
    run text PRIMARY KEY,
    consumer text NOT NULL,
    is_locked boolean NOT NULL,         -- its sessions share an advisory lock while it lives; behind a pooler they cannot
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (vacuum_truncate = false);

-- The marks: the call that a worker is about to make, one per shard.
CREATE TABLE public.hc_signals_call (
    consumer text NOT NULL,
    shard smallint NOT NULL,
    receiver text NOT NULL,
    change_id bigint NOT NULL,
    attempt integer NOT NULL,
    begun integer NOT NULL,             -- how many processes have begun it and not ended it
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, shard)
) WITH (vacuum_truncate = false);

-- Reloads: a table that is cleared and filled again. The old images of what a clearing took away wait here for their
-- records to come back. No vacuum_truncate: it locks out writers for a moment.
CREATE TABLE public.hc_signals_cleared (
    table_name text NOT NULL,
    record_id text NOT NULL,
    record_key text,
    old json NOT NULL,
    PRIMARY KEY (table_name, record_id)
) WITH (vacuum_truncate = false);

-- One row per clearing: as long as a table has one, its inserted rows are compared. A table of its own, so that looking
-- costs next to nothing.
CREATE TABLE public.hc_signals_reload (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    cleared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    records bigint NOT NULL
) WITH (vacuum_truncate = false);

-- What came of it, one row per statement: 'reload' of rows that came back, 'missing' of those told as deleted, 'resync'
-- of rows that got the first value of a new column. Appended, so that concurrent writers never wait for one another.
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

-- What is known of each captured table: as what capture was last seen right on it, when, and what is owed since.
-- Written when something has changed, else every few minutes.
CREATE TABLE public.hc_signals_table (
    table_name text PRIMARY KEY,
    relation oid,               -- the table; its file; versions of our trigger rows there, other ones after DISABLE,
    filenode oid,               -- ENABLE or DROP; all of them NULL before capture was ever seen right
    versions text,
    seen pg_snapshot,           -- what was committed then
    good_at timestamptz,        -- when that was: what was captured up to here is complete
    cause text,                 -- what was found wrong since; told as a gap once capture is right again
    uninstalled_at timestamptz, -- by `hc_triggers uninstall`: it is left alone until `hc_triggers install`
    reread_since timestamptz,   -- rows changed since then are due to be read again,
    reread_after bigint         -- those with a larger id
) WITH (vacuum_truncate = false);

-- One row. PostgreSQL empties unlogged tables when the server crashes, and when a standby is promoted: if this one is
-- empty, so are all captured tables of that kind, and nothing else says so.
CREATE UNLOGGED TABLE public.hc_signals_unlogged (id boolean PRIMARY KEY DEFAULT true CHECK (id))
    WITH (vacuum_truncate = false);
INSERT INTO public.hc_signals_unlogged DEFAULT VALUES;

-- Changes that a consumer had no model for, and since when: if it gets the model, they are a gap for it.
CREATE TABLE public.hc_signals_passed (
    consumer text NOT NULL,
    table_name text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (consumer, table_name)
) WITH (vacuum_truncate = false);

-- What a capture function asks before it writes: whether capture is on, and the log is free and not full. The writer
-- waits 10 ms for our tables and no longer. False while paused; raises lock_not_available (55P03) or
-- configuration_limit_exceeded (53400) where the change is lost.
CREATE FUNCTION public.hc_signals_admit() RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET lock_timeout = '10ms'
AS $$
DECLARE
    control record;
    partition text;
BEGIN
    SELECT c.paused_at, c.max_bucket_bytes INTO control FROM public.hc_signals_control c;
    IF control.paused_at IS NOT NULL THEN
        -- `resume` waits for this lock before it writes the gap: what was skipped must be committed when it is told.
        PERFORM pg_advisory_xact_lock_shared(1212372819, 2);
        SELECT c.paused_at, c.max_bucket_bytes INTO control FROM public.hc_signals_control c;
    END IF;
    IF control.paused_at IS NOT NULL THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            -- This snapshot may be older than a `resume` that has told its gap already.
            RAISE EXCEPTION 'hc_signals: paused' USING ERRCODE = '53400';
        END IF;
        RETURN false;
    END IF;
    partition := 'public.hc_signals_change_' || (floor(extract(epoch FROM clock_timestamp()) / 43200))::bigint % 8;
    EXECUTE 'LOCK TABLE ONLY public.hc_signals_change, ONLY ' || partition || ' IN ROW EXCLUSIVE MODE';
    IF control.max_bucket_bytes < (
        SELECT pg_relation_size(c.oid) + coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0)
        FROM pg_class c WHERE c.oid = partition::regclass
    ) THEN
        RAISE EXCEPTION 'hc_signals: the log is full' USING ERRCODE = '53400';
    END IF;
    RETURN true;
END
$$;

-- Counts a statement whose changes are not in the log; the worker makes a gap of it. It tells it only when it can have
-- the lock, that is, when this transaction has ended: told earlier, whoever reads the table again would not see them.
-- SECURITY DEFINER: a capture function whose owner lacks every right must be able to say so.
CREATE FUNCTION public.hc_signals_lose() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
SET lock_timeout = '10ms'
AS $$
BEGIN
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1212372819, 2);
    EXCEPTION WHEN OTHERS THEN
        NULL;  -- a gap told early is better than none
    END;
    PERFORM nextval('public.hc_signals_lost_seq');
    BEGIN
        PERFORM public.hc_signals_ring();
    EXCEPTION WHEN OTHERS THEN
        NULL;  -- found when the worker looks anyway
    END;
END
$$;

-- Notes that a captured table was written to under another name: its changes are in the log under that name, so they
-- are a gap once it has its own name back. `of_table` is that name; the table of the same name that has taken its place
-- is not concerned. No writer waits for another here: one note is enough.
CREATE FUNCTION public.hc_signals_renamed(captured oid, of_table text) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    UPDATE public.hc_signals_table SET cause = 'table_renamed' WHERE table_name = (
        SELECT t.table_name FROM public.hc_signals_table t
        WHERE t.table_name = of_table AND t.relation = captured AND t.cause IS NULL FOR UPDATE SKIP LOCKED
    )
$$;
REVOKE ALL ON FUNCTION public.hc_signals_renamed(oid, text) FROM PUBLIC;

-- The doorbell. The reader holds this advisory lock exclusively only while it sleeps: if the share cannot be had, it
-- sleeps, and the ring goes out with the commit. If it can, the reader cannot fall asleep before this transaction has
-- ended. NOTIFY costs a cluster-wide lock at commit, so a reader that is awake is never rung. A full queue would fail
-- the writer's COMMIT: half full, nobody is rung, and the reader finds the change when it looks anyway.
CREATE FUNCTION public.hc_signals_ring() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(1212372819, 1) AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('hc_signals', '');
    END IF;
END
$$;

-- A writer takes part in a reload; false if it has just ended. The worker tells the end under this lock, alone: an
-- insertion behind that must not be read before the deletions that were told. It holds it for some milliseconds.
CREATE FUNCTION public.hc_signals_join_reload(captured_table text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET lock_timeout = '1s'
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1212372823, hashtext(captured_table));
    RETURN EXISTS (SELECT FROM public.hc_signals_reload r WHERE r.table_name = captured_table);
END
$$;

-- Tells whether a table has no row left. Deleted rows stay in it until the transaction is over: when a table is cleared
-- in chunks, a walk over all of them each time would be quadratic. What is left mostly lies at one of the ends.
CREATE FUNCTION public.hc_signals_is_empty(captured regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    pages bigint := pg_relation_size(captured) / current_setting('block_size')::bigint;
    found boolean := false;
BEGIN
    IF row_security_active(captured) THEN
        RETURN false;  -- the rows that are left may be hidden from us
    END IF;
    IF pages > 64 THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %1$s WHERE ctid >= $1) '
                       'OR EXISTS (SELECT FROM ONLY %1$s WHERE ctid < $2)', captured)
        INTO found USING format('(%s,0)', pages - 32)::tid, '(32,0)'::tid;
    END IF;
    IF NOT found THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', captured) INTO found;
    END IF;
    RETURN NOT found;
END
$$;

-- Puts changes of a nested statement behind the statement that caused them. A customer's row trigger that changes the
-- same row again is a statement inside Heroku Connect's: its capture runs first and draws the lower ids. So the outer
-- capture, if there was a nested one in its transaction, logs the nested rows of its records once more, after its own.
-- This is the one place where rows leave the log singly; it is as rare as such triggers are. Every plan goes by the
-- indexes, and joins by hashing: each row of the transaction is read once, whatever the planner expects.
CREATE FUNCTION public.hc_signals_settle(captured_table text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET plan_cache_mode = force_generic_plan
SET enable_indexscan = on
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = on
SET enable_nestloop = off
SET enable_mergejoin = off
AS $$
DECLARE
    own_depth integer := pg_trigger_depth();
    from_id bigint;
BEGIN
    SELECT min(n.id) INTO from_id FROM public.hc_signals_change n
    WHERE n.xid = pg_current_xact_id() AND n.table_name = captured_table AND n.depth > 1 AND n.depth > own_depth;
    IF from_id IS NULL THEN
        RETURN;
    END IF;
    WITH early AS (
        -- The nested row continues the outer one where its old image is the outer's new one; what follows it follows.
        SELECT n.record_key, min(n.id) AS first_id, max(o.id) AS outer_id
        FROM public.hc_signals_change n
        JOIN public.hc_signals_change o
          ON o.record_key = n.record_key AND o.id > n.id
         AND o.new::jsonb = coalesce(n.new::jsonb, '{}') || n.old::jsonb
        WHERE n.xid = pg_current_xact_id() AND n.table_name = captured_table AND n.depth > 1 AND n.depth > own_depth
          AND o.xid = pg_current_xact_id() AND o.table_name = captured_table AND o.depth = own_depth AND o.id > from_id
        GROUP BY n.record_key
    ), moved AS (
        DELETE FROM public.hc_signals_change c USING early e
        WHERE c.xid = pg_current_xact_id() AND c.id >= from_id AND c.table_name = captured_table
          AND c.record_key = e.record_key AND c.depth > own_depth AND c.depth > 1
          AND c.id BETWEEN e.first_id AND e.outer_id
        RETURNING c.*
    )
    INSERT INTO public.hc_signals_change
        (table_name, operation, origin, record_key, record_id, changed, old, new, note, depth, captured_at)
    SELECT m.table_name, m.operation, m.origin, m.record_key, m.record_id, m.changed, m.old, m.new, m.note, own_depth,
           m.captured_at
    FROM moved m ORDER BY m.id;
END
$$;

-- Which shard of a consumer a record belongs to: by the sfid where there is one. A record that is deleted and comes back
-- has another key, and still its order counts.
CREATE FUNCTION public.hc_signals_shard_of(of_table text, record_id text, record_key text, shards integer)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN shards = 1 THEN 0 ELSE (
        (hashtextextended(of_table || ' ' || coalesce(record_id, record_key, ''), 0) & 9223372036854775807) % shards
    )::integer END
$$;

-- What an image takes, unpacked: that of a compressed one is not known otherwise.
CREATE FUNCTION public.hc_signals_image_bytes(image json) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN pg_column_compression(image) IS NULL THEN coalesce(pg_column_size(image), 0)
                ELSE octet_length(image::text) END
$$;

-- The looks of the reader, as functions because these keep their plans for as long as the session lives, behind a pooler
-- as well: to plan eight partitions anew took longer than to read them. The plans are those by the indexes, whatever the
-- statistics say. With statistics from before a large load, or from when the log was empty, the planner would read and
-- sort the whole backlog for each page; of `xid >= xmax` it expects many rows, and would read all for the one that is
-- not there. BETWEEN for an equality: with one, ORDER BY id alone would do, and a walk of the ids would look cheap where
-- many changes are of one transaction.

-- Without row_security a policy that would hide rows of ours is an error, and not an empty log.

-- A page: what is visible in `target` and not in `seen`, of these ids and this shard, in order; what a worker must know
-- of each change, without its images but with their size.
CREATE FUNCTION public.hc_signals_page(
    seen pg_snapshot, target pg_snapshot, after_id bigint, upto_id bigint, of_shard integer, of_shards integer,
    size integer
) RETURNS TABLE (
    image_bytes integer, id bigint, xid text, captured_at timestamp, table_name text, operation text, origin text,
    record_key text, record_id text, changed text[], note json, epoch text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_generic_plan
SET enable_indexscan = on
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
BEGIN
    RETURN QUERY
    SELECT public.hc_signals_image_bytes(c.old) + public.hc_signals_image_bytes(c.new),
           c.id, c.xid::text, c.captured_at AT TIME ZONE 'UTC', c.table_name, c.operation, c.origin, c.record_key,
           c.record_id, c.changed, c.note, (SELECT control.epoch FROM public.hc_signals_control control)
    FROM public.hc_signals_change c
    WHERE c.id > after_id AND c.id <= upto_id
      AND (c.xid >= pg_snapshot_xmax(seen) OR c.xid = ANY (ARRAY(SELECT pg_snapshot_xip(seen))))
      AND pg_visible_in_snapshot(c.xid, target)
      AND public.hc_signals_shard_of(c.table_name, c.record_id, c.record_key, of_shards) = of_shard
    ORDER BY c.id LIMIT size;
END
$$;

-- The images of changes: the latest, which for a deletion is the old one; and of updates the old one. In order, because
-- only the index of ids has them so: in a small log the one of (xid, id) looks as good for an id, and is read to its end.
CREATE FUNCTION public.hc_signals_images(ids bigint[]) RETURNS TABLE (id bigint, latest json, old json)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_generic_plan
SET enable_indexscan = on
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
BEGIN
    RETURN QUERY
    SELECT c.id, coalesce(c.new, c.old), CASE WHEN c.operation = 'UPDATE' THEN c.old END
    FROM public.hc_signals_change c WHERE c.id = ANY (ids)
    ORDER BY c.id;
END
$$;

-- How many statements are not in the log. One beyond those told counts when its transaction has ended, which holds the
-- lock of hc_signals_lose() until then: whoever heard of it now and read the table again would not see it.
CREATE FUNCTION public.hc_signals_lost(told bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    counted bigint;
BEGIN
    SELECT CASE WHEN l.is_called THEN l.last_value ELSE 0 END INTO counted FROM public.hc_signals_lost_seq l;
    IF counted > told AND EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 1212372819 AND objid = 2 AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode = 'ShareLock' AND granted
    ) THEN
        RETURN told;
    END IF;
    RETURN counted;
END
$$;

-- Whether a position is so old that the next one is to be stored even if there is nothing to do: after a thousand ids, or
-- after ten minutes. Left where it is, it would hold up the rotation of the log, and each look would pass over all that
-- the other shards have done.
CREATE FUNCTION public.hc_signals_is_idle(floor_id bigint, floor_xid xid8, since timestamptz, newest_id bigint)
RETURNS boolean
LANGUAGE sql VOLATILE
AS $$ SELECT coalesce(floor_xid = '1'::xid8 OR newest_id - floor_id > 1 AND since < clock_timestamp()
        - make_interval(secs => CASE WHEN newest_id - floor_id > 1000 THEN 1 ELSE 600 END), false) $$;

-- How a consumer stands in a shard: its newest position, null before the first; over how many shards its records are
-- split; the highest id drawn so far; whether any of its deliveries wait, and whether the time of one has come. And
-- whether the server has been replaced by another one under our session, as it may be behind a pooler.
CREATE FUNCTION public.hc_signals_standing(of_consumer text, of_shard integer) RETURNS json
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_generic_plan
SET enable_indexscan = on
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    found json;
BEGIN
    SELECT json_build_object(
        'position', to_json(p),
        'layout', (SELECT l.shards FROM public.hc_signals_position l WHERE l.consumer = of_consumer
                   ORDER BY l.id DESC LIMIT 1),
        'newest_id', s.last_value,
        'lost', public.hc_signals_lost(coalesce(p.lost, 0)),
        'is_idle', public.hc_signals_is_idle(p.floor_id, p.floor_xid, p.created_at, s.last_value),
        'has_moved', (SELECT c.timeline <> public.hc_signals_timeline() FROM public.hc_signals_control c),
        'any_kept', EXISTS (SELECT FROM public.hc_signals_delivery d
                            WHERE d.consumer = of_consumer AND d.state IN ('retry', 'parked')),
        'any_due', EXISTS (SELECT FROM public.hc_signals_delivery d
                           WHERE d.consumer = of_consumer AND d.state = 'retry'
                             AND d.next_attempt_at <= clock_timestamp())
    ) INTO found
    FROM public.hc_signals_change_id_seq s LEFT JOIN LATERAL (
        SELECT * FROM public.hc_signals_position n WHERE n.consumer = of_consumer AND n.shard = of_shard
        ORDER BY n.id DESC LIMIT 1
    ) p ON true;
    RETURN found;
END
$$;

-- The snapshot of now, the transaction id that will be given out next, and an id that none is above in that snapshot.
-- age() counts from the id that will be given out: read without taking one. The snapshot is older than what is read
-- while the statement runs, so last_value is a ceiling for everything visible in it.
CREATE FUNCTION public.hc_signals_target() RETURNS TABLE (target pg_snapshot, next_xid xid8, ceiling_id bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT pg_current_snapshot(),
           (xmax + ((age('3'::xid)::bigint + 3 - xmax) % 4294967296 + 4294967296) % 4294967296)::text::xid8,
           (SELECT last_value FROM public.hc_signals_change_id_seq)
    FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax) now;
END
$$;

-- The beginning of a page at once: claims the shard until the transaction ends, looks how things stand and, if no window
-- is open, what is visible now, with the page above the floor: the first one, unless something came late. No row:
-- another worker has the shard. The first row has only the head. Each query has a snapshot of its own, as if they were
-- sent one by one: how things stand is read after the claim, so that what its last holder has committed is seen.
CREATE FUNCTION public.hc_signals_look(of_consumer text, of_shard integer, of_shards integer, size integer)
RETURNS TABLE (
    head json, image_bytes integer, id bigint, xid text, captured_at timestamp, table_name text, operation text,
    origin text, record_key text, record_id text, changed text[], note json, epoch text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    standing json;
    newest json;
    has_page boolean;
    now record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1212372820, hashtext(of_consumer || ' ' || of_shard)) THEN
        RETURN;
    END IF;
    standing := public.hc_signals_standing(of_consumer, of_shard);
    newest := standing->'position';
    has_page := newest->>'seen' IS NOT NULL AND newest->>'target' IS NULL;
    SELECT * INTO now FROM public.hc_signals_target();
    head := json_build_object('standing', standing, 'has_page', has_page,
                              'now', json_build_array(now.target, now.next_xid, now.ceiling_id));
    RETURN NEXT;
    IF has_page THEN
        RETURN QUERY SELECT NULL::json, p.* FROM public.hc_signals_page(
            (newest->>'seen')::pg_snapshot, now.target, (newest->>'floor_id')::bigint, now.ceiling_id,
            of_shard, of_shards, size) p;
    END IF;
END
$$;

-- The shards in which a page would find something, or whose position is old: two probes of the index each.
CREATE FUNCTION public.hc_signals_waiting(of_consumer text, of_shards integer) RETURNS SETOF integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_generic_plan
SET enable_indexscan = on
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
BEGIN
    RETURN QUERY
    SELECT n.shard
    FROM generate_series(0, of_shards - 1) AS n (shard)
    CROSS JOIN public.hc_signals_change_id_seq s
    LEFT JOIN LATERAL (
        SELECT * FROM public.hc_signals_position o WHERE o.consumer = of_consumer AND o.shard = n.shard
        ORDER BY o.id DESC LIMIT 1
    ) p ON true
    WHERE p.id IS NULL OR p.target IS NOT NULL
       OR public.hc_signals_is_idle(p.floor_id, p.floor_xid, p.created_at, s.last_value)
       OR n.shard = 0 AND (p.gap IS NOT NULL OR p.lost < public.hc_signals_lost(p.lost))
       OR EXISTS (SELECT FROM public.hc_signals_change c WHERE c.xid >= pg_snapshot_xmax(p.seen)
           AND public.hc_signals_shard_of(c.table_name, c.record_id, c.record_key, of_shards) = n.shard
           ORDER BY c.xid, c.id LIMIT 1)
       OR EXISTS (SELECT FROM pg_snapshot_xip(p.seen) open (x), LATERAL (
           SELECT FROM public.hc_signals_change c WHERE c.xid BETWEEN open.x AND open.x
           AND public.hc_signals_shard_of(c.table_name, c.record_id, c.record_key, of_shards) = n.shard
           ORDER BY c.xid, c.id LIMIT 1) late);
END
$$;

-- What a receiver may change of its session that would reach the other receivers of the page, or the worker. No function
-- here sets one of these for itself or has SECURITY DEFINER: it would see its own settings and not the receiver's.
CREATE FUNCTION public.hc_signals_settings() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    -- Joined, and not an array, which takes longer to make.
    SELECT pg_catalog.current_setting('session_authorization') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('role') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('xmlbinary') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('row_security') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('statement_timeout') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('lock_timeout') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('idle_in_transaction_session_timeout') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) coalesce(pg_catalog.current_setting('transaction_timeout', true), '') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('default_transaction_read_only') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('default_transaction_isolation') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('TimeZone') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('DateStyle') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('IntervalStyle') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('bytea_output') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('extra_float_digits') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('standard_conforming_strings') OPERATOR(pg_catalog.||) E'\x1f'
        OPERATOR(pg_catalog.||) pg_catalog.current_setting('client_encoding')
$$;

CREATE FUNCTION public.hc_signals_setting_names() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '{session_authorization, role, search_path, xmlbinary, session_replication_role, row_security,
        statement_timeout, lock_timeout, idle_in_transaction_session_timeout, transaction_timeout, transaction_read_only,
        default_transaction_read_only, default_transaction_isolation, synchronous_commit, TimeZone, DateStyle,
        IntervalStyle, bytea_output, extra_float_digits, standard_conforming_strings, client_encoding}'::text[]
$$;

-- The receivers of a transaction are to leave its settings as they are now.
-- A value for PERFORM would be planned, and compiled where the server compiles everything: an assignment is not.
CREATE PROCEDURE public.hc_signals_note_settings()
LANGUAGE plpgsql
AS $$
DECLARE
    noted text;
BEGIN
    noted := pg_catalog.set_config('hc_signals.settings', public.hc_signals_settings(), true);
END
$$;

-- The names of the settings that differ from what was noted.
CREATE FUNCTION public.hc_signals_settings_left(noted text) RETURNS text
LANGUAGE plpgsql STABLE
SET jit = off
AS $$
BEGIN
    RETURN coalesce((
        SELECT pg_catalog.string_agg(n.name, ', ')
        FROM ROWS FROM (
            pg_catalog.unnest(public.hc_signals_setting_names()),
            pg_catalog.unnest(pg_catalog.string_to_array(public.hc_signals_settings(), E'\x1f')),
            pg_catalog.unnest(pg_catalog.string_to_array(noted, E'\x1f'))
        ) n (name, is_now, was) WHERE n.is_now IS DISTINCT FROM n.was), '');
END
$$;

-- Ends the message, and with it the savepoint, of a receiver that has changed any. A procedure, because CALL is quicker
-- than SELECT: nothing is planned, and no row is sent.
CREATE PROCEDURE public.hc_signals_check_settings(
    noted text DEFAULT pg_catalog.current_setting('hc_signals.settings', true)
)
LANGUAGE plpgsql
AS $$
BEGIN
    IF public.hc_signals_settings() OPERATOR(pg_catalog.=) noted THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'ZHC01', MESSAGE = public.hc_signals_settings_left(noted);
END
$$;

-- Sets back what differs from what was noted. By SET: after SET LOCAL, the value of an earlier SET would come back with
-- the commit.
CREATE FUNCTION public.hc_signals_set_back(noted text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET jit = off
AS $$
BEGIN
    PERFORM pg_catalog.set_config(n.name, n.was, false)
    FROM ROWS FROM (
        pg_catalog.unnest(public.hc_signals_setting_names()),
        pg_catalog.unnest(pg_catalog.string_to_array(public.hc_signals_settings(), E'\x1f')),
        pg_catalog.unnest(pg_catalog.string_to_array(noted, E'\x1f'))
    ) n (name, is_now, was) WHERE n.is_now IS DISTINCT FROM n.was AND n.name <> 'transaction_read_only';
END
$$;

-- SET LOCAL lasts to the end of the transaction, even after a savepoint is released. At the end of a receiver's block of
-- transaction.atomic() it is put back, as at the end of a transaction.
CREATE PROCEDURE public.hc_signals_restore_settings()
LANGUAGE plpgsql
AS $$
DECLARE
    noted text := pg_catalog.current_setting('hc_signals.settings', true);
    nothing text;
BEGIN
    IF public.hc_signals_settings() OPERATOR(pg_catalog.=) noted OR nullif(noted, '') IS NULL THEN
        RETURN;
    END IF;
    nothing := public.hc_signals_set_back(noted)::text;
END
$$;

-- Fails the COMMIT of a transaction that is not to be committed yet: see hc_signals/delivery/isolation.py.
CREATE FUNCTION public.hc_signals_refuse_commit() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'hc_signals commits the transaction itself: a receiver must not end it' USING ERRCODE = 'ZHC02';
END
$$;

-- Whoever installs capture owns these, or is granted them; hc_signals_lose() stays open to everyone: see there.
REVOKE ALL ON FUNCTION public.hc_signals_admit(), public.hc_signals_ring(), public.hc_signals_settle(text) FROM PUBLIC;
