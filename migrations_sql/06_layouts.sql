-- Images without the names of their columns: less work for writers, and a smaller log.
--
-- A row of the log with a layout has the record as `image`, one text per column of the layout: the new row, or the
-- deleted one. Its `old`, which updates alone have, is an object of texts. The texts are what PostgreSQL writes for a
-- value with DateStyle ISO. A row without a layout has JSON in `old` and `new`, as snapshots and older changes have.

-- The columns of images, in order. The id is a digest of the columns, so it is the same in every database, and equal
-- lists share it. No layout is changed or deleted: the log of a later copy of the database may need it.
CREATE TABLE public.hc_signals_layout (
    id bigint PRIMARY KEY,
    columns text[] NOT NULL CHECK (cardinality(columns) > 0)
) WITH (vacuum_truncate = false);

-- The columns of a layout. If the table lacks it, because a tool has emptied all tables or this file was removed and run
-- again, the capture function that writes such images names them. SECURITY DEFINER: a role that may read images needs
-- no right on the layouts.
CREATE FUNCTION public.hc_signals_columns(of_layout bigint) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    found text[];
BEGIN
    SELECT l.columns INTO found FROM public.hc_signals_layout l WHERE l.id = of_layout;
    IF found IS NULL THEN
        SELECT ARRAY(SELECT json_array_elements_text(substring(p.prosrc FROM '-- Columns: ([^\n]+)')::json)) INTO found
        FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND starts_with(p.proname::text, 'hc_signals_capture_')
          AND strpos(p.prosrc, format(E'\n-- Layout: %s\n', of_layout)) > 0 LIMIT 1;
    END IF;
    IF found IS NULL AND of_layout IS NOT NULL THEN
        RAISE EXCEPTION 'hc_signals: the table hc_signals_layout lacks layout %, by which changes are stored', of_layout
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Restore that row from a backup.';
    END IF;
    RETURN found;
END
$$;

-- The value of one column in an image.
CREATE FUNCTION public.hc_signals_value(of_layout bigint, image text[], name text) RETURNS text
LANGUAGE sql STABLE
AS $$ SELECT image[array_position(public.hc_signals_columns(of_layout), name)] $$;

-- The columns of a table that hold JSON; NULL if none does. A JSON string is no JSON object, so their values cannot be
-- strings in JSON as all others can. A type that the server does not bring may be a domain over JSON.
CREATE FUNCTION public.hc_signals_json_columns(of_table oid) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN (
        WITH RECURSIVE base (name, type) AS (
            SELECT a.attname::text, a.atttypid FROM pg_attribute a
            WHERE a.attrelid = of_table AND a.attnum > 0 AND NOT a.attisdropped
              AND (a.atttypid IN ('json'::regtype, 'jsonb'::regtype) OR a.atttypid >= 16384)
            UNION ALL
            SELECT b.name, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
        )
        SELECT array_agg(name) FROM base WHERE type IN ('json'::regtype, 'jsonb'::regtype)
    );
END
$$;

-- A text as JSON: the JSON that it is, else a string.
CREATE FUNCTION public.hc_signals_as_json(value text) RETURNS json
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN value::json;
EXCEPTION WHEN OTHERS THEN
    RETURN to_json(value);
END
$$;

-- An object of texts, with the JSON of those columns that hold JSON.
CREATE FUNCTION public.hc_signals_unquoted(texts json, json_columns text[]) RETURNS json
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF json_columns IS NULL THEN
        RETURN texts;
    END IF;
    RETURN (
        SELECT json_object_agg(e.key, CASE
            WHEN e.key = ANY (json_columns) AND json_typeof(e.value) = 'string'
            THEN public.hc_signals_as_json(e.value #>> '{}') ELSE e.value END ORDER BY e.ordinality)
        FROM json_each(texts) WITH ORDINALITY e
    );
END
$$;

-- An object of texts as to_json() would write the row of the table, if the table is still there: numbers and truth
-- values without quotes, moments with a T.
CREATE FUNCTION public.hc_signals_typed(of_table text, texts json) RETURNS json
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    relation oid := (
        SELECT c.oid FROM pg_namespace n
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = substr(of_table, length(n.nspname) + 2)::name
        WHERE starts_with(of_table, n.nspname || '.') LIMIT 1
    );
    json_columns text[] := public.hc_signals_json_columns(relation);
BEGIN
    RETURN (
        SELECT coalesce(json_object_agg(e.key, CASE
            WHEN json_typeof(e.value) <> 'string' THEN e.value
            WHEN e.key = ANY (json_columns) THEN public.hc_signals_as_json(v.text)
            WHEN a.atttypid IN ('integer'::regtype, 'bigint'::regtype, 'smallint'::regtype, 'numeric'::regtype,
                                'double precision'::regtype, 'real'::regtype)
             AND v.text ~ '^-?(0|[1-9][0-9]*)([.][0-9]+)?(e[-+]?[0-9]+)?$'
              OR a.atttypid = 'boolean'::regtype AND v.text IN ('true', 'false') THEN v.text::json
            WHEN a.atttypid IN ('timestamp'::regtype, 'timestamptz'::regtype)
            THEN to_json(regexp_replace(v.text, '^([0-9]+-[0-9]+-[0-9]+) ', '\1T'))
            ELSE e.value END ORDER BY e.ordinality), '{}')
        FROM json_each(texts) WITH ORDINALITY e
        CROSS JOIN LATERAL (SELECT e.value #>> '{}') v (text)
        LEFT JOIN pg_attribute a ON a.attrelid = relation AND a.attnum > 0 AND a.attname = e.key
    );
END
$$;

-- An image that has a layout as to_json() would write the row of the table.
CREATE FUNCTION public.hc_signals_json(of_table text, of_layout bigint, image text[]) RETURNS json
LANGUAGE sql STABLE STRICT
AS $$ SELECT public.hc_signals_typed(of_table, json_object(public.hc_signals_columns(of_layout), image)) $$;

-- Adds the columns, and a constraint: a failed delivery needs the images of its change, and a worker from before this
-- file would not copy them. It waits until no other session uses the log: a writer would wait behind a lock that waits,
-- and lose its change after 10 ms. This is the last statement: its locks end with the transaction.
DO $$
BEGIN
    FOR attempt IN 1 .. 1500 LOOP
        BEGIN
            -- Both at once: a page that holds one of them may want the other.
            LOCK TABLE public.hc_signals_change, public.hc_signals_delivery IN ACCESS EXCLUSIVE MODE NOWAIT;
            ALTER TABLE public.hc_signals_delivery ADD CONSTRAINT hc_signals_delivery_image_check CHECK (
                record_key IS NULL OR CASE operation WHEN 'DELETE' THEN old ELSE new END IS NOT NULL
            ) NOT VALID;
            ALTER TABLE public.hc_signals_change ADD COLUMN layout bigint, ADD COLUMN image text[];
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 1500 THEN
                RAISE EXCEPTION 'hc_signals: other sessions have used the change log for 30 s without a break'
                USING ERRCODE = 'lock_not_available', HINT = 'Stop hc_listen and long transactions, and migrate again.';
            END IF;
            PERFORM pg_sleep(0.01 + random() * 0.02);
        END;
    END LOOP;
END
$$;
