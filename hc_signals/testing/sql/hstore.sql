-- A stand-in for the extension hstore where the server does not have it (the embedded one): just what Heroku Connect's
-- functions need, with the same texts as values.

CREATE DOMAIN public.hstore AS jsonb;

CREATE FUNCTION public.hstore(source_row anyelement) RETURNS public.hstore LANGUAGE plpgsql STABLE AS $$
DECLARE
    pairs text;
    result jsonb;
BEGIN
    SELECT string_agg(format('%L, ($1).%I::text', a.attname, a.attname), ', ') INTO pairs
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.typrelid = a.attrelid
    WHERE t.oid = pg_typeof(source_row) AND a.attnum > 0 AND NOT a.attisdropped;
    EXECUTE 'SELECT jsonb_object(ARRAY[' || pairs || '])' INTO result USING source_row;
    RETURN (SELECT jsonb_object_agg(f.key, CASE WHEN a.atttypid = 'boolean'::regtype
                                           THEN to_jsonb(left(f.value #>> '{}', 1)) ELSE f.value END)
            FROM jsonb_each(result) f
            JOIN pg_catalog.pg_type t ON t.oid = pg_typeof(source_row)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attname = f.key);
END
$$;

CREATE FUNCTION public.hstore_to_jsonb(fields public.hstore) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT fields::jsonb
$$;
