-- The change log, part 2 of 3: what capture functions call in the writer's transaction.
--
-- A capture function catches the errors of these functions, so none of them fails the writer's statement.

-- A capture function asks this before it writes: true if capture is on, the log unlocked and not full; false while
-- capture is paused. If the change is lost, it raises lock_not_available (55P03) or configuration_limit_exceeded
-- (53400). The writer waits for our tables for 10 ms at most.
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
        -- `resume` waits for this lock before it writes the gap: the skipped changes must be committed before it.
        PERFORM pg_advisory_xact_lock_shared(1212372819, 2);
        SELECT c.paused_at, c.max_bucket_bytes INTO control FROM public.hc_signals_control c;
    END IF;
    IF control.paused_at IS NOT NULL THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            -- This snapshot may be older than a `resume` that has written its gap already.
            RAISE EXCEPTION 'hc_signals: paused' USING ERRCODE = '53400';
        END IF;
        RETURN false;
    END IF;
    partition := 'public.hc_signals_change_' || public.hc_signals_bucket();
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

-- Counts a statement whose changes are not in the log; the worker reports them as a gap. The lock makes the worker wait
-- until this transaction has ended: a receiver that reads the table on the gap must see its changes. SECURITY DEFINER:
-- it must work for a capture function whose owner lacks every right.
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
        NULL;  -- a gap that is reported early is better than none
    END;
    PERFORM nextval('public.hc_signals_lost_seq');
    BEGIN
        PERFORM public.hc_signals_ring();
    EXCEPTION WHEN OTHERS THEN
        NULL;  -- the worker finds it when it polls
    END;
END
$$;

-- Records that a captured table was written to under another name. Its changes are in the log under that name. They are
-- a gap once the table has its own name `of_table` again. Another table that has taken the name is not affected. One
-- record is enough, so writers skip a locked row and do not wait for each other.
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

-- The doorbell. A worker holds this advisory lock exclusively while it sleeps. A writer that cannot share the lock
-- notifies the worker with its commit. A writer that shares the lock keeps the worker awake until its transaction ends,
-- so no notification is needed; NOTIFY takes a cluster-wide lock at commit. A full notification queue would fail the
-- writer's COMMIT. So above half the writer does not notify, and the worker finds the change when it polls.
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

-- A writer joins a reload; false if the reload has just ended. The worker holds this lock alone for some milliseconds
-- while it appends the missing records as deleted. A row that is inserted after that must be read after them.
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

-- True if a table has no row left. Deleted rows stay in its file until the transaction ends. A walk over all of them
-- per chunk of a clearing would be quadratic. The rows that are left mostly lie at one of the ends.
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

-- Moves the changes of a nested statement behind the statement that caused them. A customer's row trigger that changes
-- the same row again runs inside Heroku Connect's statement: its capture runs first and draws the lower ids. So the
-- outer capture appends the nested changes of its records again, behind its own, and deletes the first ones. Nothing
-- else deletes single rows of the log. All plans use the indexes and hash joins: each row of the transaction is read
-- once, whatever the planner expects.
CREATE FUNCTION public.hc_signals_reorder(captured_table text) RETURNS void
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
        -- A nested change continues the outer one if its old image is the outer's new one. The later ones move with it.
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

-- The role that installs capture owns these, or is granted them. Every role may call hc_signals_lose(): see there.
REVOKE ALL ON FUNCTION public.hc_signals_admit(), public.hc_signals_ring(), public.hc_signals_reorder(text) FROM PUBLIC;
