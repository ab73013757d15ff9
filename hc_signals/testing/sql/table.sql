-- Heroku Connect's own functions and triggers on one mapped table. {first_state} is NEW on a read-write mapping and
-- READONLY on a read-only one; {ignored_state} is IGNORE or READONLY.

CREATE OR REPLACE FUNCTION {schema}.{status_function}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Without a schema, as the original: with `public` off the search_path every write fails.
    IF get_xmlbinary() = 'base64' THEN
        NEW._hc_lastop := 'PENDING';
        NEW._hc_err := NULL;
    ELSIF TG_OP = 'UPDATE' AND NEW._hc_lastop IS NOT NULL AND OLD._hc_lastop <> NEW._hc_lastop THEN
        NULL;
    ELSE
        NEW._hc_lastop := 'SYNCED';
        NEW._hc_err := NULL;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION {schema}.{logger_function}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN hstore_to_jsonb(hstore(OLD)) - '_hc_lastop' - '_hc_err' END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN hstore_to_jsonb(hstore(NEW)) - '_hc_lastop' - '_hc_err' END;
    entry {schema}._trigger_log%ROWTYPE;
BEGIN
    entry.id := nextval({log_sequence});
    entry.txid := txid_current();
    entry.created_at := clock_timestamp();
    entry.action := TG_OP;
    entry.table_name := TG_TABLE_NAME;
    entry.record_id := (coalesce(after, before)->>'id')::integer;
    entry.state := {first_state};
    entry.old := {schema}.hc_row_text(before);
    IF TG_OP = 'INSERT' THEN
        entry."values" := {schema}.hc_row_text(after);
    ELSE
        entry.sfid := before->>'sfid';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        after := (SELECT coalesce(jsonb_object_agg(a.key, a.value), '{}') FROM jsonb_each(after) a
                  WHERE a.value IS DISTINCT FROM before->a.key);
        entry."values" := coalesce({schema}.hc_row_text(after), '');
        IF after = '{}' THEN
            entry.state := {ignored_state};
        END IF;
    ELSIF TG_OP = 'DELETE' AND entry.sfid IS NULL THEN
        entry.state := {ignored_state};
    END IF;
    INSERT INTO {schema}._trigger_log VALUES (entry.*);
    RETURN NULL;
END
$$;

CREATE TRIGGER {status_trigger} BEFORE INSERT OR UPDATE ON {schema}.{table}
    FOR EACH ROW EXECUTE FUNCTION {schema}.{status_function}();
CREATE TRIGGER {log_trigger} AFTER INSERT OR DELETE OR UPDATE ON {schema}.{table}
    FOR EACH ROW WHEN (public.get_xmlbinary()::text = 'base64') EXECUTE FUNCTION {schema}.{logger_function}();
