-- Removes 05_calls.sql.
DROP FUNCTION IF EXISTS public.hc_signals_of_record(text, text, text[], bigint, bigint, integer),
    public.hc_signals_calls_of(bigint[]), public.hc_signals_summarize(integer, bigint), public.hc_signals_is_quiet(integer),
    public.hc_signals_index_bucket(integer);
DROP INDEX IF EXISTS public.hc_signals_delivery_change_idx;
DROP TABLE IF EXISTS public.hc_signals_heard;
-- Writers would queue behind a lock that waits, so each bucket is locked once no session uses it.
DO $$
BEGIN
    FOR bucket IN 0 .. 7 LOOP
        FOR attempt IN 1 .. 500 LOOP
            BEGIN
                EXECUTE format('LOCK TABLE ONLY public.hc_signals_change_%s IN ACCESS EXCLUSIVE MODE NOWAIT', bucket);
                EXECUTE format('DROP INDEX IF EXISTS public.hc_signals_change_%s_record_idx', bucket);
                EXIT;
            EXCEPTION WHEN lock_not_available THEN
                IF attempt = 500 THEN
                    RAISE;
                END IF;
                PERFORM pg_sleep(0.02);
            END;
        END LOOP;
    END LOOP;
END
$$;
