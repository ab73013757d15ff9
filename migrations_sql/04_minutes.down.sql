-- Removes 04_minutes.sql.
DROP TABLE IF EXISTS public.hc_signals_minute;
