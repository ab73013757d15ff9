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

CREATE TABLE public.hc_signals_change_0 PARTITION OF public.hc_signals_change FOR VALUES IN (0);
CREATE TABLE public.hc_signals_change_1 PARTITION OF public.hc_signals_change FOR VALUES IN (1);
CREATE TABLE public.hc_signals_change_2 PARTITION OF public.hc_signals_change FOR VALUES IN (2);
CREATE TABLE public.hc_signals_change_3 PARTITION OF public.hc_signals_change FOR VALUES IN (3);
CREATE TABLE public.hc_signals_change_4 PARTITION OF public.hc_signals_change FOR VALUES IN (4);
CREATE TABLE public.hc_signals_change_5 PARTITION OF public.hc_signals_change FOR VALUES IN (5);
CREATE TABLE public.hc_signals_change_6 PARTITION OF public.hc_signals_change FOR VALUES IN (6);
CREATE TABLE public.hc_signals_change_7 PARTITION OF public.hc_signals_change FOR VALUES IN (7);

CREATE INDEX hc_signals_change_id_idx ON public.hc_signals_change (id);
CREATE INDEX hc_signals_change_xid_idx ON public.hc_signals_change (xid, id);
-- Empty as a rule: see hc_signals_settle().
CREATE INDEX hc_signals_change_nested_idx ON public.hc_signals_change (xid, record_key, id) WHERE depth > 1;

-- One row. The epoch is part of every replay id: it changes when the database is restored or copied, so that an id of
-- before is recognised. Restored it is where server or database are others than those written here: transaction ids
-- mean nothing there.
CREATE TABLE public.hc_signals_control (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    epoch text NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    emptied_id bigint NOT NULL DEFAULT 0,   -- the newest change that was emptied from the log, and when it was
    emptied_at timestamptz                  -- captured: a replay of older ones would be incomplete
);
INSERT INTO public.hc_signals_control (epoch, system_identifier, database_oid)
SELECT left(md5(gen_random_uuid()::text), 8), (pg_control_system()).system_identifier, oid
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
    (consumer, table_name, coalesce(record_id, record_key)) WHERE state IN ('retry', 'parked');
CREATE INDEX hc_signals_delivery_due_idx ON public.hc_signals_delivery (consumer, next_attempt_at)
    WHERE state = 'retry';
CREATE INDEX hc_signals_delivery_state_idx ON public.hc_signals_delivery (consumer, state);

-- The doorbell. The reader holds this advisory lock exclusively only while it sleeps: if the share cannot be had, it
-- sleeps, and the ring goes out with the commit. If it can, the reader cannot fall asleep before this transaction has
-- ended. NOTIFY costs a cluster-wide lock at commit, so a reader that is awake is never rung.
CREATE FUNCTION public.hc_signals_ring() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(1212372819, 1) THEN
        PERFORM pg_catalog.pg_notify('hc_signals', '');
    END IF;
END
$$;

-- Puts changes of a nested statement behind the statement that caused them. A customer's row trigger that changes the
-- same row again is a statement inside Heroku Connect's: its capture runs first and draws the lower ids. So the outer
-- capture, if there was a nested one in its transaction, logs the nested rows of its records once more, after its own.
-- This is the one place where rows leave the log singly; it is as rare as such triggers are.
CREATE FUNCTION public.hc_signals_settle(captured_table text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own_depth integer := pg_trigger_depth();
BEGIN
    WITH early AS (
        -- The nested row continues the outer one where its old image is the outer's new one; what follows it follows.
        SELECT n.record_key, min(n.id) AS first_id, max(o.id) AS outer_id
        FROM public.hc_signals_change n
        JOIN public.hc_signals_change o
          ON o.xid = n.xid AND o.table_name = n.table_name AND o.record_key = n.record_key AND o.depth = own_depth
         AND o.id > n.id AND o.new::text = n.old::text
        WHERE n.xid = pg_current_xact_id() AND n.table_name = captured_table AND n.depth > greatest(own_depth, 1)
        GROUP BY n.record_key
    ), moved AS (
        DELETE FROM public.hc_signals_change c USING early e
        WHERE c.xid = pg_current_xact_id() AND c.table_name = captured_table AND c.record_key = e.record_key
          AND c.depth > own_depth AND c.depth > 1 AND c.id BETWEEN e.first_id AND e.outer_id
        RETURNING c.*
    )
    INSERT INTO public.hc_signals_change
        (table_name, operation, origin, record_key, record_id, changed, old, new, note, depth, captured_at)
    SELECT m.table_name, m.operation, m.origin, m.record_key, m.record_id, m.changed, m.old, m.new, m.note, own_depth,
           m.captured_at
    FROM moved m ORDER BY m.id;
END
$$;
