-- Loading checkpoints.

CREATE FUNCTION public.llm_checkpoint_verify(model text, id bigint) RETURNS public.llm_checkpoint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    checkpoint public.llm_checkpoint;
BEGIN
    PERFORM public.llm_require(model IS NOT NULL, 'model must not be NULL');
    SELECT c.* INTO checkpoint FROM public.llm_checkpoint c WHERE c.id = llm_checkpoint_verify.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'checkpoint % does not exist', COALESCE(id::text, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'llm_checkpoint lists the checkpoints.';
    END IF;
    PERFORM public.llm_require(
        checkpoint.model = model,
        format('checkpoint %s belongs to model "%s", not to "%s"', id, checkpoint.model, model)
    );
    PERFORM public.llm_require(
        checkpoint.format = 'checkpoint 1', format('checkpoint %s has the unknown format "%s"', id, checkpoint.format),
        'A newer version of llm-sql wrote it.'
    );
    -- Opening the file holds its size, hash, format and model against the row.
    PERFORM public.pg_llm_checkpoint_metadata(id, 'llm_sql');
    RETURN checkpoint;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_verify(text, bigint) IS
'Returns the checkpoint''s row after checking its file against the stored hash. 42704: unknown id; 22023: another '
'model''s checkpoint; 22000: the file is damaged; 58P01: the file is not on this server.';


CREATE FUNCTION public.llm_checkpoint_config(model text, id bigint) RETURNS public.llm_model_config
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    stored jsonb := public.pg_llm_checkpoint_metadata(id, 'config')::jsonb;
    config public.llm_model_config;
BEGIN
    PERFORM public.llm_require(
        stored ->> 'model' = (
            SELECT COALESCE(c.saved_as, c.model) FROM public.llm_checkpoint c WHERE c.id = llm_checkpoint_config.id),
        format('the file of checkpoint %s configures a model other than "%s"', id, model),
        'Nothing was changed.'
    );
    config := jsonb_populate_record(NULL::public.llm_model_config, stored);
    -- The model may have been renamed since.
    config.model := model;
    config.activation_function := COALESCE(config.activation_function, 'gelu_new');
    config.settings := COALESCE(config.settings, '{}');
    PERFORM public.llm_check_size(config);
    RETURN config;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_config(text, bigint) IS
'The configuration stored in a checkpoint''s file. 22023: another model''s checkpoint.';


CREATE FUNCTION public.llm_checkpoint_restore_config(config public.llm_model_config) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument('config', config.model IS NOT NULL);
    INSERT INTO public.llm_model_config (
        model, arch, n_layer, n_head, d_model, n_positions, vocab, d_ff, layer_norm_eps,
        activation_function, tied, init_seed, settings
    )
    VALUES (
        config.model, config.arch, config.n_layer, config.n_head, config.d_model, config.n_positions, config.vocab,
        config.d_ff, config.layer_norm_eps, config.activation_function, config.tied, config.init_seed,
        config.settings
    )
    ON CONFLICT (model) DO UPDATE SET
        arch = EXCLUDED.arch, n_layer = EXCLUDED.n_layer, n_head = EXCLUDED.n_head, d_model = EXCLUDED.d_model,
        n_positions = EXCLUDED.n_positions, vocab = EXCLUDED.vocab, d_ff = EXCLUDED.d_ff,
        layer_norm_eps = EXCLUDED.layer_norm_eps, activation_function = EXCLUDED.activation_function,
        tied = EXCLUDED.tied, init_seed = EXCLUDED.init_seed, settings = EXCLUDED.settings;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_restore_config(public.llm_model_config) IS
'Restores the model''s configuration from a checkpoint.';


CREATE FUNCTION public.llm_checkpoint_restore_adapter(model text, id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    stored CONSTANT public.llm_adapter := jsonb_populate_record(
        NULL::public.llm_adapter, public.pg_llm_checkpoint_metadata(id, 'adapter')::jsonb
    );
BEGIN
    PERFORM public.llm_require_argument('model', model IS NOT NULL);
    -- The base may have been renamed since.
    UPDATE public.llm_adapter a SET rank = stored.rank, alpha = stored.alpha, targets = stored.targets
    WHERE a.model = llm_checkpoint_restore_adapter.model AND a.base_sha256 = stored.base_sha256;
    IF FOUND THEN
        RETURN;
    END IF;
    DELETE FROM public.llm_adapter a WHERE a.model = llm_checkpoint_restore_adapter.model;
    IF stored.base IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM public.llm_model_config c WHERE c.model = stored.base) THEN
        RAISE EXCEPTION 'checkpoint % is of an adapter of model "%", which does not exist', id, stored.base
            USING ERRCODE = 'undefined_object', HINT = 'Nothing was changed. Load or import that model first.';
    END IF;
    INSERT INTO public.llm_adapter (model, base, base_sha256, rank, alpha, targets)
    VALUES (model, stored.base, stored.base_sha256, stored.rank, stored.alpha, stored.targets);
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_restore_adapter(text, bigint) IS
'Restores what the model adds to which base from a checkpoint; a model that was none becomes no adapter. 42704: the '
'base does not exist.';


CREATE FUNCTION public.llm_checkpoint_check(model text, id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    steps jsonb := public.pg_llm_checkpoint_metadata(id, 'steps')::jsonb;
    wrong text;
BEGIN
    -- What stands under each name: the parameters, their moments, the tokenizer, and nothing else.
    WITH expected AS (
        SELECT k.prefix || p.name AS name, to_jsonb(p.shape) AS shape, '{F32,BF16}'::text[] AS dtypes,
            k.prefix = '' AS required
        FROM public.llm_parameters(llm_checkpoint_check.model) p
        CROSS JOIN (VALUES (''), ('optimizer.m.'), ('optimizer.v.')) k (prefix)
        UNION ALL
        SELECT t.name, NULL, '{U8}', t.required
        FROM (
            VALUES ('tokenizer.merges', true), ('tokenizer.vocab', true), ('tokenizer.settings', false)
        ) t (name, required)
    )
    SELECT min(COALESCE(e.name, f.name)) INTO wrong
    FROM expected e
    FULL JOIN public.pg_llm_checkpoint_tensors(id) f ON f.name = e.name
    WHERE (e.name IS NULL OR e.required OR f.name IS NOT NULL)
        AND (
            e.name IS NULL OR f.name IS NULL OR f.dtype <> ALL (e.dtypes)
            OR (e.shape IS NOT NULL AND e.shape <> to_jsonb(f.shape))
        );
    PERFORM public.llm_require(
        wrong IS NULL, format('the file of checkpoint %s does not match its configuration: tensor "%s"', id, wrong)
    );
    SELECT min(p.name) INTO wrong
    FROM public.llm_parameters(llm_checkpoint_check.model) p
    WHERE jsonb_typeof(steps -> p.name) IS DISTINCT FROM 'number' OR (steps ->> p.name)::numeric < 0;
    PERFORM public.llm_require(
        wrong IS NULL, format('the file of checkpoint %s lacks the step of parameter "%s"', id, wrong)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_check(text, bigint) IS
'Checks the tensors and steps of a checkpoint''s file against the parameters of its configuration, which the model '
'has by now. 22023 names what is missing, unknown or of another shape.';


CREATE FUNCTION public.llm_checkpoint_restore_tokenizer(model text, id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    DELETE FROM public.llm_tokenizer t WHERE t.model = llm_checkpoint_restore_tokenizer.model;
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_checkpoint_restore_tokenizer.model;
    DELETE FROM public.llm_bpe_vocab v WHERE v.model = llm_checkpoint_restore_tokenizer.model;
    INSERT INTO public.llm_bpe_merges (model, rank, left_token, right_token, pair)
    SELECT llm_checkpoint_restore_tokenizer.model, (e.value ->> 0)::int, e.value ->> 1, e.value ->> 2, e.value ->> 3
    FROM json_array_elements(
        convert_from(public.pg_llm_checkpoint_bytes(id, 'tokenizer.merges'), public.llm_checkpoint_encoding())::json
    ) e (value);
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, score, flags)
    SELECT llm_checkpoint_restore_tokenizer.model, (e.value ->> 0)::int, e.value ->> 1, decode(e.value ->> 2, 'hex'),
        (e.value ->> 3)::double precision,
        CASE WHEN json_typeof(e.value -> 4) = 'array' THEN ARRAY(SELECT json_array_elements_text(e.value -> 4)) END
    FROM json_array_elements(
        convert_from(public.pg_llm_checkpoint_bytes(id, 'tokenizer.vocab'), public.llm_checkpoint_encoding())::json
    ) e (value);
    INSERT INTO public.llm_tokenizer (model, kind, settings, chat_template)
    SELECT llm_checkpoint_restore_tokenizer.model, s.value ->> 0, s.value -> 1, s.value ->> 2
    FROM public.pg_llm_checkpoint_tensors(id) t
    CROSS JOIN LATERAL (
        SELECT convert_from(public.pg_llm_checkpoint_bytes(id, t.name), public.llm_checkpoint_encoding())::jsonb
    ) s (value)
    WHERE t.name = 'tokenizer.settings';
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_restore_tokenizer(text, bigint) IS
'Restores the model''s tokenizer from a checkpoint''s file.';


CREATE FUNCTION public.llm_checkpoint_load(model text, id bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    checkpoint public.llm_checkpoint;
    steps jsonb;
    stored text[];
BEGIN
    PERFORM public.llm_require(model IS NOT NULL, 'model must not be NULL');
    PERFORM public.llm_checkpoint_permitted('load');
    PERFORM public.llm_lock_model(model);
    checkpoint := public.llm_checkpoint_verify(model, id);
    PERFORM public.llm_checkpoint_restore_config(public.llm_checkpoint_config(model, id));
    PERFORM public.llm_checkpoint_restore_adapter(model, id);
    PERFORM public.llm_checkpoint_check(model, id);
    steps := public.pg_llm_checkpoint_metadata(id, 'steps')::jsonb;
    SELECT array_agg(t.name) INTO stored FROM public.pg_llm_checkpoint_tensors(id) t;
    PERFORM public.llm_require_room_for(
        model, 'loading',
        optimizer => CASE
            WHEN EXISTS (SELECT FROM unnest(stored) s (name) WHERE s.name LIKE 'optimizer.m.%') THEN 'keep' ELSE 'drop'
        END,
        dtype => CASE
            WHEN EXISTS (SELECT FROM public.pg_llm_checkpoint_tensors(id) t WHERE t.dtype = 'F32') THEN 'float32'
            ELSE 'bf16'
        END
    );
    DELETE FROM public.llm_param p WHERE p.model = llm_checkpoint_load.model;
    INSERT INTO public.llm_param (model, name, token_id, data, m, v, step)
    SELECT llm_checkpoint_load.model, p.name, s.first_row,
        public.pg_llm_checkpoint_tensor(id, p.name, s.first_row, s.n_rows),
        CASE WHEN 'optimizer.m.' || p.name = ANY (stored) THEN
            public.pg_llm_checkpoint_tensor(id, 'optimizer.m.' || p.name, s.first_row, s.n_rows)
        END,
        CASE WHEN 'optimizer.v.' || p.name = ANY (stored) THEN
            public.pg_llm_checkpoint_tensor(id, 'optimizer.v.' || p.name, s.first_row, s.n_rows)
        END,
        (steps ->> p.name)::bigint
    FROM public.llm_parameters(llm_checkpoint_load.model) p
    CROSS JOIN LATERAL public.llm_parts(p.shape) s
    ORDER BY array_position(stored, p.name), s.first_row;
    PERFORM public.llm_import_end(model);
    PERFORM public.llm_checkpoint_restore_tokenizer(model, id);
    UPDATE public.llm_train_log l SET superseded = true
    WHERE l.model = llm_checkpoint_load.model AND l.step > checkpoint.step AND NOT l.superseded;
    RETURN checkpoint.step;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_load(text, bigint) IS
'Restores the model to its state when the checkpoint was saved: parameters, optimizer state, step, configuration, '
'tokenizer. Log rows of later steps are marked as superseded. Returns the step. The file is verified before anything '
'is changed. Requires llm_trainer. 42704: unknown id; 22023: another model''s checkpoint; 22000: damaged file; 58P01: '
'the file is not on this server; 55P03: the model is being trained; 25006: on a replica or in a read-only '
'transaction.';
