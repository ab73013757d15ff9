-- What Heroku Connect itself keeps in a mapped schema: support functions, trigger log, meta table.
-- Written from the observed behaviour, for tests and development; {schema} and {channel} are filled in, quoted.

CREATE SCHEMA IF NOT EXISTS {schema};

-- The text that hstore gives: shorter keys first, then by byte.
CREATE OR REPLACE FUNCTION {schema}.hc_row_text(fields jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(
        format('"%s"=>%s', f.key, coalesce('"' || replace(replace(f.value, '\', '\\'), '"', '\"') || '"', 'NULL')), ', '
        ORDER BY octet_length(f.key), f.key COLLATE "C")
    FROM jsonb_each_text(fields) f
$$;

CREATE TABLE IF NOT EXISTS {schema}._hcmeta (
    id serial PRIMARY KEY, hcver integer, org_id varchar(50), details text
);

CREATE TABLE IF NOT EXISTS {schema}._sf_event_log (
    id serial PRIMARY KEY, table_name varchar(128), action varchar(7), synced_at timestamptz DEFAULT now(),
    sf_timestamp timestamptz, sfid varchar(20), record text, processed boolean
);

CREATE TABLE IF NOT EXISTS {schema}._trigger_log (
    id serial PRIMARY KEY, txid bigint, created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    processed_at timestamptz, processed_tx bigint, state varchar(8), action varchar(7), table_name varchar(128),
    record_id integer, sfid varchar(18), old text, "values" text, sf_result integer, sf_message text
);
CREATE INDEX IF NOT EXISTS _trigger_log_idx_created_at ON {schema}._trigger_log (created_at);
CREATE INDEX IF NOT EXISTS _trigger_log_idx_state_id ON {schema}._trigger_log (state, id);
CREATE INDEX IF NOT EXISTS _trigger_log_idx_state_table_name ON {schema}._trigger_log (state, table_name)
    WHERE state IN ('NEW', 'PENDING');

CREATE TABLE IF NOT EXISTS {schema}._trigger_log_archive (
    id integer PRIMARY KEY, txid bigint, created_at timestamptz, updated_at timestamptz, processed_at timestamptz,
    processed_tx bigint, state varchar(8), action varchar(7), table_name varchar(128), record_id integer,
    sfid varchar(18), old text, "values" text, sf_result integer, sf_message text
);
CREATE INDEX IF NOT EXISTS _trigger_log_archive_idx_created_at ON {schema}._trigger_log_archive (created_at);
CREATE INDEX IF NOT EXISTS _trigger_log_archive_idx_record_id ON {schema}._trigger_log_archive (record_id);
CREATE INDEX IF NOT EXISTS _trigger_log_archive_idx_state_table_name ON {schema}._trigger_log_archive
    (state, table_name) WHERE state = 'FAILED';

CREATE OR REPLACE FUNCTION {schema}.tlog_notify_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify({channel}, 'ping');
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER tlog_insert_trigger AFTER INSERT ON {schema}._trigger_log
    FOR EACH ROW EXECUTE FUNCTION {schema}.tlog_notify_trigger();

-- Put a row into the write queue by hand: an insert, without the excluded columns (id and sfid always stay).
CREATE OR REPLACE FUNCTION {schema}.hc_capture_insert_from_row(
    source_row public.hstore, table_name varchar, excluded_cols text[] DEFAULT ARRAY[]::text[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    fields jsonb := hstore_to_jsonb(source_row) - '_hc_lastop' - '_hc_err';
    log_id integer;
BEGIN
    IF fields->>'id' IS NULL THEN
        RETURN NULL;
    END IF;
    fields := fields - array_remove(array_remove(excluded_cols, 'id'), 'sfid');
    INSERT INTO {schema}._trigger_log AS tl (txid, created_at, updated_at, state, action, table_name, record_id, "values")
    VALUES (txid_current(), clock_timestamp(), NULL, 'NEW', 'INSERT', $2, (fields->>'id')::integer,
            {schema}.hc_row_text(fields))
    RETURNING tl.id INTO log_id;
    RETURN log_id;
END
$$;

-- The same for an update: of the named columns only, or of all.
CREATE OR REPLACE FUNCTION {schema}.hc_capture_update_from_row(
    source_row public.hstore, table_name varchar, columns_to_include text[] DEFAULT ARRAY[]::text[]
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    fields jsonb := hstore_to_jsonb(source_row) - '_hc_lastop' - '_hc_err';
    kept jsonb := fields;
    log_id integer;
BEGIN
    IF fields->>'id' IS NULL THEN
        RETURN NULL;
    END IF;
    IF cardinality(columns_to_include) > 0 THEN
        kept := coalesce((SELECT jsonb_object_agg(f.key, f.value) FROM jsonb_each(fields) f
                          WHERE f.key = ANY (columns_to_include)), '{}');
    END IF;
    INSERT INTO {schema}._trigger_log AS tl
        (txid, created_at, updated_at, state, action, table_name, record_id, sfid, "values")
    VALUES (txid_current(), clock_timestamp(), NULL, 'NEW', 'UPDATE', $2, (fields->>'id')::integer, fields->>'sfid',
            {schema}.hc_row_text(kept))
    RETURNING tl.id INTO log_id;
    RETURN log_id;
END
$$;
