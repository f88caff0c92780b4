-- Weights in a session's memory: the version that llm_param holds now, pinned for the length of a call.

CREATE FUNCTION public.llm_fingerprint(model text) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN (
        SELECT public.pg_llm_fingerprint(p.name, p.token_id, p.tableoid, p.ctid, p.xmin, p.data)
        FROM public.llm_param p
        WHERE p.model = llm_fingerprint.model
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_fingerprint(text) IS
'Identifies, within this session, the version of the model''s llm_param rows that the current snapshot and role see; '
'NULL if there are none.';


CREATE FUNCTION public.llm_pin(model text, training boolean DEFAULT false) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    fingerprint bytea;
    in_memory boolean;
    shared boolean;
    part record;
BEGIN
    LOOP
        fingerprint := public.llm_fingerprint(model);
        IF fingerprint IS NULL THEN
            PERFORM public.llm_config(model);
            PERFORM public.llm_check_copied(model);
            RAISE EXCEPTION 'model "%" has no weights', model
                USING ERRCODE = 'no_data_found', HINT = 'Initialise it with llm_init_model or import its weights.';
        END IF;
        in_memory := public.pg_llm_arena_open(model, fingerprint, training);
        IF NOT in_memory THEN
            PERFORM public.llm_check_copied(model);
        END IF;
        -- Memory of this session's own is given up, too, once there is a copy for all.
        shared := NOT training AND public.pg_llm_shared_open(model);
        IF in_memory THEN
            PERFORM public.llm_pin_base(model);
            RETURN fingerprint;
        END IF;
        IF NOT shared THEN
            FOR part IN
                SELECT p.name, p.token_id, p.data,
                    CASE WHEN training THEN p.m END AS m, CASE WHEN training THEN p.v END AS v
                FROM public.llm_param p
                WHERE p.model = llm_pin.model
                ORDER BY p.name, p.token_id
            LOOP
                PERFORM public.pg_llm_arena_put(model, part.name, part.token_id, part.data, part.m, part.v);
            END LOOP;
            PERFORM public.pg_llm_arena_seal(model);
        END IF;
        -- Another session's commit between the two queries would leave a mixture under a wrong name.
        IF public.llm_fingerprint(model) IS NOT DISTINCT FROM fingerprint THEN
            PERFORM public.llm_check_weights(model);
            PERFORM public.llm_pin_base(model);
            RETURN fingerprint;
        END IF;
        PERFORM public.pg_llm_arena_discard(model);
        PERFORM public.pg_llm_arena_close(model);
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_pin(text, boolean) IS
'Pins the stored version of the model''s weights until pg_llm_arena_close(model): mapped from the file that all '
'sessions share or, for training and where that cannot be, in this session''s memory. Reads the numbers in llm_param '
'only if neither has that version. Of an adapter, its base is pinned with it. Returns the version''s fingerprint. '
'42704: unknown model; P0002: no weights; 22023: shapes that contradict the configuration; 55000: a subscription is '
'still copying the model, or the base of an adapter has changed.';


CREATE FUNCTION public.llm_check_weights(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    wrong record;
BEGIN
    SELECT e.name, e.shape AS expected, s.shape AS found INTO wrong
    FROM public.llm_parameters(model) e
    CROSS JOIN LATERAL (
        SELECT CASE WHEN EXISTS (
            SELECT FROM public.llm_param p WHERE p.model = llm_check_weights.model AND p.name = e.name
        ) THEN public.pg_llm_arena_shape(model, e.name) END AS shape
    ) s
    WHERE s.shape IS DISTINCT FROM e.shape
    LIMIT 1;
    IF FOUND THEN
        PERFORM public.pg_llm_arena_discard(model);
        PERFORM public.pg_llm_arena_close(model);
        IF wrong.found IS NULL THEN
            RAISE EXCEPTION 'model "%" lacks parameter "%"', model, wrong.name
                USING ERRCODE = 'no_data_found', HINT = 'Initialise the model again or import all of its weights.';
        END IF;
        RAISE EXCEPTION 'parameter "%" of model "%" has shape %, but its configuration requires %',
            wrong.name, model, to_jsonb(wrong.found), to_jsonb(wrong.expected)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Correct llm_model_config or the weights.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_weights(text) IS
'Checks the shapes of the pinned weights against the architecture. llm_pin calls it after reading the weights.';


CREATE FUNCTION public.llm_weight(model text, name text) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF NOT public.pg_llm_arena_pinned(model) THEN
        PERFORM public.llm_pin(model);
        PERFORM public.pg_llm_arena_pin_statement(model);
    END IF;
    RETURN public.pg_llm_param(model, name);
END;
$function$;

COMMENT ON FUNCTION public.llm_weight(text, text) IS
'A parameter of the model as one tensor, a view of the session''s memory. All calls in a statement use one version of '
'the weights. 42704: the model has no such parameter.';


CREATE FUNCTION public.llm_lock_rows(model text, fingerprint bytea) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument('model', model IS NOT NULL);
    PERFORM public.llm_require_argument('fingerprint', fingerprint IS NOT NULL);
    -- Waits for writers under way; from here on nobody else can change these rows.
    PERFORM FROM public.llm_param p WHERE p.model = llm_lock_rows.model FOR NO KEY UPDATE;
    IF public.llm_fingerprint(model) IS DISTINCT FROM fingerprint THEN
        RAISE EXCEPTION 'the weights of model "%" were changed by another transaction during training', model
            USING ERRCODE = 'serialization_failure',
            HINT = 'The other change is kept, and this run''s steps since its last commit are undone; train again.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_lock_rows(text, bytea) IS
'Locks the model''s llm_param rows against other writers before they are written. 40001: they are no longer the '
'version with that fingerprint.';


CREATE FUNCTION public.llm_stored_as_written(model text, n_written bigint, command bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n_rows bigint;
    all_ours boolean;
    tables oid[];
BEGIN
    SELECT count(*), bool_and(p.cmin::text::bigint = command), array_agg(DISTINCT p.tableoid)
    INTO n_rows, all_ours, tables
    FROM public.llm_param p
    WHERE p.model = llm_stored_as_written.model;
    IF n_written IS DISTINCT FROM n_rows THEN
        RAISE EXCEPTION 'only % of % rows of model "%" could be written', n_written, n_rows, model
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'A row-level security policy, a trigger or a rule protects the others, or another session '
                'has just added them.';
    END IF;
    -- A trigger or a rule may have stored something else, and what a later command stored is not what we wrote.
    RETURN all_ours
        AND NOT EXISTS (
            SELECT FROM pg_trigger t
            WHERE t.tgrelid = ANY (tables || 'public.llm_param'::regclass::oid) AND NOT t.tgisinternal
                AND t.tgenabled <> 'D' AND t.tgtype & 16 = 16
        )
        AND NOT EXISTS (
            SELECT FROM pg_rewrite r
            WHERE r.ev_class = 'public.llm_param'::regclass AND r.ev_enabled <> 'D' AND r.ev_type = '2'
        );
END;
$function$;

COMMENT ON FUNCTION public.llm_stored_as_written(text, bigint, bigint) IS
'Whether the model''s llm_param rows are exactly what an UPDATE of n_written rows by the given command (see '
'pg_llm_command_id) wrote. False if a trigger or rule on UPDATE, or anything that ran meanwhile, may have stored '
'other values. 42501: not all rows were written.';


CREATE FUNCTION public.llm_written(model text, n_written bigint, command bigint) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- Rows are counted after the fingerprint: one that another session adds meanwhile is noticed.
    written bytea := public.llm_fingerprint(model);
BEGIN
    IF public.llm_stored_as_written(model, n_written, command) THEN
        PERFORM public.pg_llm_arena_saved(model, written);
    ELSE
        PERFORM public.pg_llm_arena_discard(model);
    END IF;
    RETURN written;
END;
$function$;

COMMENT ON FUNCTION public.llm_written(text, bigint, bigint) IS
'To be called after an UPDATE of the model''s llm_param rows from memory: compares the number of rows written with '
'the number of rows (42501), marks the version in memory as the stored one unless something else may have changed the '
'rows, and returns that version''s fingerprint.';


CREATE FUNCTION public.llm_recognise(model text, known bytea) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    found bytea := public.llm_fingerprint(model);
    same boolean := found = known;
BEGIN
    IF same IS DISTINCT FROM false THEN
        RETURN COALESCE(same, false);
    END IF;
    IF public.pg_llm_arena_open(model, known, true) THEN
        same := (
            SELECT count(*) = public.pg_llm_arena_rows(llm_recognise.model)
                AND bool_and(public.pg_llm_arena_same(p.model, p.name, p.token_id, p.data, p.m, p.v))
            FROM public.llm_param p
            WHERE p.model = llm_recognise.model
        );
        IF same AND public.llm_fingerprint(model) = found THEN
            PERFORM public.pg_llm_arena_saved(model, found);
        ELSE
            same := false;
        END IF;
    ELSE
        PERFORM public.pg_llm_arena_discard(model);
    END IF;
    PERFORM public.pg_llm_arena_close(model);
    RETURN same;
END;
$function$;

COMMENT ON FUNCTION public.llm_recognise(text, bytea) IS
'Whether the model''s stored weights and optimizer state are the version with the fingerprint known, perhaps moved to '
'other places (VACUUM FULL, CLUSTER, pg_repack). Memory is compared with the rows bit for bit and takes their present '
'fingerprint. False if they differ, or if memory no longer holds that version.';


CREATE FUNCTION public.llm_write_back(
    model text,
    fingerprint bytea,
    step bigint,
    keep_grad boolean DEFAULT false,
    workers int DEFAULT 1,
    keep_moments boolean DEFAULT true
) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    threads text := current_setting('pg_llm.threads');
    command bigint;
    n_written bigint;
    written bytea;
BEGIN
    PERFORM public.llm_require_argument('keep_moments', keep_moments IS NOT NULL);
    PERFORM public.llm_lock_rows(model, fingerprint);
    IF workers > 0 THEN
        PERFORM set_config('pg_llm.threads', workers::text, true);
    END IF;
    command := public.pg_llm_command_id();
    UPDATE public.llm_param p
    SET data = public.pg_llm_arena_data(p.model, p.name, p.token_id),
        m = CASE WHEN keep_moments THEN public.pg_llm_arena_m(p.model, p.name, p.token_id) END,
        v = CASE WHEN keep_moments THEN public.pg_llm_arena_v(p.model, p.name, p.token_id) END,
        grad = CASE WHEN keep_grad THEN public.pg_llm_arena_grad(p.model, p.name, p.token_id) END,
        step = llm_write_back.step,
        updated_at = clock_timestamp()
    WHERE p.model = llm_write_back.model;
    GET DIAGNOSTICS n_written = ROW_COUNT;
    PERFORM set_config('pg_llm.threads', threads, true);
    written := public.llm_written(model, n_written, command);
    IF NOT keep_moments THEN
        PERFORM public.pg_llm_arena_drop_moments(model);
    END IF;
    RETURN written;
END;
$function$;

COMMENT ON FUNCTION public.llm_write_back(text, bytea, bigint, boolean, int, boolean) IS
'Stores the pinned weights and optimizer state as the model''s state after step, and returns the new version''s '
'fingerprint. keep_moments false: the weights alone, and memory keeps no more than the table. 40001: llm_param no '
'longer holds the version that the run began with; 42501: a policy or a trigger prevents some of the rows from being '
'written.';


CREATE FUNCTION public.llm_release(shared boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    released bigint;
    removed bigint;
    hidden text;
    shared_model text;
BEGIN
    PERFORM public.llm_require_argument('shared', shared IS NOT NULL);
    released := public.pg_llm_release();
    IF NOT shared THEN
        RETURN released;
    END IF;
    IF NOT has_any_column_privilege('public.llm_param', 'UPDATE') THEN
        RAISE EXCEPTION 'permission denied for table llm_param'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'Shared weights are released by roles that may write them, such as llm_trainer.';
    END IF;
    FOR shared_model IN SELECT DISTINCT v.model FROM public.pg_llm_shared_versions() v LOOP
        removed := public.pg_llm_shared_remove(shared_model);
        released := released + COALESCE(removed, 0);
        hidden := CASE WHEN removed IS NULL THEN shared_model ELSE hidden END;
    END LOOP;
    IF hidden IS NOT NULL THEN
        RAISE EXCEPTION 'row-level security keeps the shared weights of model "%" from being released', hidden
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'A policy must let the role update the model''s rows in llm_param, in a transaction that may write.';
    END IF;
    RETURN released;
END;
$function$;

COMMENT ON FUNCTION public.llm_release(boolean) IS
'Frees the memory in which this session keeps weights that it no longer uses; with shared => true also removes the '
'files of this database''s models that all sessions map, which the next use writes again. Returns the number of bytes. '
'42501: the role may not write the weights.';
