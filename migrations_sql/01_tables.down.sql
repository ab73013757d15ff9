-- Removes 01_tables.sql.
DROP VIEW IF EXISTS public.hc_signals_newest_position;
DROP TABLE IF EXISTS public.hc_signals_change, public.hc_signals_control, public.hc_signals_position,
    public.hc_signals_delivery, public.hc_signals_run, public.hc_signals_call, public.hc_signals_cleared,
    public.hc_signals_reload, public.hc_signals_refill, public.hc_signals_table, public.hc_signals_unlogged,
    public.hc_signals_passed;
DROP FUNCTION IF EXISTS public.hc_signals_bucket(), public.hc_signals_timeline(), public.hc_signals_next_epoch(text);
DROP SEQUENCE IF EXISTS public.hc_signals_lost_seq;
