-- LoRA adapters: models whose rows add a product of two small matrices to some of another model's weights.

CREATE FUNCTION public.llm_create_adapter(
    name text,
    base text,
    rank int DEFAULT 8,
    alpha double precision DEFAULT 16,
    targets text[] DEFAULT NULL,
    seed bigint DEFAULT 0
) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config CONSTANT public.llm_model_config := public.llm_config(base);
    -- What the base's own base is, if it is an adapter itself.
    under text := (SELECT a.base FROM public.llm_adapter a WHERE a.model = llm_create_adapter.base);
    identity record;
BEGIN
    PERFORM public.llm_require(name <> '', 'a model needs a name');
    PERFORM public.llm_require(seed IS NOT NULL, 'seed must not be NULL');
    PERFORM public.llm_require(
        under IS NULL, format('model "%s" is an adapter itself, of model "%s"', base, under),
        'Adapters do not add up: make one of that model.'
    );
    PERFORM public.llm_require_decoder(
        config, 'llm_create_adapter', 'llm_copy_model and llm_train fit a copy of an encoder.'
    );
    PERFORM public.llm_require(
        alpha <> 0 AND abs(alpha) <= 3.4028234663852886e38,
        format('alpha must be a number other than 0 that float32 can hold, got %s', COALESCE(alpha::text, 'NULL'))
    );
    targets := public.llm_adapter_targets(base, targets);
    PERFORM public.llm_require(
        rank BETWEEN 1 AND l.most,
        format('rank must be between 1 and %s, got %s', l.most, COALESCE(rank::text, 'NULL')),
        'An adapter of a matrix has at most the rank that the matrix has.'
    )
    FROM (
        SELECT min(least(p.shape[1], p.shape[2])) AS most
        FROM public.llm_parameters(base) p
        WHERE public.llm_adapter_target(p.name) = ANY (targets)
    ) l;
    PERFORM public.llm_claim_name(name);
    -- Waits for another session that is dropping or renaming it; whoever may not lock rows meets the foreign key.
    IF has_any_column_privilege('public.llm_model_config', 'UPDATE') THEN
        PERFORM FROM public.llm_model_config c WHERE c.model = base FOR KEY SHARE;
        PERFORM public.llm_config(base);
    END IF;
    identity := public.llm_base_identity(base);
    INSERT INTO public.llm_model_config
    SELECT (jsonb_populate_record(c, jsonb_build_object(
        'model', name, 'created_at', clock_timestamp(), 'init_seed', NULL
    ))).*
    FROM public.llm_model_config c
    WHERE c.model = base
    -- Waits for another session that is creating it, to the end of its transaction.
    ON CONFLICT ON CONSTRAINT pk_llm_model_config DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model "%" already exists', name
            USING ERRCODE = 'duplicate_object', DETAIL = 'Another session has just created it.',
            HINT = 'Choose another name.';
    END IF;
    INSERT INTO public.llm_adapter (model, base, base_sha256, base_version, rank, alpha, targets)
    VALUES (name, base, identity.sha256, identity.version, rank, alpha, targets);
    PERFORM public.llm_copy_tokenizer(base, name);
    RETURN public.llm_init_model(name, seed);
END;
$function$;

COMMENT ON FUNCTION public.llm_create_adapter(text, text, int, double precision, text[], bigint) IS
'Makes a LoRA adapter, a model whose rows of llm_param are two small matrices for each matrix of its base that it adds '
'to: x w becomes x w + (alpha / rank) (x a) b. All else it reads from its base, whose weights it never changes. It '
'begins with b = 0, and a as PEFT begins it, drawn from the seed; so it first computes what its base does. targets: '
'the matrices, by our names (attn.c_attn), by their last part (c_attn; q or q_proj) or by Hugging Face''s names; NULL: '
'those of attention. Returns the number of weights. It is used, trained, saved, evaluated and dropped like any model, '
'as long as its base has the weights that it was made for (55000 otherwise). 42710: the name is taken; 42704: unknown '
'base; 22023: unknown targets, a rank that they do not have, alpha 0, a base that is an adapter; 0A000: an encoder; '
'P0002: the base has no weights; 40001: its weights were changed meanwhile.';


CREATE FUNCTION public.llm_base_identity(base text, OUT sha256 text, OUT version bytea)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    fingerprint CONSTANT bytea := public.llm_pin(base);
BEGIN
    sha256 := public.pg_llm_arena_sha256(base);
    version := public.pg_llm_shared_version(base);
    PERFORM public.pg_llm_arena_close(base);
    IF public.llm_fingerprint(base) IS DISTINCT FROM fingerprint THEN
        RAISE EXCEPTION 'the weights of model "%" were changed by another transaction meanwhile', base
            USING ERRCODE = 'serialization_failure', HINT = 'Nothing was changed. Try again.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_base_identity(text) IS
'What an adapter''s row holds of its base: the hash of its numbers, and what names the rows that have them. 40001: '
'they were changed meanwhile.';


CREATE FUNCTION public.llm_recognise_base(base text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    identity record;
    n_adapters bigint;
BEGIN
    PERFORM public.llm_config(base);
    identity := public.llm_base_identity(base);
    UPDATE public.llm_adapter a SET base_version = identity.version
    WHERE a.base = llm_recognise_base.base AND a.base_sha256 = identity.sha256;
    GET DIAGNOSTICS n_adapters = ROW_COUNT;
    RETURN n_adapters;
END;
$function$;

COMMENT ON FUNCTION public.llm_recognise_base(text) IS
'Hashes the model''s weights once for all of its adapters: to be called after a restore, or where a subscription '
'brought it, which write the same numbers to other rows; until then each session hashes them. Returns the number of '
'adapters that were made for these weights. Requires llm_trainer. 42704: unknown model; 40001: they were changed '
'meanwhile.';


CREATE FUNCTION public.llm_adapter_target(parameter text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN substring(parameter FROM '^h[.][0-9]+[.](.+)[.]weight$');
END;
$function$;

COMMENT ON FUNCTION public.llm_adapter_target(text) IS
'As what a parameter stands in llm_adapter.targets: attn.c_attn for h.N.attn.c_attn.weight; NULL: it is no weight of a '
'block.';


CREATE FUNCTION public.llm_adapter_targets(base text, targets text[] DEFAULT NULL) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    family CONSTANT text := public.llm_hub_family(base);
    known text[];
    theirs text[];
    wrong text;
BEGIN
    SELECT array_agg(k.target ORDER BY k.target), array_agg(k.theirs ORDER BY k.target) INTO known, theirs
    FROM (
        SELECT DISTINCT public.llm_adapter_target(p.name) AS target,
            -- Of one tensor for three, none of the three is meant.
            CASE WHEN h.how NOT LIKE 'part %' THEN public.llm_hub_target(h.name) END AS theirs
        FROM public.llm_parameters(base) p
        CROSS JOIN LATERAL public.llm_hub_name(family, p.name) h
        WHERE cardinality(p.shape) = 2 AND public.llm_adapter_target(p.name) IS NOT NULL
    ) k;
    PERFORM public.llm_require(
        known IS NOT NULL, format('model "%s" has no matrices that an adapter could add to', base),
        'They are the two-dimensional parameters h.N.*.weight.'
    );
    IF targets IS NULL THEN
        targets := ARRAY(SELECT k.target FROM unnest(known) k (target) WHERE k.target LIKE 'attn.%');
        IF cardinality(targets) = 0 THEN
            RETURN known;
        END IF;
        RETURN targets;
    END IF;
    PERFORM public.llm_require(
        cardinality(targets) > 0, 'targets must name at least one matrix',
        format('Model "%s" has %s.', base, array_to_string(known, ', '))
    );
    SELECT COALESCE('"' || t.name || '"', 'NULL') INTO wrong
    FROM unnest(targets) t (name)
    WHERE NOT EXISTS (
        SELECT FROM unnest(known, theirs) k (ours, theirs)
        WHERE public.llm_is_target(t.name, k.ours) OR public.llm_is_target(t.name, k.theirs)
    )
    LIMIT 1;
    PERFORM public.llm_require(
        wrong IS NULL, format('model "%s" has no target %s', base, wrong),
        format('It has %s.', array_to_string(known, ', '))
    );
    RETURN ARRAY(
        SELECT k.ours FROM unnest(known, theirs) k (ours, theirs)
        WHERE EXISTS (
            SELECT FROM unnest(targets) t (name)
            WHERE public.llm_is_target(t.name, k.ours) OR public.llm_is_target(t.name, k.theirs)
        )
        ORDER BY k.ours
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_adapter_targets(text, text[]) IS
'The matrices of each block that the given names mean, as llm_adapter.targets has them; NULL: those of attention. '
'22023, with those that there are: a name means none of them.';


CREATE FUNCTION public.llm_hub_target(name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN substring(name FROM '[.][0-9]+[.](.+)[.]weight$');
END;
$function$;

COMMENT ON FUNCTION public.llm_hub_target(text) IS
'What stands between a block''s number and .weight in a name of Hugging Face''s: self_attn.q_proj.';


CREATE FUNCTION public.llm_is_target(name text, target text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- Empty names would be the end of every other.
    RETURN name <> '' AND (
        target = name OR right(target, length(name) + 1) = '.' || name
        OR right(target, length(name) + 6) = '.' || name || '_proj'
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_is_target(text, text) IS
'Whether a name that was given means this matrix of a block: all of its name, the last part, or that without _proj.';


CREATE FUNCTION public.llm_adapter_parameters(parameter text, matrix int[], rank int, targets text[])
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF public.llm_adapter_target(parameter) = ANY (targets) IS NOT TRUE THEN
        RETURN;
    END IF;
    -- PEFT's: Kaiming's uniform initialisation with a = sqrt(5), whose bound is 1 / sqrt(inputs).
    RETURN QUERY VALUES
    (parameter || '.lora_a', ARRAY[matrix[1], rank], 'uniform', 1 / sqrt(matrix[1]::double precision)),
    (parameter || '.lora_b', ARRAY[rank, matrix[2]], 'zeros', NULL);
END;
$function$;

COMMENT ON FUNCTION public.llm_adapter_parameters(text, int[], int, text[]) IS
'What an adapter has for a parameter of its base, whose shape is given: nothing, or two factors.';


CREATE FUNCTION public.llm_pin_base(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    adapter public.llm_adapter;
BEGIN
    SELECT a.* INTO adapter FROM public.llm_adapter a WHERE a.model = llm_pin_base.model;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- A row that was made by hand could name one that names this one.
    PERFORM public.llm_require(
        NOT EXISTS (SELECT FROM public.llm_adapter b WHERE b.model = adapter.base),
        format('model "%s", the base of adapter "%s", is an adapter itself', adapter.base, model),
        'Adapters do not add up.'
    );
    PERFORM public.llm_pin(adapter.base);
    -- NULL, where it is not known or the rows have gone meanwhile, is no version.
    IF (adapter.base_version = public.pg_llm_shared_version(adapter.base)) IS NOT TRUE
        AND public.pg_llm_arena_sha256(adapter.base) <> adapter.base_sha256
    THEN
        RAISE EXCEPTION 'model "%" no longer has the weights that its adapter "%" was made for', adapter.base, model
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Bring them back (llm_checkpoint_load, or import them again), or make an adapter of those that it '
                'has now with llm_create_adapter.';
    END IF;
    PERFORM public.pg_llm_arena_base(model, adapter.base, adapter.alpha / adapter.rank);
    PERFORM public.pg_llm_arena_close(adapter.base);
END;
$function$;

COMMENT ON FUNCTION public.llm_pin_base(text) IS
'If the pinned model is an adapter, joins to it the present weights of its base, for as long as it is in memory. '
'55000: they are not those that it was made for.';
