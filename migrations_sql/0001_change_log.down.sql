-- Takes everything back that 0001_change_log.sql and `hc_triggers install` made.
-- A capture function takes its triggers with it; a table that is busy for long makes this wait.
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
DROP FUNCTION IF EXISTS public.hc_signals_refuse_commit();
DROP PROCEDURE IF EXISTS public.hc_signals_restore_settings();
DROP FUNCTION IF EXISTS public.hc_signals_set_back(text);
DROP FUNCTION IF EXISTS public.hc_signals_settings_left(text);
DROP PROCEDURE IF EXISTS public.hc_signals_check_settings(text);
DROP PROCEDURE IF EXISTS public.hc_signals_note_settings();
DROP FUNCTION IF EXISTS public.hc_signals_setting_names();
DROP FUNCTION IF EXISTS public.hc_signals_settings();
DROP FUNCTION IF EXISTS public.hc_signals_waiting(text, integer);
DROP FUNCTION IF EXISTS public.hc_signals_look(text, integer, integer, integer);
DROP FUNCTION IF EXISTS public.hc_signals_target();
DROP FUNCTION IF EXISTS public.hc_signals_standing(text, integer);
DROP FUNCTION IF EXISTS public.hc_signals_is_idle(bigint, xid8, timestamptz, bigint);
DROP FUNCTION IF EXISTS public.hc_signals_lost(bigint);
DROP FUNCTION IF EXISTS public.hc_signals_images(bigint[]);
DROP FUNCTION IF EXISTS public.hc_signals_page(pg_snapshot, pg_snapshot, bigint, bigint, integer, integer, integer);
DROP FUNCTION IF EXISTS public.hc_signals_image_bytes(json);
DROP FUNCTION IF EXISTS public.hc_signals_shard_of(text, text, text, integer);
DROP FUNCTION IF EXISTS public.hc_signals_settle(text);
DROP FUNCTION IF EXISTS public.hc_signals_is_empty(regclass);
DROP FUNCTION IF EXISTS public.hc_signals_join_reload(text);
DROP FUNCTION IF EXISTS public.hc_signals_ring();
DROP FUNCTION IF EXISTS public.hc_signals_renamed(oid, text);
DROP FUNCTION IF EXISTS public.hc_signals_lose();
DROP FUNCTION IF EXISTS public.hc_signals_admit();
DROP TABLE IF EXISTS public.hc_signals_passed;
DROP TABLE IF EXISTS public.hc_signals_unlogged;
DROP TABLE IF EXISTS public.hc_signals_table;
DROP TABLE IF EXISTS public.hc_signals_refill;
DROP TABLE IF EXISTS public.hc_signals_reload;
DROP TABLE IF EXISTS public.hc_signals_cleared;
DROP TABLE IF EXISTS public.hc_signals_call;
DROP TABLE IF EXISTS public.hc_signals_run;
DROP TABLE IF EXISTS public.hc_signals_delivery;
DROP VIEW IF EXISTS public.hc_signals_newest_position;
DROP TABLE IF EXISTS public.hc_signals_position;
DROP FUNCTION IF EXISTS public.hc_signals_next_epoch(text);
DROP FUNCTION IF EXISTS public.hc_signals_timeline();
DROP TABLE IF EXISTS public.hc_signals_control;
DROP TABLE IF EXISTS public.hc_signals_change;
DROP SEQUENCE IF EXISTS public.hc_signals_lost_seq;
