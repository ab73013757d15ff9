-- Removes 01_tables.sql.
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
DROP FUNCTION IF EXISTS public.hc_signals_bucket();
DROP SEQUENCE IF EXISTS public.hc_signals_lost_seq;
