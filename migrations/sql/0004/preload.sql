-- Every session of this database loads the kernels when it begins, so that their settings stand in pg_settings before
-- the first call. Libraries that others preload are kept. LOAD first: a name that the server does not find would shut
-- everybody out of the database.
DO $preload$
DECLARE
    setting text;
    libraries text[];
BEGIN
    SELECT split_part(entry, '=', 2) INTO setting
    FROM pg_catalog.pg_db_role_setting AS s
    INNER JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase AND d.datname = current_database()
    CROSS JOIN unnest(s.setconfig) AS entry
    WHERE s.setrole = 0 AND split_part(entry, '=', 1) = 'session_preload_libraries';
    IF setting IS NULL THEN
        setting := current_setting('session_preload_libraries');
    END IF;
    SELECT array_agg(btrim(name, ' "') ORDER BY n) INTO libraries
    FROM unnest(string_to_array(setting, ',')) WITH ORDINALITY AS list (name, n)
    WHERE btrim(name, ' "') <> '';
    IF 'pg_llm' = ANY (libraries) THEN
        RETURN;
    END IF;
    LOAD 'pg_llm';
    EXECUTE format(
        'ALTER DATABASE %I SET session_preload_libraries = %s',
        current_database(),
        (SELECT string_agg(quote_literal(name), ', ') FROM unnest(libraries || 'pg_llm'::text) AS list (name))
    );
EXCEPTION
    WHEN insufficient_privilege OR undefined_file THEN
        RAISE NOTICE 'session_preload_libraries is left alone (%): the settings of pg_llm appear in pg_settings '
            'after the first call of a session', SQLERRM;
END
$preload$;
