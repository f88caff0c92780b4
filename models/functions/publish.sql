-- A model in other databases: publications for logical replication, and what a subscriber must know of them.

CREATE FUNCTION public.llm_publication(model text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- The same on both servers, whatever their encodings, in which a character has at most four bytes.
    IF octet_length(model) = char_length(model) AND octet_length(model) <= 53 OR char_length(model) <= 13 THEN
        RETURN 'llm_model_' || model;
    END IF;
    RETURN 'llm_model_' || left(model, 9) || '_' || left(encode(sha256(convert_to(model, 'UTF8')), 'hex'), 16);
END;
$function$;

COMMENT ON FUNCTION public.llm_publication(text) IS
'The name of the publication that llm_publish(model) makes: llm_model_ and the model''s name, of a long name its '
'beginning and a hash.';


CREATE FUNCTION public.llm_publication_mark(model text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN format('model "%s", by llm_publish', model);
END;
$function$;

COMMENT ON FUNCTION public.llm_publication_mark(text) IS
'The comment on a publication that llm_publish(model) made, by which it is known again.';


CREATE FUNCTION public.llm_publication_tables(model text)
RETURNS TABLE (relation regclass, definition text)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- What generating, evaluating and embedding read of a model. grad, m and v are for training; layer is
    -- computed from the name where the row arrives. Architectures name functions: registering one is the
    -- business of the owner of each database.
    RETURN QUERY
    SELECT t.relation::regclass, format('public.%s%s WHERE (model = %L)', t.name, t.columns, model)
    FROM (
        VALUES
        ('public.llm_param', 'llm_param', ' (model, name, token_id, data, step, updated_at)'),
        ('public.llm_model_config', 'llm_model_config', ''),
        ('public.llm_adapter', 'llm_adapter', ''),
        ('public.llm_bpe_vocab', 'llm_bpe_vocab', ''),
        ('public.llm_bpe_merges', 'llm_bpe_merges', ''),
        ('public.llm_tokenizer', 'llm_tokenizer', '')
    ) t (relation, name, columns);
END;
$function$;

COMMENT ON FUNCTION public.llm_publication_tables(text) IS
'The tables that must be in another database for the model to be used there, and how they are written in CREATE '
'PUBLICATION: columns, and the rows of the model.';


CREATE FUNCTION public.llm_publish(model text) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    publication text := public.llm_publication((public.llm_config(model)).model);
    mark CONSTANT text := public.llm_publication_mark(model);
    tables text;
    problem text;
BEGIN
    IF current_setting('wal_level') <> 'logical' THEN
        RAISE EXCEPTION 'model "%" cannot be published: wal_level is %', model, current_setting('wal_level')
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'ALTER SYSTEM SET wal_level = logical, and restart the server.';
    END IF;
    SELECT string_agg(format('TABLE %s', t.definition), ', ') INTO tables
    FROM public.llm_publication_tables(model) t;
    SELECT string_agg(format('"%s" belongs to "%s"', c.relname, pg_get_userbyid(c.relowner)), ', ') INTO problem
    FROM public.llm_publication_tables(model) t
    INNER JOIN pg_class c ON c.oid = t.relation
    WHERE NOT pg_has_role(c.relowner, 'USAGE');
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'permission denied to publish model "%": only the owner of tables can publish them', model
            USING ERRCODE = 'insufficient_privilege', DETAIL = problem,
            HINT = 'Call llm_publish as that role, or as a superuser.';
    END IF;
    -- With another one, each UPDATE of a table would be refused from then on.
    SELECT string_agg(c.relname, ', ') INTO problem
    FROM public.llm_publication_tables(model) t
    INNER JOIN pg_class c ON c.oid = t.relation
    WHERE c.relreplident <> 'd';
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'model "%" cannot be published: the replica identity is not the primary key: %', model, problem
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'ALTER TABLE ... REPLICA IDENTITY DEFAULT makes it so.';
    END IF;
    -- One session at a time, and training goes on.
    LOCK TABLE public.llm_model_config IN SHARE UPDATE EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM pg_publication p WHERE p.pubname = publication) THEN
        PERFORM public.llm_check_publication(model);
        EXECUTE format('ALTER PUBLICATION %I SET %s', publication, tables);
        RETURN publication;
    END IF;
    IF NOT has_database_privilege(current_database(), 'CREATE') THEN
        RAISE EXCEPTION 'permission denied to publish model "%": no right to create in database "%"',
            model, current_database()
            USING ERRCODE = 'insufficient_privilege',
            HINT = format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user);
    END IF;
    -- Without truncate: that of a subscriber's table would take its other models, too.
    EXECUTE format(
        'CREATE PUBLICATION %I FOR %s WITH (publish = ''insert, update, delete'', publish_via_partition_root = true)',
        publication, tables
    );
    EXECUTE format('COMMENT ON PUBLICATION %I IS %L', publication, mark);
    RETURN publication;
END;
$function$;

COMMENT ON FUNCTION public.llm_publish(text) IS
'Makes a publication of the model for logical replication and returns its name: weights without gradients and '
'optimizer state, configuration, tokenizer. Other databases get the model by CREATE SUBSCRIPTION and use it; see '
'docs/operate/replication.md. Publishing it again brings the publication up to date. Dropping the model removes it '
'from subscribers as well; the publication remains until llm_unpublish. Requires ownership of the tables and CREATE '
'on the database (42501). 55000: wal_level is not logical, or a table''s replica identity is not its primary key; '
'42704: unknown model; 42710: another publication has the name.';


CREATE FUNCTION public.llm_unpublish(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    publication text := public.llm_publication(model);
BEGIN
    -- The model may be gone already.
    IF publication IS NULL OR NOT EXISTS (SELECT FROM pg_publication p WHERE p.pubname = publication) THEN
        RAISE EXCEPTION 'model % is not published', COALESCE('"' || model || '"', 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'pg_publication lists what is.';
    END IF;
    PERFORM public.llm_check_publication(model);
    EXECUTE format('DROP PUBLICATION %I', publication);
END;
$function$;

COMMENT ON FUNCTION public.llm_unpublish(text) IS
'Drops the publication that llm_publish(model) made, also after the model itself. Subscribers keep the rows they have; '
'drop their subscriptions first. 42704: the model is not published; 42501: the publication belongs to another role; '
'42710: a publication of that name is not llm_publish''s.';


CREATE FUNCTION public.llm_check_publication(model text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    found record;
BEGIN
    SELECT p.pubname, pg_get_userbyid(p.pubowner) AS owner, pg_has_role(p.pubowner, 'USAGE') AS owned,
        obj_description(p.oid, 'pg_publication') = public.llm_publication_mark(model) AS ours
    INTO found
    FROM pg_publication p
    WHERE p.pubname = public.llm_publication(model);
    IF found.owned IS NOT TRUE AND found.pubname IS NOT NULL THEN
        RAISE EXCEPTION 'permission denied: publication "%" belongs to "%"', found.pubname, found.owner
            USING ERRCODE = 'insufficient_privilege', HINT = 'Only its owner can change it.';
    END IF;
    IF found.ours IS NOT TRUE AND found.pubname IS NOT NULL THEN
        RAISE EXCEPTION 'publication "%" exists, and llm_publish did not make it for model "%"', found.pubname, model
            USING ERRCODE = 'duplicate_object', HINT = 'DROP PUBLICATION or ALTER PUBLICATION ... RENAME TO.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_publication(text) IS
'Raises 42501 or 42710 if there is a publication of the name that llm_publish(model) uses, but the caller does not own '
'it, or llm_publish did not make it.';


CREATE FUNCTION public.llm_is_filtered(model text) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN EXISTS (
        SELECT FROM pg_publication_rel r
        INNER JOIN pg_publication p ON p.oid = r.prpubid
        WHERE r.prrelid = 'public.llm_param'::regclass AND r.prqual IS NOT NULL
            AND (p.pubname = public.llm_publication(model) OR p.pubname NOT LIKE 'llm\_model\_%')
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_is_filtered(text) IS
'Whether a publication may contain the model''s rows of llm_param and not those of other models. A row that an UPDATE '
'of its model brings into such a publication arrives as an INSERT, without the values that the UPDATE did not write.';


CREATE FUNCTION public.llm_check_copied(model text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    waiting record;
BEGIN
    -- In nearly all databases there is no such row.
    IF NOT EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srsubstate <> 'r') THEN
        RETURN;
    END IF;
    -- A publication that is not one of a model may contain every model.
    SELECT s.subname, string_agg(t.relation::text, ', ' ORDER BY t.relation::text) AS tables INTO waiting
    FROM pg_subscription s
    INNER JOIN pg_subscription_rel r ON r.srsubid = s.oid AND r.srsubstate <> 'r'
    INNER JOIN public.llm_publication_tables(model) t ON t.relation = r.srrelid
    WHERE EXISTS (
        SELECT FROM unnest(s.subpublications) p (name)
        WHERE p.name = public.llm_publication(model) OR p.name NOT LIKE 'llm\_model\_%'
    )
    GROUP BY s.subname
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'model "%" is not complete: subscription "%" is still copying it', model, waiting.subname
            USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('Not ready yet: %s.', waiting.tables),
            HINT = 'Try again when srsubstate is r in all its rows of pg_subscription_rel. If that takes long, the '
                'log of this server tells why, for example that the model was here before.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_copied(text) IS
'Raises 55000 while a subscription in this database has not yet copied all tables of the model. Called before weights '
'or a tokenizer are read into memory.';
