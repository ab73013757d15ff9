-- Of Heroku Connect's functions the one that lies outside its schemas: a dump of a schema lacks it.

-- Correct and very slow, as the original: a capture trigger must never call it.
CREATE OR REPLACE FUNCTION public.get_xmlbinary() RETURNS varchar LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT s.setting FROM pg_settings s WHERE s.name = 'xmlbinary');
END
$$;
