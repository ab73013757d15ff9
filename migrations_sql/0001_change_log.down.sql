-- Takes everything back that 0001_change_log.sql made. Capture functions are removed by `hc_triggers uninstall`.
DROP FUNCTION IF EXISTS public.hc_signals_settle(text);
DROP FUNCTION IF EXISTS public.hc_signals_ring();
DROP TABLE IF EXISTS public.hc_signals_delivery;
DROP VIEW IF EXISTS public.hc_signals_newest_position;
DROP TABLE IF EXISTS public.hc_signals_position;
DROP TABLE IF EXISTS public.hc_signals_control;
DROP TABLE IF EXISTS public.hc_signals_change;
DROP SEQUENCE IF EXISTS public.hc_signals_lost_seq;
