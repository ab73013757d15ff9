-- Removes 05_calls.sql.
--
-- Writers would queue behind a lock that waits. A worker that has read a bucket may want the table of calls, so to wait
-- for the bucket with a lock on that table would never end. So all locks are taken at once, when no session uses any of
-- these tables.
DO $$
DECLARE
    tables text;
BEGIN
    SELECT string_agg('ONLY public.' || name, ', ') INTO tables
    FROM unnest('{hc_signals_delivery,hc_signals_heard}' ||
                ARRAY(SELECT format('hc_signals_%s_%s', t, n) FROM unnest('{change,heard}'::text[]) t, generate_series(0, 7) n)
         ) name
    WHERE to_regclass('public.' || name) IS NOT NULL;
    FOR attempt IN 1 .. 1500 LOOP
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', tables);
            DROP INDEX IF EXISTS public.hc_signals_delivery_change_idx;
            DROP TABLE IF EXISTS public.hc_signals_heard;
            FOR bucket IN 0 .. 7 LOOP
                EXECUTE format('DROP INDEX IF EXISTS public.hc_signals_change_%s_record_idx', bucket);
            END LOOP;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 1500 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.01 + random() * 0.02);
        END;
    END LOOP;
END
$$;
DROP FUNCTION IF EXISTS public.hc_signals_of_record(text, text, text[], bigint, bigint, integer),
    public.hc_signals_calls_of(bigint[]), public.hc_signals_summarize(integer, bigint), public.hc_signals_is_quiet(integer),
    public.hc_signals_index_bucket(integer);
