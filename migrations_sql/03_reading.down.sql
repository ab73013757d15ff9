-- Removes 03_reading.sql.
DROP PROCEDURE IF EXISTS public.hc_signals_note_settings(), public.hc_signals_check_settings(text),
    public.hc_signals_restore_settings();
DROP FUNCTION IF EXISTS public.hc_signals_refuse_commit(), public.hc_signals_set_back(text),
    public.hc_signals_settings_left(text), public.hc_signals_setting_names(), public.hc_signals_settings(),
    public.hc_signals_waiting(text, integer), public.hc_signals_claim(text, integer, integer, integer),
    public.hc_signals_target(), public.hc_signals_standing(text, integer),
    public.hc_signals_is_idle(bigint, xid8, timestamptz, bigint), public.hc_signals_lost(bigint),
    public.hc_signals_images(bigint[]), public.hc_signals_image_bytes(json),
    public.hc_signals_page(pg_snapshot, pg_snapshot, bigint, bigint, integer, integer, integer),
    public.hc_signals_shard_of(text, text, text, integer);
