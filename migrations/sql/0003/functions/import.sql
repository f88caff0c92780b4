-- Weights from files: which tensors of a file make up which parameter, and the rows they become.

CREATE FUNCTION public.llm_file_name(name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    short text := name;
    block text[];
    prefix text;
BEGIN
    -- What wrappers put before a name, in any order: transformers' own, Megatron-LM's, torch.compile's, data
    -- parallelism's.
    LOOP
        prefix := substring(
            short
            FROM '^(?:_orig_mod|module|model|language_model|transformer|encoder|decoder|bert|auto_model|gpt_neox)\.'
        );
        EXIT WHEN prefix IS NULL;
        short := substr(short, length(prefix) + 1);
    END LOOP;
    short := CASE short
        WHEN 'wte' THEN 'wte.weight'
        WHEN 'wpe' THEN 'wpe.weight'
        WHEN 'embedding.word_embeddings.weight' THEN 'wte.weight'
        WHEN 'embedding.position_embeddings.weight' THEN 'wpe.weight'
        WHEN 'word_embeddings.weight' THEN 'wte.weight'
        WHEN 'position_embeddings.weight' THEN 'wpe.weight'
        WHEN 'word_embeddings_for_head.weight' THEN 'lm_head.weight'
        WHEN 'output_layer.weight' THEN 'lm_head.weight'
        WHEN 'embed_tokens.weight' THEN 'wte.weight'
        WHEN 'embed_in.weight' THEN 'wte.weight'
        WHEN 'embed_out.weight' THEN 'lm_head.weight'
        WHEN 'final_layernorm.weight' THEN 'ln_f.weight'
        WHEN 'final_layernorm.bias' THEN 'ln_f.bias'
        ELSE short
    END;
    -- As BERT's norms were called once.
    short := regexp_replace(regexp_replace(short, 'LayerNorm[.]gamma$', 'LayerNorm.weight'), 'LayerNorm[.]beta$',
        'LayerNorm.bias');
    block := regexp_match(short, '^(?:h|layers)[.]([0-9]{1,9})[.](.+)[.](weight|bias|masked_bias)$');
    IF block IS NULL THEN
        RETURN short;
    END IF;
    RETURN format(
        'h.%s.%s.%s',
        block[1]::int,
        CASE block[2]
            WHEN 'input_layernorm' THEN 'ln_1'
            WHEN 'post_attention_layernorm' THEN 'ln_2'
            WHEN 'attention.dense' THEN 'attn.dense'
            WHEN 'self_attention.dense' THEN 'attn.dense'
            WHEN 'attention.query_key_value' THEN 'attn.query_key_value'
            WHEN 'self_attention.query_key_value' THEN 'attn.query_key_value'
            ELSE block[2]
        END,
        block[3]
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_file_name(text) IS
'The name under which llm-sql knows a tensor of a weight file: without prefixes of wrappers, blocks as h.N, '
'Megatron-LM''s embeddings and norms with GPT-2''s names. Linear layers keep names that show their layout: '
'attn.c_attn is [in, out]; attn.query_key_value, attn.dense, mlp.dense_h_to_4h, mlp.dense_4h_to_h and '
'attn.{q,k,v,out}_proj are [out, in]. Names of other families stay but for the wrappers'' and the embeddings'': '
'llm_hub_name has them.';


CREATE FUNCTION public.llm_require_tensors(tensors jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    wrong jsonb := tensors;
BEGIN
    IF jsonb_typeof(tensors) = 'array' THEN
        SELECT e.value INTO wrong
        FROM jsonb_array_elements(tensors) e (value)
        WHERE (jsonb_typeof(e.value -> 'name') = 'string' AND jsonb_typeof(e.value -> 'dtype') = 'string'
            AND jsonb_typeof(e.value -> 'shape') = 'array') IS NOT TRUE
        LIMIT 1;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    PERFORM public.llm_require(
        false,
        format('tensors must be a JSON array of {"name", "dtype", "shape"}, got %s',
            COALESCE(left(wrong::text, 200), 'NULL')),
        'The header of a safetensors file has them for each tensor: "wte.weight", "F32", [50257, 768].'
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_require_tensors(jsonb) IS
'Raises 22023 unless tensors describes the tensors of a file in the form that llm_import_begin takes.';


CREATE FUNCTION public.llm_import_plan(model text, tensors jsonb, megatron_version double precision DEFAULT NULL)
RETURNS TABLE (name text, shape int[], sources text[], how text)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    config public.llm_model_config := public.llm_config(llm_import_plan.model);
    found jsonb;
    twice text;
    fused boolean;
    as_stored boolean;
    nanogpt boolean;
    without_biases boolean;
    layout text;
    family CONSTANT text := public.llm_hub_family(model);
    -- Whose files are known: no other layout is looked for.
    known CONSTANT boolean := COALESCE(family <> 'bert', false);
BEGIN
    PERFORM public.llm_require_tensors(tensors);
    SELECT jsonb_object_agg(t.short, t.tensor), min(t.short) FILTER (WHERE t.n > 1) INTO found, twice
    FROM (
        SELECT public.llm_file_name(e.value ->> 'name') AS short, e.value || jsonb_build_object('position', e.position)
            AS tensor, count(*) OVER (PARTITION BY public.llm_file_name(e.value ->> 'name')) AS n
        FROM jsonb_array_elements(tensors) WITH ORDINALITY e (value, position)
    ) t;
    PERFORM public.llm_require(twice IS NULL, format('the file has tensor "%s" under two names', twice));
    found := COALESCE(found, '{}');
    fused := NOT known AND EXISTS (
        SELECT FROM jsonb_object_keys(found) k (key) WHERE k.key ~ '^h[.].*[.]attn[.]query_key_value[.]weight$');
    PERFORM public.llm_require(
        NOT fused OR megatron_version >= 1,
        'the file''s queries, keys and values are fused as in Megatron-LM, in an order that depends on its version',
        'Pass megatron_version: 1.0 (heads x d_head x 3), or 2.0 and later (heads x 3 x d_head).'
    );
    layout := CASE WHEN megatron_version >= 2 THEN 'megatron 2' ELSE 'megatron 1' END;
    -- Of separate projections, which are square, the layout shows in the MLP's matrices beside them.
    as_stored := COALESCE(
        (found #>> '{h.0.mlp.c_fc.weight,shape,0}')::bigint, (found #>> '{h.0.mlp.fc1.weight,shape,0}')::bigint
    ) = config.d_model AND COALESCE(config.d_ff, 4 * config.d_model) <> config.d_model;
    -- nanoGPT has GPT-2's names with PyTorch's Linear layers, which are [out, in], perhaps no biases at all, which are
    -- zeros here, and a vocabulary that is padded.
    nanogpt := found #> '{h.0.attn.c_attn.weight,shape}' = to_jsonb(ARRAY[3 * config.d_model::bigint, config.d_model]);
    without_biases := nanogpt AND NOT EXISTS (
        SELECT FROM jsonb_object_keys(found) k (key) WHERE k.key ~ '\.bias$' AND k.key !~ '\.attn\.(masked_)?bias$'
    );
    RETURN QUERY
    WITH parameter (name, shape, layer, part, kind) AS (
        SELECT p.name, p.shape, b.m[1], b.m[2], b.m[3]
        FROM public.llm_parameters(llm_import_plan.model) p
        LEFT JOIN LATERAL (
            SELECT regexp_match(p.name, '^(h[.][0-9]+[.])(.+)[.](weight|bias)$') AS m
        ) b ON true
    ),
    candidate (name, rank, sources, how) AS (
        SELECT p.name, 1, ARRAY[p.name], CASE
            WHEN found #>> ARRAY[p.name, 'name'] ~ 'word_embeddings|output_layer' THEN 'rows'
            WHEN nanogpt AND p.name IN ('wte.weight', 'lm_head.weight') THEN 'rows'
            WHEN nanogpt AND p.kind = 'weight' AND p.part IN ('attn.c_attn', 'attn.c_proj', 'mlp.c_fc', 'mlp.c_proj')
                THEN 'transposed'
            ELSE 'same'
        END
        FROM parameter p
        WHERE NOT known
        UNION ALL
        SELECT p.name, 2, ARRAY[p.layer || a.part || '.' || p.kind],
            CASE p.kind WHEN 'bias' THEN 'same' ELSE 'transposed' END
        FROM parameter p
        INNER JOIN (
            VALUES
            ('attn.c_proj', 'attn.dense'),
            ('mlp.c_fc', 'mlp.dense_h_to_4h'),
            ('mlp.c_proj', 'mlp.dense_4h_to_h')
        ) a (ours, part) ON a.ours = p.part
        WHERE NOT known
        UNION ALL
        SELECT p.name, 3, ARRAY[p.layer || a.part || '.' || p.kind],
            CASE WHEN p.kind = 'bias' OR as_stored THEN 'same' ELSE 'transposed' END
        FROM parameter p
        INNER JOIN (
            VALUES
            ('attn.c_proj', 'attn.out_proj'),
            ('mlp.c_fc', 'mlp.fc1'),
            ('mlp.c_proj', 'mlp.fc2')
        ) a (ours, part) ON a.ours = p.part
        WHERE NOT known
        UNION ALL
        SELECT p.name, 4, ARRAY[p.layer || 'attn.query_key_value.' || p.kind],
            layout || CASE p.kind WHEN 'bias' THEN '' ELSE ' transposed' END
        FROM parameter p
        WHERE p.part = 'attn.c_attn'
        UNION ALL
        SELECT p.name, 5,
            ARRAY(SELECT p.layer || format('attn.%s_proj.', q.part) || p.kind FROM unnest('{q,k,v}'::text[]) q (part)),
            CASE WHEN p.kind = 'bias' THEN 'joined' WHEN as_stored THEN 'joined columns' ELSE 'joined transposed' END
        FROM parameter p
        WHERE p.part = 'attn.c_attn'
        UNION ALL
        -- Of two names for the one matrix of a tied model a file may keep either.
        SELECT p.name, 6, ARRAY['lm_head.weight'],
            CASE WHEN nanogpt OR found #>> '{lm_head.weight,name}' ~ 'output_layer' THEN 'rows' ELSE 'same' END
        FROM parameter p
        WHERE p.name = 'wte.weight' AND NOT EXISTS (SELECT FROM parameter h WHERE h.name = 'lm_head.weight')
        UNION ALL
        SELECT p.name, 7, ARRAY[public.llm_file_name(b.name)], b.how
        FROM parameter p
        CROSS JOIN LATERAL public.llm_hub_name(family, p.name) b
        WHERE b.name IS NOT NULL
        UNION ALL
        SELECT p.name, 8, '{}'::text[], 'zeros'
        FROM parameter p
        WHERE NOT known AND without_biases AND p.name LIKE '%.bias'
    ),
    chosen (name, sources, how) AS (
        SELECT DISTINCT ON (c.name) c.name, c.sources, c.how
        FROM candidate c
        WHERE found ?& c.sources
        ORDER BY c.name, c.rank
    ),
    used (short) AS (
        SELECT unnest(c.sources) FROM chosen c
    )
    SELECT r.name, r.shape, r.sources, r.how
    FROM (
        SELECT p.name, p.shape,
            CASE WHEN c.name IS NOT NULL THEN
                ARRAY(SELECT found #>> ARRAY[s.short, 'name'] FROM unnest(c.sources) s (short))
            END AS sources,
            c.how,
            (SELECT min((found #>> ARRAY[s.short, 'position'])::bigint) FROM unnest(c.sources) s (short)) AS first
        FROM parameter p
        LEFT JOIN chosen c ON c.name = p.name
        UNION ALL
        SELECT NULL, NULL, ARRAY[found #>> ARRAY[k.short, 'name']],
            CASE k.short WHEN 'lm_head.weight' THEN 'head' ELSE 'unknown' END, NULL
        FROM jsonb_object_keys(found) k (short)
        WHERE NOT EXISTS (SELECT FROM used u WHERE u.short = k.short)
            AND k.short !~ '(^|[.])(attn|attention|self_attention)[.](masked_)?bias$'
            AND k.short !~ '(^|[.])rotary_emb[.]inv_freq$'
            -- Heads of pre-training, and numbers that are the positions' own.
            AND NOT (
                family IS NOT DISTINCT FROM 'bert'
                AND k.short ~ '^(pooler|cls)[.]|^embeddings[.](position_ids|token_type_ids)$'
            )
    ) r
    ORDER BY r.first;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_plan(text, jsonb, double precision) IS
'How the tensors of a file ([{"name", "dtype", "shape"}, ...]) make up the model''s parameters. sources: their names '
'in the file; NULL if the file lacks the parameter. how: same, rows (the first ones), transposed, joined (queries, '
'keys, values end to end; joined transposed: then transposed; joined columns: side by side), megatron 1 or 2 '
'(reordered, then perhaps transposed), what llm_hub_name tells, zeros (no source: the biases of a nanoGPT model '
'without biases). name is NULL for an unknown tensor (how: unknown) and for an output head in addition to tied '
'embeddings (how: head). In a tied model lm_head.weight may be the only name of the matrix. Attention '
'masks and rotary frequencies are left out, of an encoder''s file also the heads of its pre-training (pooler, cls).';


CREATE FUNCTION public.llm_import_source_shape(shape int[], how text, n_sources int) RETURNS int[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN CASE
        WHEN how = 'joined' THEN ARRAY[shape[1] / n_sources]
        WHEN how = 'joined columns' THEN ARRAY[shape[1], shape[2] / n_sources]
        WHEN how = 'joined transposed' THEN ARRAY[shape[2] / n_sources, shape[1]]
        WHEN how LIKE 'part % transposed' THEN ARRAY[3 * shape[2], shape[1]]
        WHEN how LIKE 'part %' THEN ARRAY[3 * shape[1]]
        WHEN how LIKE 'after %' THEN shape[1] + 2 || shape[2:]
        WHEN how LIKE '%transposed' THEN ARRAY[shape[2], shape[1]]
        ELSE shape
    END;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_source_shape(int[], text, int) IS
'The shape that each source of a parameter must have in a file, according to llm_import_plan.';


CREATE FUNCTION public.llm_import_check(model text, tensors jsonb, megatron_version double precision DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    missing text;
    unknown text;
    wrong text;
    holds text;
BEGIN
    PERFORM public.llm_require_tensors(tensors);
    WITH plan AS MATERIALIZED (
        SELECT * FROM public.llm_import_plan(llm_import_check.model, tensors, megatron_version)
    ),
    source AS (
        SELECT s.name, e.value ->> 'dtype' AS dtype, e.value -> 'shape' AS found, p.how,
            public.llm_import_source_shape(p.shape, p.how, cardinality(p.sources)) AS expected
        FROM plan p
        CROSS JOIN LATERAL unnest(p.sources) s (name)
        INNER JOIN jsonb_array_elements(tensors) e (value) ON e.value ->> 'name' = s.name
        WHERE p.name IS NOT NULL
    ),
    problem AS (
        SELECT 1 AS rank, format('"%s" has shape %s, expected %s', s.name, s.found, to_jsonb(s.expected)) AS text
        FROM source s
        WHERE CASE s.how
            WHEN 'rows' THEN
                (s.found ->> 0)::bigint < s.expected[1] OR s.found - 0 IS DISTINCT FROM to_jsonb(s.expected[2:])
            ELSE s.found IS DISTINCT FROM to_jsonb(s.expected)
        END
        UNION ALL
        SELECT 2, format('"%s" has elements of type %s, not floating-point numbers', s.name, s.dtype)
        FROM source s
        WHERE s.dtype NOT IN ('F32', 'F16', 'BF16', 'F64')
    )
    SELECT
        (SELECT string_agg(p.name, ', ') FROM (
            SELECT p.name FROM plan p WHERE p.sources IS NULL ORDER BY p.name COLLATE "C" LIMIT 20
        ) p),
        (SELECT string_agg(p.sources[1], ', ') FROM (
            SELECT p.sources FROM plan p WHERE p.how = 'unknown' ORDER BY p.sources COLLATE "C" LIMIT 20
        ) p),
        (SELECT string_agg(p.text, '; ') FROM (SELECT p.text FROM problem p ORDER BY p.rank, p.text LIMIT 10) p),
        (SELECT string_agg(e.text, ', ' ORDER BY e.position) FROM (
            SELECT format('"%s" %s', e.value ->> 'name', e.value ->> 'shape') AS text, e.position
            FROM jsonb_array_elements(tensors) WITH ORDINALITY e (value, position) LIMIT 10
        ) e)
    INTO missing, unknown, wrong, holds;
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'the file has tensors that model "%" does not have: %', llm_import_check.model, unknown
            USING ERRCODE = 'invalid_parameter_value',
            DETAIL = COALESCE('It lacks: ' || missing, ''),
            HINT = 'Use the names of Hugging Face''s files for the architecture, of a GPT-2 also nanoGPT''s or '
                'Megatron-LM''s; llm_parameters lists ours.';
    ELSIF missing IS NOT NULL THEN
        RAISE EXCEPTION 'the file lacks tensors of model "%": %', llm_import_check.model, missing
            USING ERRCODE = 'invalid_parameter_value',
            DETAIL = format('It holds %s tensors: %s.', jsonb_array_length(tensors), COALESCE(holds, 'none')),
            HINT = 'Compare its sizes with those in llm_model_config.';
    ELSIF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the file does not match the configuration of model "%": %', llm_import_check.model, wrong
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Correct llm_model_config, or import another file.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_check(text, jsonb, double precision) IS
'Checks a file''s tensors against the model''s parameters. 22023 lists what is missing, unknown, or of another shape.';


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
