-- Removes 08_waiting.sql, and brings back what it has replaced.
DROP FUNCTION IF EXISTS public.hc_signals_look(text, integer);

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
