-- What an idle worker asks: one function for all its shards, failed deliveries too. It keeps its plans, as those of
-- 03_reading.sql do, and takes the place of hc_signals_waiting(), which read the log once for each shard.

-- The shards in which a page would find a change, or whose position is stale; seconds until the next retry of a failed
-- delivery, NULL if none waits; the shards of those that are due.
--
-- The log is read once, from the lowest transaction that may be new in any shard. Most shards are near the newest
-- change, so few rows are read. If there are many, the log is read for each shard: a shard that is behind must not keep
-- others from being found.
DROP FUNCTION public.hc_signals_waiting(text, integer);
CREATE FUNCTION public.hc_signals_look(of_consumer text, of_shards integer)
RETURNS TABLE (waiting integer[], retry_seconds double precision, due integer[])
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
DECLARE
    -- By shard, the snapshot whose changes are delivered; NULL if the shard waits for another reason.
    seens pg_snapshot[];
    lowest xid8;
    any_open boolean;
    are_many boolean;
BEGIN
    SELECT array_agg(p.shard) FILTER (WHERE p.is_waiting),
           array_agg(p.seen ORDER BY p.shard),
           (array_agg(pg_snapshot_xmax(p.seen) ORDER BY pg_snapshot_xmax(p.seen)))[1],
           bool_or(pg_snapshot_xmin(p.seen) <> pg_snapshot_xmax(p.seen))
    INTO waiting, seens, lowest, any_open
    FROM (
        SELECT w.shard, w.is_waiting, CASE WHEN NOT w.is_waiting THEN w.seen END AS seen FROM (
            SELECT n.shard, o.seen, o.id IS NULL OR o.target IS NOT NULL
                OR public.hc_signals_is_idle(o.floor_id, o.floor_xid, o.created_at, s.last_value)
                OR CASE WHEN n.shard = 0 THEN o.gap IS NOT NULL OR o.lost < public.hc_signals_lost(o.lost)
                        ELSE false END AS is_waiting
            FROM public.hc_signals_change_id_seq s
            CROSS JOIN generate_series(0, of_shards - 1) n (shard)
            LEFT JOIN LATERAL (
                SELECT * FROM public.hc_signals_position newest
                WHERE newest.consumer = of_consumer AND newest.shard = n.shard
                ORDER BY newest.id DESC LIMIT 1
            ) o ON true
        ) w
    ) p;
    waiting := coalesce(waiting, '{}');
    IF lowest IS NOT NULL THEN
        SELECT waiting || coalesce(array_agg(DISTINCT c.shard) FILTER (
                   WHERE NOT pg_visible_in_snapshot(c.xid, seens[c.shard + 1])), '{}'),
               count(*) >= 1000
        INTO waiting, are_many
        FROM (
            SELECT l.xid, public.hc_signals_shard_of(l.table_name, l.record_id, l.record_key, of_shards) AS shard
            FROM public.hc_signals_change l WHERE l.xid >= lowest ORDER BY l.xid, l.id LIMIT 1000
        ) c;
        IF any_open THEN
            SELECT waiting || coalesce(array_agg(DISTINCT c.shard) FILTER (
                       WHERE NOT pg_visible_in_snapshot(c.xid, seens[c.shard + 1])), '{}'),
                   are_many OR count(*) >= 1000
            INTO waiting, are_many
            FROM (SELECT DISTINCT x FROM unnest(seens) s (seen), pg_snapshot_xip(s.seen) x) open (x), LATERAL (
                SELECT l.xid, public.hc_signals_shard_of(l.table_name, l.record_id, l.record_key, of_shards) AS shard
                FROM public.hc_signals_change l WHERE l.xid BETWEEN open.x AND open.x ORDER BY l.xid, l.id LIMIT 1000
            ) c;
        END IF;
        IF are_many THEN
            SELECT waiting || coalesce(array_agg(n.shard), '{}') INTO waiting
            FROM generate_series(0, of_shards - 1) n (shard)
            WHERE n.shard <> ALL (waiting) AND (
                EXISTS (SELECT FROM public.hc_signals_change l WHERE l.xid >= pg_snapshot_xmax(seens[n.shard + 1])
                    AND public.hc_signals_shard_of(l.table_name, l.record_id, l.record_key, of_shards) = n.shard
                    ORDER BY l.xid, l.id LIMIT 1)
                OR EXISTS (SELECT FROM pg_snapshot_xip(seens[n.shard + 1]) open (x), LATERAL (
                    SELECT FROM public.hc_signals_change l WHERE l.xid BETWEEN open.x AND open.x
                    AND public.hc_signals_shard_of(l.table_name, l.record_id, l.record_key, of_shards) = n.shard
                    ORDER BY l.xid, l.id LIMIT 1) late));
        END IF;
    END IF;
    SELECT extract(epoch FROM min(d.next_attempt_at) - clock_timestamp()) INTO retry_seconds
    FROM public.hc_signals_delivery d WHERE d.consumer = of_consumer AND d.state = 'retry';
    due := '{}';
    IF retry_seconds <= 0 THEN
        -- The first thousand due deliveries are enough to find the shards.
        due := ARRAY(
            SELECT DISTINCT public.hc_signals_shard_of(f.table_name, f.record_id, f.record_key, of_shards) FROM (
                SELECT d.table_name, d.record_id, d.record_key FROM public.hc_signals_delivery d
                WHERE d.consumer = of_consumer AND d.state = 'retry' AND d.next_attempt_at <= clock_timestamp()
                ORDER BY d.next_attempt_at LIMIT 1000
            ) f
        );
    END IF;
    RETURN NEXT;
END
$$;
