-- Take pg_llm out of this database's session_preload_libraries again.
DO $unload$
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
        RETURN;
    END IF;
    SELECT array_agg(btrim(name, ' "') ORDER BY n) INTO libraries
    FROM unnest(string_to_array(setting, ',')) WITH ORDINALITY AS list (name, n)
    WHERE btrim(name, ' "') NOT IN ('', 'pg_llm');
    IF libraries IS NULL THEN
        EXECUTE format('ALTER DATABASE %I RESET session_preload_libraries', current_database());
    ELSE
        EXECUTE format(
            'ALTER DATABASE %I SET session_preload_libraries = %s',
            current_database(),
            (SELECT string_agg(quote_literal(name), ', ') FROM unnest(libraries) AS list (name))
        );
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'session_preload_libraries still names pg_llm: changing it takes a superuser';
END
$unload$;
