-- What workers and pages of the admin call to read images that have a layout, and capture to order them.

-- The size of an image. The size of a compressed one is unknown until it is unpacked.
CREATE FUNCTION public.hc_signals_image_bytes(image text[]) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN pg_column_compression(image) IS NULL THEN coalesce(pg_column_size(image), 0)
                ELSE pg_column_size(array_cat(image, '{}')) END
$$;

-- The images of changes with a layout, or without (0): the image that has one; the latest image as JSON, which for a
-- deletion is the old one; the old image of updates. It keeps its plan. To plan eight partitions for each page would
-- take longer than to read it. ORDER BY holds the planner to the index of ids. In a small log it would find the index
-- of (xid, id) as good, and read it all.
CREATE FUNCTION public.hc_signals_images_of(ids bigint[], of_layout bigint)
RETURNS TABLE (id bigint, image text[], latest json, old json)
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
    SELECT c.id, c.image, coalesce(c.new, c.old), CASE WHEN c.operation = 'UPDATE' THEN c.old END
    FROM public.hc_signals_change c WHERE c.id = ANY (ids) AND coalesce(c.layout, 0) = of_layout
    ORDER BY c.id;
END
$$;

-- The images of a few changes as objects that json_populate_record() takes. To plan a query of casts takes as long as to
-- read thirty of these.
CREATE FUNCTION public.hc_signals_few_images(ids bigint[], of_table regclass)
RETURNS TABLE (id bigint, latest json, old json)
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
    json_columns text[] := public.hc_signals_json_columns(of_table);
BEGIN
    RETURN QUERY
    SELECT c.id, CASE WHEN c.layout IS NULL THEN coalesce(c.new, c.old) ELSE public.hc_signals_unquoted(
               json_object(public.hc_signals_columns(c.layout), c.image), json_columns) END,
           CASE WHEN c.operation = 'UPDATE' THEN CASE WHEN c.layout IS NULL THEN c.old
                ELSE public.hc_signals_unquoted(c.old, json_columns) END END
    FROM public.hc_signals_change c WHERE c.id = ANY (ids)
    ORDER BY c.id;
END
$$;

-- The query for images of changes of a table: their ids ($1), then `names` of the latest image, which for a deletion is
-- the old one, then `old_names` of the old image of updates. Columns have the types that they have now, as by
-- json_populate_record(), which takes twice as long. Without a layout it is the only way, and with many old columns it
-- is the shorter one.
--
-- array_append() unpacks an image once: the subscripts of the result do not count elements. OFFSET 0 keeps it in place.
CREATE FUNCTION public.hc_signals_images_query(ids bigint[], of_table regclass, names text[], old_names text[])
RETURNS text
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
    layouts bigint[] := ARRAY(
        SELECT DISTINCT coalesce(found.layout, 0) FROM (
            SELECT c.layout FROM public.hc_signals_change c WHERE c.id = ANY (ids) ORDER BY c.id
        ) found
    );
    is_record boolean := cardinality(old_names) > 8;
    json_columns text[];
    parts text[] := '{}';
    fields text;
    olds text;
    one bigint;
BEGIN
    IF layouts = '{}' THEN
        layouts := '{0}';
    END IF;
    IF is_record AND layouts <> '{0}' THEN
        json_columns := public.hc_signals_json_columns(of_table);
    END IF;
    FOREACH one IN ARRAY layouts LOOP
        IF one = 0 THEN
            SELECT string_agg(format('r.%I', n.name), ', ' ORDER BY n.number) INTO fields
            FROM unnest(names) WITH ORDINALITY n (name, number);
            SELECT string_agg(format(', o.%I', n.name), '' ORDER BY n.number) INTO olds
            FROM unnest(old_names) WITH ORDINALITY n (name, number);
            parts := parts || format(
                'SELECT c.id, %s%s FROM public.hc_signals_images_of($1, 0) c, '
                'LATERAL json_populate_record(NULL::%s, c.latest) r, LATERAL json_populate_record(NULL::%s, c.old) o',
                fields, olds, of_table, of_table);
            CONTINUE;
        END IF;
        WITH present AS (
            -- The length of char(n) matters: text has lost its blanks. Any other length could cut a value off.
            SELECT a.attname::text AS name, format_type(a.atttypid, CASE a.atttypid
                WHEN 'bpchar'::regtype THEN a.atttypmod ELSE -1 END) AS type
            FROM pg_attribute a WHERE a.attrelid = of_table AND a.attnum > 0 AND NOT a.attisdropped
        ), stored AS (
            SELECT l.name, l.number FROM unnest(public.hc_signals_columns(one)) WITH ORDINALITY l (name, number)
        )
        SELECT (
            SELECT string_agg(CASE WHEN p.type IS NULL THEN format('(NULL::%s).%I', of_table, n.name)
                                   WHEN s.number IS NULL THEN format('NULL::%s', p.type)
                                   ELSE format('c.a[%s]::%s', s.number, p.type) END, ', ' ORDER BY n.number)
            FROM unnest(names) WITH ORDINALITY n (name, number) LEFT JOIN present p USING (name) LEFT JOIN stored s USING (name)
        ), (
            SELECT string_agg(CASE WHEN is_record THEN format(', o.%I', n.name)
                                   ELSE format(', (c.old ->> %L)::%s', n.name, p.type) END, '' ORDER BY n.number)
            FROM unnest(old_names) WITH ORDINALITY n (name, number) LEFT JOIN present p USING (name)
        ) INTO fields, olds;
        parts := parts || format(
            'SELECT c.id, %s%s FROM (SELECT c.id, array_append(c.image, NULL) AS a, c.old '
            'FROM public.hc_signals_images_of($1, %s) c OFFSET 0) c',
            fields, olds, one);
        IF is_record THEN
            parts[cardinality(parts)] := parts[cardinality(parts)] || format(
                ', LATERAL json_populate_record(NULL::%s, public.hc_signals_unquoted(c.old, %L)) o',
                of_table, json_columns);
        END IF;
    END LOOP;
    RETURN array_to_string(parts, ' UNION ALL ');
END
$$;

-- Opens that query as cursor `hc_signals_images`, for FETCH ALL and CLOSE in the same message: a function cannot return
-- rows of columns that its caller does not know.
DROP FUNCTION public.hc_signals_images(bigint[]);
CREATE FUNCTION public.hc_signals_images(ids bigint[], of_table regclass, names text[], old_names text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    images refcursor := 'hc_signals_images';
BEGIN
    OPEN images NO SCROLL FOR EXECUTE public.hc_signals_images_query(ids, of_table, names, old_names) USING ids;
END
$$;

-- The log with the old and the new image of every change as JSON, for people and for failed deliveries. It is slower
-- than hc_signals_images(). The old image of an update may have the changed columns only.
CREATE VIEW public.hc_signals_log AS
SELECT c.id, c.xid, c.captured_at, c.table_name, c.operation, c.origin, c.record_key, c.record_id, c.changed,
       CASE WHEN c.layout IS NULL THEN c.old
            WHEN c.operation = 'DELETE' THEN public.hc_signals_json(c.table_name, c.layout, c.image)
            ELSE public.hc_signals_typed(c.table_name, c.old) END AS old,
       CASE WHEN c.layout IS NULL THEN c.new
            WHEN c.operation <> 'DELETE' THEN public.hc_signals_json(c.table_name, c.layout, c.image) END AS new,
       c.note, c.depth, c.bucket, c.layout, c.image
FROM public.hc_signals_change c;

-- Who may read the log may read it here.
DO $$
DECLARE
    reader text;
BEGIN
    FOR reader IN
        SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
        FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = 'public.hc_signals_change'::regclass AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT SELECT ON public.hc_signals_log TO %s', reader);
    END LOOP;
END
$$;

-- A page, as before, with the size of images that have a layout.
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
    SELECT public.hc_signals_image_bytes(c.old) + public.hc_signals_image_bytes(c.new)
           + public.hc_signals_image_bytes(c.image),
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

-- An image as it was before a change that has a layout; NULL before a record was created.
CREATE FUNCTION public.hc_signals_image_before(operation text, of_layout bigint, image text[], old json) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    IF operation <> 'UPDATE' THEN
        RETURN CASE operation WHEN 'DELETE' THEN image END;
    END IF;
    RETURN ARRAY(
        SELECT CASE WHEN old -> i.name IS NULL THEN i.value ELSE old ->> i.name END
        FROM unnest(public.hc_signals_columns(of_layout), image) WITH ORDINALITY i (name, value, number)
        ORDER BY i.number
    );
END
$$;
REVOKE ALL ON FUNCTION public.hc_signals_image_before(text, bigint, text[], json) FROM PUBLIC;

-- Moves the changes of a nested statement behind the statement that caused them, as before, also by images.
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
         AND o.layout IS NOT DISTINCT FROM n.layout
         AND CASE WHEN o.layout IS NULL THEN o.new::jsonb = coalesce(n.new::jsonb, '{}') || n.old::jsonb
                  ELSE o.image = public.hc_signals_image_before(n.operation, n.layout, n.image, n.old) END
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
        (table_name, operation, origin, record_key, record_id, changed, old, new, note, depth, captured_at,
         layout, image)
    SELECT m.table_name, m.operation, m.origin, m.record_key, m.record_id, m.changed, m.old, m.new, m.note, own_depth,
           m.captured_at, m.layout, m.image
    FROM moved m ORDER BY m.id;
END
$$;
