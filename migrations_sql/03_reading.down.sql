-- Removes 03_reading.sql.
DROP FUNCTION IF EXISTS public.hc_signals_refuse_commit();
DROP PROCEDURE IF EXISTS public.hc_signals_restore_settings();
DROP FUNCTION IF EXISTS public.hc_signals_set_back(text);
DROP FUNCTION IF EXISTS public.hc_signals_settings_left(text);
DROP PROCEDURE IF EXISTS public.hc_signals_check_settings(text);
DROP PROCEDURE IF EXISTS public.hc_signals_note_settings();
DROP FUNCTION IF EXISTS public.hc_signals_setting_names();
DROP FUNCTION IF EXISTS public.hc_signals_settings();
DROP FUNCTION IF EXISTS public.hc_signals_waiting(text, integer);
DROP FUNCTION IF EXISTS public.hc_signals_claim(text, integer, integer, integer);
DROP FUNCTION IF EXISTS public.hc_signals_target();
DROP FUNCTION IF EXISTS public.hc_signals_standing(text, integer);
DROP FUNCTION IF EXISTS public.hc_signals_is_idle(bigint, xid8, timestamptz, bigint);
DROP FUNCTION IF EXISTS public.hc_signals_lost(bigint);
DROP FUNCTION IF EXISTS public.hc_signals_images(bigint[]);
DROP FUNCTION IF EXISTS public.hc_signals_page(pg_snapshot, pg_snapshot, bigint, bigint, integer, integer, integer);
DROP FUNCTION IF EXISTS public.hc_signals_image_bytes(json);
DROP FUNCTION IF EXISTS public.hc_signals_shard_of(text, text, text, integer);
