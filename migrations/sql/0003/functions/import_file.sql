-- Importing weights from files on the server.

CREATE FUNCTION public.llm_file_limit(model text) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    weights numeric;
BEGIN
    -- float64 of every weight, a head and padding for the vocabulary, a mask per layer; doubled.
    SELECT sum(n.weights) INTO weights
    FROM public.llm_parameters(model) p
    CROSS JOIN LATERAL (
        SELECT p.shape[1]::numeric * COALESCE(p.shape[2], 1) AS weights
    ) n;
    RETURN least(
        2 * 8 * (
            weights + (config.vocab + 8192)::numeric * config.d_model
            + config.n_layer * config.n_positions::numeric * config.n_positions
        ) + 67108864,
        9e18
    )::bigint;
END;
$function$;

COMMENT ON FUNCTION public.llm_file_limit(text) IS
'The limit on the bytes of tensor data that a file of the model''s weights may declare: far more than the weights '
'need, far less than a malicious file can inflate to.';


CREATE FUNCTION public.llm_import_value(path text, sources text[], how text, n_head int) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    value public.tensor;
    part int;
    width int;
BEGIN
    PERFORM public.llm_require(path IS NOT NULL, 'path must not be NULL');
    PERFORM public.llm_require(sources[1] IS NOT NULL, 'sources must name a tensor');
    PERFORM public.llm_require(how IS NOT NULL, 'how must not be NULL');
    PERFORM public.llm_require(n_head IS NOT NULL, 'n_head must not be NULL');
    value := public.pg_llm_file_tensor(path, sources[1]);
    FOR i IN 2 .. cardinality(sources) LOOP
        value := public.pg_llm_concat(
            value, public.pg_llm_file_tensor(path, sources[i]), CASE how WHEN 'joined columns' THEN 1 ELSE 0 END
        );
    END LOOP;
    IF how LIKE 'megatron%' THEN
        value := public.pg_llm_megatron_order(value, n_head, how LIKE 'megatron 2%');
    ELSIF how LIKE 'part %' THEN
        part := split_part(how, ' ', 2)::int;
        width := (public.shape(value))[1] / 3;
        -- GPT-NeoX has queries, keys and values of a head beside each other, as Megatron-LM 2.
        value := public.pg_llm_slice(
            public.pg_llm_megatron_order(value, n_head, true), 0, (part - 1) * width, part * width
        );
    ELSIF how LIKE 'after %' THEN
        value := public.pg_llm_slice(value, 0, split_part(how, ' ', 2)::int, (public.shape(value))[1]);
    END IF;
    RETURN CASE WHEN how LIKE '%transposed' THEN public.pg_llm_transpose(value) ELSE value END;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_value(text, text[], text, int) IS
'A parameter assembled from tensors of a file on the server, in one of the ways of llm_import_plan.';


CREATE FUNCTION public.llm_import_heads_equal(path text, tensors jsonb, vocab int) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    head text;
    embedding text;
BEGIN
    PERFORM public.llm_require(path IS NOT NULL, 'path must not be NULL');
    PERFORM public.llm_require(tensors IS NOT NULL, 'tensors must not be NULL');
    PERFORM public.llm_require(vocab IS NOT NULL, 'vocab must not be NULL');
    SELECT min(e.value ->> 'name') FILTER (WHERE public.llm_file_name(e.value ->> 'name') = 'lm_head.weight'),
        min(e.value ->> 'name') FILTER (WHERE public.llm_file_name(e.value ->> 'name') = 'wte.weight')
    INTO head, embedding
    FROM jsonb_array_elements(tensors) e (value)
    -- Others are refused by llm_import_check.
    WHERE (e.value #>> '{shape,0}')::bigint >= vocab;
    RETURN CASE
        WHEN head IS NULL THEN true
        WHEN embedding IS NOT NULL THEN public.pg_llm_tensor_eq(
            public.pg_llm_file_tensor(path, head, 0, vocab), public.pg_llm_file_tensor(path, embedding, 0, vocab)
        )
    END;
END;
$function$;

COMMENT ON FUNCTION public.llm_import_heads_equal(text, jsonb, int) IS
'Whether a file on the server has no output head, or one that equals its token embedding; NULL: it has only a head.';


CREATE FUNCTION public.llm_import_is_bf16(tensors jsonb, sources text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require(tensors IS NOT NULL, 'tensors must not be NULL');
    PERFORM public.llm_require(sources IS NOT NULL, 'sources must not be NULL');
    RETURN (
        SELECT COALESCE(bool_and(e.value ->> 'dtype' = 'BF16'), false)
        FROM jsonb_array_elements(tensors) e (value)
        WHERE e.value ->> 'name' = ANY (sources)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_import_is_bf16(jsonb, text[]) IS
'Whether all of these tensors of a file have elements of bf16: a parameter made of them is stored as that.';


CREATE FUNCTION public.llm_import_file(path text, model text, formats text[], megatron_version double precision)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    recording boolean := public.pg_llm_recording();
    found_format text;
    tensors jsonb;
    parameter record;
    part record;
    value public.tensor;
    rows public.tensor;
    as_bf16 boolean;
BEGIN
    PERFORM public.llm_require(path IS NOT NULL, 'path must not be NULL');
    PERFORM public.llm_require(formats IS NOT NULL, 'formats must not be NULL');
    PERFORM public.pg_llm_set_recording(false, true);
    SELECT jsonb_agg(
            jsonb_build_object('name', t.name, 'dtype', t.dtype, 'shape', to_jsonb(t.shape)) ORDER BY t."position"),
        min(t.format)
    INTO tensors, found_format
    FROM public.pg_llm_file_tensors(path, public.llm_file_limit(model)) t;
    PERFORM public.llm_require(tensors IS NOT NULL, format('file "%s" holds no tensors', path));
    PERFORM public.llm_require(
        found_format = ANY (formats), format('file "%s" has the format %s', path, found_format),
        'pg_llm_import_npz reads npz and gzip, pg_llm_import_safetensors reads safetensors.'
    );
    FOR parameter IN
        SELECT p.name, p.shape, p.sources, p.how
        FROM public.llm_import_begin(
            model, tensors, public.llm_import_heads_equal(path, tensors, config.vocab), megatron_version
        ) p
    LOOP
        value := CASE
            WHEN parameter.how = 'zeros' THEN public.pg_llm_full(parameter.shape, 0.0)
            WHEN parameter.how NOT IN ('same', 'rows') THEN
                public.llm_import_value(path, parameter.sources, parameter.how, config.n_head)
        END;
        -- What is only moved about is bf16 still.
        as_bf16 := public.llm_import_is_bf16(tensors, parameter.sources);
        FOR part IN SELECT s.first_row, s.n_rows FROM public.llm_parts(parameter.shape) s LOOP
            rows := CASE
                WHEN value IS NULL THEN
                    public.pg_llm_file_tensor(path, parameter.sources[1], part.first_row, part.n_rows)
                ELSE public.pg_llm_slice(value, 0, part.first_row, part.first_row + part.n_rows)
            END;
            IF as_bf16 AND public.pg_llm_tensor_eq(public.pg_llm_to_bf16(rows), rows) THEN
                rows := public.pg_llm_to_bf16(rows);
            END IF;
            PERFORM public.llm_import_part(model, parameter.name, part.first_row, rows);
        END LOOP;
    END LOOP;
    PERFORM public.pg_llm_set_recording(recording, true);
    RETURN public.llm_import_end(model);
END;
$function$;

COMMENT ON FUNCTION public.llm_import_file(text, text, text[], double precision) IS
'Replaces the model''s weights with those of a file on the server in one of the formats.';


CREATE FUNCTION public.pg_llm_import_npz(path text, model text, megatron_version double precision DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_import_file(path, model, '{npz,gzip}', megatron_version);
END;
$function$;

COMMENT ON FUNCTION public.pg_llm_import_npz(text, text, double precision) IS
'Replaces the model''s weights with those of a file on the server: .npz, or a gzip stream of (name, .npy) records, '
'recognised by its contents. Tensor names are those of Hugging Face, nanoGPT or Megatron-LM (whose queries, keys and '
'values need megatron_version: 1.0, or 2.0 and later). The model must be in llm_model_config; its step becomes 0 and '
'its log rows are marked as superseded. Returns the number of weights. Requires pg_read_server_files. 22000: damaged '
'file; 22023: another model''s file.';


CREATE FUNCTION public.pg_llm_import_safetensors(path text, model text, megatron_version double precision DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_import_file(path, model, '{safetensors}', megatron_version);
END;
$function$;

COMMENT ON FUNCTION public.pg_llm_import_safetensors(text, text, double precision) IS
'Replaces the model''s weights with those of a .safetensors file on the server; otherwise like pg_llm_import_npz.';
