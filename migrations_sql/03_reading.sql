-- The change log, part 3 of 3: what workers call.
--
-- Functions keep their plans while the session is open, behind a pooler too; planning eight partitions takes longer
-- than reading them. Their settings force plans by the indexes. With statistics from before a large load, the planner
-- would read and sort the whole backlog for each page. It expects many rows with `xid >= xmax`, and would read them all
-- to find none. BETWEEN is used for an equality. With `=`, ORDER BY id alone is enough for the planner. A walk of the
-- ids then seems cheap if one transaction has many changes.
--
-- row_security = off: a policy that would hide rows of the log is then an error, not an empty log.

-- The shard of a consumer that a record belongs to, by its sfid if it has one. A record that is deleted and created
-- again has another key, but the order of all its changes counts.
CREATE FUNCTION public.hc_signals_shard_of(of_table text, record_id text, record_key text, shards integer)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN shards = 1 THEN 0 ELSE (
        (hashtextextended(of_table || ' ' || coalesce(record_id, record_key, ''), 0) & 9223372036854775807) % shards
    )::integer END
$$;

-- The size of an image. The size of a compressed one is unknown until it is unpacked.
CREATE FUNCTION public.hc_signals_image_bytes(image json) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN pg_column_compression(image) IS NULL THEN coalesce(pg_column_size(image), 0)
                ELSE octet_length(image::text) END
$$;

-- A page: the changes of a shard that are visible in `target` and not in `seen`, with these ids, in order. It has the
-- size of their images, not the images.
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

-- The images of changes: the latest image, which for a deletion is the old one, and the old image of updates. ORDER BY
-- holds the planner to the index of ids. In a small log it would find the index of (xid, id) as good, and read it all.
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

-- The number of statements that are not in the log. One above `reported` counts once its transaction has ended, which
-- holds the lock of hc_signals_lose() until it ends: a receiver that reads the table on the gap must see its changes.
CREATE FUNCTION public.hc_signals_lost(reported bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    counted bigint;
BEGIN
    SELECT CASE WHEN l.is_called THEN l.last_value ELSE 0 END INTO counted FROM public.hc_signals_lost_seq l;
    IF counted > reported AND EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 1212372819 AND objid = 2 AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode = 'ShareLock' AND granted
    ) THEN
        RETURN reported;
    END IF;
    RETURN counted;
END
$$;

-- True if a position is stale, after a thousand ids or ten minutes: the worker then stores a new one even if nothing
-- was delivered. A stale position would keep old buckets from being emptied. Each read would pass over all changes of
-- other shards.
CREATE FUNCTION public.hc_signals_is_idle(floor_id bigint, floor_xid xid8, since timestamptz, newest_id bigint)
RETURNS boolean
LANGUAGE sql VOLATILE
AS $$ SELECT coalesce(floor_xid = '1'::xid8 OR newest_id - floor_id > 1 AND since < clock_timestamp()
        - make_interval(secs => CASE WHEN newest_id - floor_id > 1000 THEN 1 ELSE 600 END), false) $$;

-- The standing of a consumer in a shard: its newest position, null before the first; the number of its shards; the
-- highest id drawn so far; whether any of its failed deliveries wait, and whether one is due. And whether another
-- server has replaced ours under the open session, as a pooler can do.
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

-- The current snapshot, the next transaction id of the server, and the highest change id that the snapshot can show.
-- age() counts from the next transaction id, so it is read without taking one. last_value is read after the snapshot
-- was taken, so no visible change is above it.
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

-- Claims a shard until the transaction ends. In the same round trip it reads the standing and a target. If no window is
-- open, it also reads the changes above the floor. They are the first page, unless a change came late. It returns no
-- row if another worker has the shard. The first row has only the head. Each query in it has a snapshot of its own. So
-- the standing has all that the last owner of the claim committed.
CREATE FUNCTION public.hc_signals_claim(of_consumer text, of_shard integer, of_shards integer, size integer)
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

-- The shards in which a page would find a change, or whose position is stale: two probes of the index each.
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

-- Receivers run in the worker's session. From here on the functions guard its settings: hc_signals.delivery.isolation.

-- The settings that a receiver may change in its session, to the harm of other receivers or the worker. These functions
-- must not have SET or SECURITY DEFINER: they would read their own settings, not the receiver's.
CREATE FUNCTION public.hc_signals_settings() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    -- Joined text: an array takes longer to build.
    SELECT pg_catalog.concat_ws(E'\x1f',
        pg_catalog.current_setting('session_authorization'), pg_catalog.current_setting('role'),
        pg_catalog.current_setting('search_path'), pg_catalog.current_setting('xmlbinary'),
        pg_catalog.current_setting('session_replication_role'), pg_catalog.current_setting('row_security'),
        pg_catalog.current_setting('statement_timeout'), pg_catalog.current_setting('lock_timeout'),
        pg_catalog.current_setting('idle_in_transaction_session_timeout'),
        coalesce(pg_catalog.current_setting('transaction_timeout', true), ''),
        pg_catalog.current_setting('transaction_read_only'),
        pg_catalog.current_setting('default_transaction_read_only'),
        pg_catalog.current_setting('default_transaction_isolation'), pg_catalog.current_setting('synchronous_commit'),
        pg_catalog.current_setting('TimeZone'), pg_catalog.current_setting('DateStyle'),
        pg_catalog.current_setting('IntervalStyle'), pg_catalog.current_setting('bytea_output'),
        pg_catalog.current_setting('extra_float_digits'), pg_catalog.current_setting('standard_conforming_strings'),
        pg_catalog.current_setting('client_encoding'))
$$;

-- The names of these settings, in the same order.
CREATE FUNCTION public.hc_signals_setting_names() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '{session_authorization, role, search_path, xmlbinary, session_replication_role, row_security,
        statement_timeout, lock_timeout, idle_in_transaction_session_timeout, transaction_timeout, transaction_read_only,
        default_transaction_read_only, default_transaction_isolation, synchronous_commit, TimeZone, DateStyle,
        IntervalStyle, bytea_output, extra_float_digits, standard_conforming_strings, client_encoding}'::text[]
$$;

-- Notes the settings as they are now, so that the receivers of the transaction leave them so. PostgreSQL would plan
-- PERFORM, and compile it if jit is always on; it does neither with an assignment.
CREATE PROCEDURE public.hc_signals_note_settings()
LANGUAGE plpgsql
AS $$
DECLARE
    noted text;
BEGIN
    noted := pg_catalog.set_config('hc_signals.settings', public.hc_signals_settings(), true);
END
$$;

-- The names of the settings that differ from the noted ones.
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

-- Fails, and with it the savepoint, if a receiver has changed a setting. It is a procedure, because CALL is quicker
-- than SELECT: the server plans nothing and sends no row.
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

-- Sets the settings back to the noted values. It uses SET: after SET LOCAL, the value of an earlier SET would return
-- with the commit.
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

-- SET LOCAL lasts to the end of the transaction, even after a savepoint is released. This restores the settings at the
-- end of a receiver's block of transaction.atomic(), as at the end of a transaction.
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

-- Fails a COMMIT that a receiver sends.
CREATE FUNCTION public.hc_signals_refuse_commit() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'hc_signals commits the transaction itself: a receiver must not end it' USING ERRCODE = 'ZHC02';
END
$$;
