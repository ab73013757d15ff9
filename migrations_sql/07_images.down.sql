-- Removes 07_images.sql: the functions are again those of 02_capture.sql and 03_reading.sql.
DROP VIEW IF EXISTS public.hc_signals_log;
DROP FUNCTION IF EXISTS public.hc_signals_images(bigint[], regclass, text[], text[]),
    public.hc_signals_images_query(bigint[], regclass, text[], text[]), public.hc_signals_images_of(bigint[], bigint),
    public.hc_signals_few_images(bigint[], regclass);
CREATE OR REPLACE FUNCTION public.hc_signals_page(
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

CREATE OR REPLACE FUNCTION public.hc_signals_images(ids bigint[]) RETURNS TABLE (id bigint, latest json, old json)
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

CREATE OR REPLACE FUNCTION public.hc_signals_reorder(captured_table text) RETURNS void
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

DROP FUNCTION IF EXISTS public.hc_signals_image_bytes(text[]),
    public.hc_signals_image_before(text, bigint, text[], json);
