-- What the workers did, minute by minute: for charts, and for the freshness of each model.
--
-- A process appends a row for each minute in which it delivered a change or called a receiver, or in which a gauge
-- changed; readers add up the rows of a minute. The figures are counts and seconds, by table and by receiver, and never
-- values of records. hc_signals.log.minutes writes and reads them.
CREATE TABLE public.hc_signals_minute (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    minute timestamptz NOT NULL,    -- its start
    consumer text NOT NULL,
    figures json NOT NULL
) WITH (vacuum_truncate = false);
CREATE INDEX hc_signals_minute_minute_idx ON public.hc_signals_minute (minute, id);
