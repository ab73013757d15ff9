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
DROP FUNCTION IF EXISTS public.hc_signals_reorder(text);
DROP FUNCTION IF EXISTS public.hc_signals_is_empty(regclass);
DROP FUNCTION IF EXISTS public.hc_signals_join_reload(text);
DROP FUNCTION IF EXISTS public.hc_signals_ring();
DROP FUNCTION IF EXISTS public.hc_signals_renamed(oid, text);
DROP FUNCTION IF EXISTS public.hc_signals_lose();
DROP FUNCTION IF EXISTS public.hc_signals_admit();
