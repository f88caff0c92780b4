-- Weights from files: the rows that the planned parameters become.

CREATE FUNCTION public.llm_import_tie(model text, tied boolean) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    before boolean := (public.llm_config(model)).tied;
BEGIN
    -- The head is its base's.
    IF EXISTS (SELECT FROM public.llm_adapter a WHERE a.model = llm_import_tie.model) THEN
        RETURN;
    END IF;
    UPDATE public.llm_model_config c SET tied = llm_import_tie.tied
    WHERE c.model = llm_import_tie.model AND c.tied <> llm_import_tie.tied;
    IF tied IS NULL OR tied = before THEN
        RETURN;
    END IF;
    -- An architecture that has its head in any case is what it is.
    IF tied = EXISTS (SELECT FROM public.llm_parameters(model) p WHERE p.name = 'lm_head.weight') THEN
        UPDATE public.llm_model_config c SET tied = before WHERE c.model = llm_import_tie.model;
    ELSIF tied THEN
        RAISE NOTICE 'the file has no separate output head: model "%" now uses its token embedding (tied)', model;
    ELSE
        RAISE NOTICE 'the file''s output head differs from its token embedding: model "%" is no longer tied', model;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_tie(text, boolean) IS
'Where the architecture leaves the choice, stores in the configuration whether the output head is the token '
'embedding, with a NOTICE if that changes it. NULL: the file does not tell.';


CREATE FUNCTION public.llm_import_begin(
    model text, tensors jsonb, tied boolean, megatron_version double precision DEFAULT NULL
)
RETURNS TABLE (name text, shape int[], sources text[], how text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
    PERFORM public.llm_config(llm_import_begin.model);
    PERFORM public.llm_require_tensors(tensors);
    PERFORM public.llm_lock_model(llm_import_begin.model);
    PERFORM public.llm_import_tie(llm_import_begin.model, tied);
    PERFORM public.llm_import_check(llm_import_begin.model, tensors, megatron_version);
    PERFORM public.llm_require_room_for(
        llm_import_begin.model, 'importing',
        dtype => CASE WHEN EXISTS (
            SELECT FROM jsonb_array_elements(tensors) e (value) WHERE e.value ->> 'dtype' <> 'BF16'
        ) THEN 'float32' ELSE 'bf16' END
    );
    UPDATE public.llm_model_config c SET init_seed = NULL
    WHERE c.model = llm_import_begin.model AND c.init_seed IS NOT NULL;
    DELETE FROM public.llm_param p WHERE p.model = llm_import_begin.model;
    UPDATE public.llm_train_log l SET superseded = true
    WHERE l.model = llm_import_begin.model AND NOT l.superseded;
    DELETE FROM public.llm_eval_log e WHERE e.model = llm_import_begin.model AND e.tape_id IS NULL;
    RETURN QUERY
    SELECT p.name, p.shape, p.sources, p.how
    FROM public.llm_import_plan(llm_import_begin.model, tensors, megatron_version) p
    WHERE p.name IS NOT NULL;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_begin(text, jsonb, boolean, double precision) IS
'Begins an import: locks the model, checks the file''s tensors ([{"name", "dtype", "shape"}, ...]) and removes the '
'model''s parameter rows. Returns what to send with llm_import_part, in the order of the file; llm_import_end must '
'follow in the same transaction. tied: the file has no separate output head; NULL: it has only a head. 55P03: the '
'model is being trained.';


CREATE FUNCTION public.llm_parts(shape int[]) RETURNS TABLE (first_row int, n_rows int)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- As llm_init_model divides.
    whole_elements CONSTANT bigint := 8388608;
    part_elements CONSTANT bigint := 2097152;
    width bigint := 1;
    part_rows int;
BEGIN
    PERFORM public.llm_require(
        shape IS NOT NULL AND array_position(shape, NULL) IS NULL, 'shape must not be NULL nor hold NULL'
    );
    FOR axis IN 2 .. cardinality(shape) LOOP
        width := width * shape[axis];
    END LOOP;
    part_rows := CASE
        WHEN width * shape[1] <= whole_elements THEN shape[1]
        ELSE greatest(part_elements / width, 1)
    END;
    RETURN QUERY
    SELECT s.first, least(part_rows, shape[1] - s.first) FROM generate_series(0, shape[1] - 1, part_rows) s (first);
END;
$function$;

COMMENT ON FUNCTION public.llm_parts(int[]) IS
'The parts in which a parameter of this shape is stored: one part up to 8 Mi elements, otherwise parts of whole rows '
'with at most 2 Mi elements (or a single larger row).';


CREATE FUNCTION public.llm_import_part(model text, name text, first_row int, data public.tensor) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument(a.name, a.given)
    FROM (
        VALUES
        ('model', llm_import_part.model IS NOT NULL), ('name', llm_import_part.name IS NOT NULL),
        ('first_row', first_row IS NOT NULL), ('data', llm_import_part.data IS NOT NULL)
    ) a (name, given);
    IF public.norm(data) IN ('NaN', 'Infinity') THEN
        RAISE EXCEPTION 'tensor "%" holds numbers that are not finite', name
            USING ERRCODE = 'numeric_value_out_of_range';
    END IF;
    INSERT INTO public.llm_param (model, name, token_id, data)
    VALUES (llm_import_part.model, llm_import_part.name, first_row, llm_import_part.data)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'parameter "%" of model "%" already has the part from row %', name, model, first_row
            USING ERRCODE = 'unique_violation', HINT = 'llm_import_begin empties the model for an import.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_part(text, text, int, public.tensor) IS
'During an import, stores the rows of a parameter from first_row on; llm_parts lists the parts. 22003: a value is not '
'finite; 23505: the part already exists.';


CREATE FUNCTION public.llm_import_end(model text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    wrong text;
    n_weights bigint;
BEGIN
    WITH expected AS (
        SELECT p.name, s.first_row AS token_id, s.n_rows || p.shape[2:] AS shape
        FROM public.llm_parameters(model) p
        CROSS JOIN LATERAL public.llm_parts(p.shape) s
    ),
    stored AS (
        SELECT p.name, p.token_id, public.shape(p.data) AS shape
        FROM public.llm_param p WHERE p.model = llm_import_end.model
    )
    SELECT min(COALESCE(e.name, s.name)) FILTER (WHERE e.shape IS DISTINCT FROM s.shape),
        sum(public.llm_elements(e.shape))::bigint
    INTO wrong, n_weights
    FROM expected e
    FULL JOIN stored s USING (name, token_id);
    PERFORM public.llm_require(
        wrong IS NULL, format('the import of model "%s" is not complete: parameter "%s"', model, wrong)
    );
    RETURN n_weights;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_end(text) IS
'Ends an import: checks that all parameters are complete and returns the number of weights. 22023: something is '
'missing.';
