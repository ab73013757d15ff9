-- What the page of one record's history reads: an index of records on the log, and the calls of receivers.

-- The calls of receivers. A worker appends one row per page, in the statement that appends its position. A replay
-- appends one row per page, too. Nothing updates the rows. The buckets are those of the log: they are emptied by
-- TRUNCATE, so an old snapshot that some session holds leaves no dead rows behind.
CREATE TABLE public.hc_signals_heard (
    consumer text NOT NULL,
    shard smallint NOT NULL,
    first_id bigint NOT NULL,           -- the lowest and the highest of the ids in `changes`
    last_id bigint NOT NULL,
    heard_at timestamptz NOT NULL DEFAULT clock_timestamp(),    -- when the calls of the page had ended
    receivers text[] NOT NULL,
    in_bulk boolean[] NOT NULL,         -- by receiver: it was called once for several changes
    is_replay boolean[] NOT NULL,       -- by receiver: hc_replay, or a user of the admin, asked for the calls
    -- By call, one element each; a call for several changes has one element for each of them.
    changes bigint[] NOT NULL,          -- id of the change
    numbers smallint[] NOT NULL,        -- the receiver: its index in `receivers`, from 1
    microseconds integer[] NOT NULL,
    attempts smallint[],                -- NULL: all are 1
    failed boolean[],                   -- NULL: none has failed
    bucket smallint NOT NULL DEFAULT public.hc_signals_bucket()
) PARTITION BY LIST (bucket);
DO $$
BEGIN
    FOR bucket IN 0 .. 7 LOOP
        EXECUTE format('CREATE TABLE public.hc_signals_heard_%s PARTITION OF public.hc_signals_heard '
                       'FOR VALUES IN (%s) WITH (vacuum_truncate = false)', bucket, bucket);
        EXECUTE format('ALTER TABLE public.hc_signals_heard_%s REPLICA IDENTITY FULL', bucket);
    END LOOP;
END
$$;
-- Pages of several shards, retries and replays overlap, so the page of a change is found by its range of ids.
CREATE INDEX hc_signals_heard_ids_idx ON public.hc_signals_heard USING gist (int8range(first_id, last_id, '[]'));

-- The calls for these changes, in order. The settings hold the planner to the index of ids.
CREATE FUNCTION public.hc_signals_calls_of(ids bigint[]) RETURNS TABLE (
    change_id bigint, consumer text, heard_at timestamptz, receiver text, in_bulk boolean, is_replay boolean,
    microseconds integer, attempt smallint, failed boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
SET max_parallel_workers_per_gather = 0
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
    RETURN QUERY
    SELECT k.id, h.consumer, h.heard_at, h.receivers[h.numbers[n]], h.in_bulk[h.numbers[n]], h.is_replay[h.numbers[n]],
           h.microseconds[n], coalesce(h.attempts[n], 1::smallint), coalesce(h.failed[n], false)
    FROM unnest(ids) k (id)
    JOIN public.hc_signals_heard h ON int8range(h.first_id, h.last_id, '[]') @> k.id
    CROSS JOIN LATERAL unnest(array_positions(h.changes, k.id)) n
    ORDER BY k.id, h.heard_at, n;
END
$$;

CREATE INDEX hc_signals_delivery_change_idx ON public.hc_signals_delivery (change_id);

-- Builds the index of records on one bucket of the log, for which it keeps writers out.
--
-- Writers would pay for a B-tree. BRIN keeps one summary for 128 pages of the bucket: Bloom filters of the sfids and of
-- the keys in them, both together far below the 8 kB of a page. An insert into pages without a summary costs next to
-- nothing, one into pages with a summary twenty times as much. So the newest pages, which writers fill, have none.
CREATE FUNCTION public.hc_signals_index_bucket(bucket integer) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS hc_signals_change_%1$s_record_idx ON public.hc_signals_change_%1$s USING brin ('
        'record_id text_bloom_ops (n_distinct_per_range = 2500), '
        'record_key text_bloom_ops (n_distinct_per_range = 2500)) WITH (pages_per_range = 128)', bucket);
    PERFORM brin_desummarize_range(
        format('public.hc_signals_change_%s_record_idx', bucket)::regclass,
        pg_relation_size(format('public.hc_signals_change_%s', bucket)::regclass)
        / current_setting('block_size')::bigint / 128 * 128);
END
$$;
REVOKE ALL ON FUNCTION public.hc_signals_index_bucket(integer) FROM PUBLIC;

-- Whether a lock of writers may be taken on a bucket: writers do not use it soon, or it is empty.
CREATE FUNCTION public.hc_signals_is_quiet(bucket integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_empty boolean;
BEGIN
    IF (bucket - public.hc_signals_bucket() + 8) % 8 > 1 THEN
        RETURN true;
    END IF;
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM public.hc_signals_change_%s)', bucket) INTO is_empty;
    RETURN is_empty;
END
$$;

-- A chore of the worker: summarizes those pages of a bucket that are full, beginning with the range of 128 pages
-- `from_range`, for a second at most. It builds the index if the bucket has none, once writers do not use the
-- bucket. It returns the first range that is not summarized. SECURITY DEFINER: only the owner of the log may do this.
-- No writer waits for it; if another session locks the bucket, such as autovacuum, it gives up for this time.
CREATE FUNCTION public.hc_signals_summarize(bucket integer, from_range bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
SET lock_timeout = '100ms'
AS $$
DECLARE
    started timestamptz := clock_timestamp();
    full_ranges bigint := pg_relation_size(format('public.hc_signals_change_%s', bucket)::regclass)
        / current_setting('block_size')::bigint / 128;
    done bigint := least(from_range, full_ranges);
    records regclass := to_regclass(format('public.hc_signals_change_%s_record_idx', bucket));
BEGIN
    IF records IS NULL THEN
        IF NOT public.hc_signals_is_quiet(bucket) THEN
            RETURN 0;
        END IF;
        EXECUTE format('LOCK TABLE ONLY public.hc_signals_change_%s IN SHARE MODE NOWAIT', bucket);
        PERFORM public.hc_signals_index_bucket(bucket);
        RETURN full_ranges;
    END IF;
    WHILE done < full_ranges AND clock_timestamp() < started + interval '1 second' LOOP
        PERFORM brin_summarize_range(records, done * 128);
        done := done + 1;
    END LOOP;
    PERFORM brin_desummarize_range(records, full_ranges * 128);
    RETURN done;
EXCEPTION WHEN lock_not_available THEN
    RETURN from_range;
END
$$;

-- The newest changes of a record of a table, with ids in between, as {"ids": [...], "unsearched": ...}: the changes with
-- its sfid, and those with one of its keys that have no sfid. Without an sfid: all changes with one of the keys. Without
-- both: the rows of the log that concern the whole table. `unsearched` is the highest id that was not searched in a
-- bucket without the index, or null.
--
-- Buckets are read from the newest to the oldest, until `size` changes are found. A record that changes all the time is
-- in every range of pages, so first the newest ids are searched one by one.
CREATE FUNCTION public.hc_signals_of_record(
    of_table text, sfid text, keys text[], after_id bigint, before_id bigint, size integer
) RETURNS json
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
SET max_parallel_workers_per_gather = 0
SET enable_seqscan = off
SET enable_indexscan = on
SET enable_bitmapscan = on
AS $$
DECLARE
    wanted text := '';
    ids bigint[] := '{}';
    more bigint[];
    unsearched bigint;
    part record;
    lowest bigint;
    is_first boolean := sfid IS NOT NULL OR cardinality(keys) > 0;
    k text;
BEGIN
    IF sfid IS NOT NULL THEN
        wanted := format('record_id = %L', sfid);
    END IF;
    FOREACH k IN ARRAY keys LOOP
        wanted := concat_ws(' OR ', nullif(wanted, ''), format(
            CASE WHEN sfid IS NULL THEN 'record_key = %L' ELSE 'record_id IS NULL AND record_key = %L' END, k));
    END LOOP;
    IF wanted = '' THEN
        wanted := 'record_id IS NULL AND record_key IS NULL';
    END IF;
    wanted := format('table_name = %L AND (%s)', of_table, wanted);
    FOR part IN
        SELECT n.bucket, n.newest, to_regclass(format('public.hc_signals_change_%s_record_idx', n.bucket)) AS records
        FROM (
            SELECT b.bucket, (SELECT c.id FROM public.hc_signals_change c
                              WHERE c.bucket = b.bucket AND c.id < before_id ORDER BY c.id DESC LIMIT 1) AS newest
            FROM generate_series(0, 7) b (bucket)
        ) n WHERE n.newest > after_id ORDER BY n.newest DESC
    LOOP
        EXIT WHEN cardinality(ids) >= size AND ids[size] > part.newest;
        more := '{}';
        lowest := greatest(after_id, part.newest - CASE WHEN part.records IS NULL THEN 200000 ELSE 5000 END);
        IF is_first OR part.records IS NULL THEN
            -- OFFSET 0 keeps the condition out of the walk of the ids, so that only the index of ids can be used.
            EXECUTE format(
                'SELECT coalesce(array_agg(id), ''{}'') FROM (SELECT id FROM (SELECT * FROM public.hc_signals_change_%s '
                'WHERE id > $1 AND id < $2 ORDER BY id DESC OFFSET 0) newest WHERE %s LIMIT $3) found',
                part.bucket, wanted) INTO more USING lowest, before_id, size;
        END IF;
        IF part.records IS NULL THEN
            unsearched := greatest(unsearched, (
                SELECT c.id FROM public.hc_signals_change c
                WHERE c.bucket = part.bucket AND c.id <= lowest AND c.id > after_id ORDER BY c.id DESC LIMIT 1));
        ELSIF cardinality(more) < size THEN
            -- Without the index of ids, only that of records can be used.
            SET LOCAL enable_indexscan = off;
            EXECUTE format(
                'SELECT coalesce(array_agg(id ORDER BY id DESC), ''{}'') FROM (SELECT id FROM public.hc_signals_change_%s '
                'WHERE %s AND id + 0 > $1 AND id + 0 < $2 ORDER BY id DESC LIMIT $3) found',
                part.bucket, wanted) INTO more USING after_id, before_id, size;
            SET LOCAL enable_indexscan = on;
        END IF;
        ids := ARRAY(SELECT f.id FROM unnest(ids || more) f (id) ORDER BY f.id DESC LIMIT size);
        is_first := false;
    END LOOP;
    RETURN json_build_object('ids', to_json(ids), 'unsearched', unsearched);
END
$$;

-- The bucket that is filled now gets the index only if it is empty and no writer uses it. The chore builds it later.
-- This is the last statement, and the next bucket the last of the loop: their locks end with the transaction.
DO $$
DECLARE
    bucket integer;
BEGIN
    FOR number IN 0 .. 7 LOOP
        bucket := (public.hc_signals_bucket() + 7 - number + 8) % 8;
        IF public.hc_signals_is_quiet(bucket) THEN
            BEGIN
                EXECUTE format('LOCK TABLE ONLY public.hc_signals_change_%s IN SHARE MODE NOWAIT', bucket);
                IF public.hc_signals_is_quiet(bucket) THEN
                    PERFORM public.hc_signals_index_bucket(bucket);
                END IF;
            EXCEPTION WHEN lock_not_available THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;
