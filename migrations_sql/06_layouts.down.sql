-- Removes 06_layouts.sql. Changes and deliveries stay: their images are JSON again.
--
-- Most images are rewritten before the lock. Writers that follow find their columns missing; their capture functions
-- then log JSON, until older ones are installed.
UPDATE public.hc_signals_change SET
    new = CASE WHEN operation <> 'DELETE' THEN public.hc_signals_json(table_name, layout, image) END,
    old = CASE WHEN operation = 'DELETE' THEN public.hc_signals_json(table_name, layout, image)
               ELSE public.hc_signals_typed(table_name, old) END,
    layout = NULL, image = NULL
WHERE layout IS NOT NULL;
DO $$
BEGIN
    FOR attempt IN 1 .. 1500 LOOP
        BEGIN
            -- All at once: a page that holds one of them may want another.
            LOCK TABLE public.hc_signals_change, public.hc_signals_delivery, public.hc_signals_layout
                IN ACCESS EXCLUSIVE MODE NOWAIT;
            UPDATE public.hc_signals_change SET
                new = CASE WHEN operation <> 'DELETE' THEN public.hc_signals_json(table_name, layout, image) END,
                old = CASE WHEN operation = 'DELETE' THEN public.hc_signals_json(table_name, layout, image)
                           ELSE public.hc_signals_typed(table_name, old) END,
                layout = NULL, image = NULL
            WHERE layout IS NOT NULL;
            ALTER TABLE public.hc_signals_change DROP COLUMN layout, DROP COLUMN image;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 1500 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.01 + random() * 0.02);
        END;
    END LOOP;
END
$$;
ALTER TABLE public.hc_signals_delivery DROP CONSTRAINT IF EXISTS hc_signals_delivery_image_check;
DROP FUNCTION IF EXISTS public.hc_signals_json(text, bigint, text[]), public.hc_signals_typed(text, json),
    public.hc_signals_unquoted(json, text[]), public.hc_signals_as_json(text), public.hc_signals_json_columns(oid),
    public.hc_signals_value(bigint, text[], text), public.hc_signals_columns(bigint);
DROP TABLE IF EXISTS public.hc_signals_layout;
