-- Removes 02_capture.sql and what `hc_triggers install` created. Dropping a capture function drops its triggers too.
-- This waits for a busy table.
DO $$
DECLARE
    capture regprocedure;
BEGIN
    FOR capture IN
        SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'public' AND p.proname LIKE 'hc\_signals\_capture\_%'
    LOOP
        EXECUTE 'DROP FUNCTION ' || capture || ' CASCADE';
    END LOOP;
END
$$;
DROP FUNCTION IF EXISTS public.hc_signals_admit(), public.hc_signals_lose(), public.hc_signals_renamed(oid, text),
    public.hc_signals_ring(), public.hc_signals_join_reload(text), public.hc_signals_is_empty(regclass),
    public.hc_signals_reorder(text);
