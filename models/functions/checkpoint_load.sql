-- Loading checkpoints.

CREATE FUNCTION public.llm_checkpoint_verify(model text, id bigint) RETURNS public.llm_checkpoint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
DECLARE
    checkpoint public.llm_checkpoint;
    actual record;
BEGIN
    SELECT c.* INTO checkpoint FROM public.llm_checkpoint c WHERE c.id = llm_checkpoint_verify.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'checkpoint % does not exist', COALESCE(id::text, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'llm_checkpoint lists the checkpoints.';
    END IF;
    PERFORM public.llm_require(
        checkpoint.model = model,
        format('checkpoint %s is of model "%s", not of "%s"', id, checkpoint.model, model)
    );
    PERFORM public.llm_require(
        checkpoint.format = 'checkpoint 1', format('checkpoint %s has the unknown format "%s"', id, checkpoint.format),
        'A newer version of llm-sql wrote it.'
    );
    SELECT f.bytes, f.sha256 INTO actual FROM public.pg_llm_file_sha256(checkpoint.file_path, true) f;
    IF actual.bytes IS DISTINCT FROM checkpoint.bytes OR actual.sha256 IS DISTINCT FROM checkpoint.sha256 THEN
        RAISE EXCEPTION 'the file of checkpoint % is damaged', id
            USING ERRCODE = 'data_exception',
            DETAIL = format(
                '%s has %s bytes with SHA-256 %s, saved were %s with %s.', checkpoint.file_path, actual.bytes, actual.sha256,
                checkpoint.bytes, checkpoint.sha256
            ),
            HINT = 'Nothing was changed; load another checkpoint.';
    END IF;
    PERFORM public.llm_require(
        public.pg_llm_file_metadata(checkpoint.file_path, 'llm_sql', true) = checkpoint.format
        AND public.pg_llm_file_metadata(checkpoint.file_path, 'model', true) = COALESCE(checkpoint.saved_as, model),
        format('the file of checkpoint %s is not a checkpoint of model "%s"', id, model)
    );
    RETURN checkpoint;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_verify(text, bigint) IS
'The checkpoint''s row, after holding its file against the hash. 42704: unknown id; 22023: another model''s; 22000: the '
'file is damaged; 58P01: it is gone.';


CREATE FUNCTION public.llm_checkpoint_restore_config(config jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
BEGIN
    PERFORM public.llm_require_argument('config', config IS NOT NULL);
    INSERT INTO public.llm_model_config (
        model, arch, n_layer, n_head, d_model, n_positions, vocab, d_ff, layer_norm_eps,
        activation_function, tied
    )
    SELECT c.model, c.arch, c.n_layer, c.n_head, c.d_model, c.n_positions, c.vocab, c.d_ff, c.layer_norm_eps,
        COALESCE(c.activation_function, 'gelu_new'), c.tied
    FROM jsonb_populate_record(NULL::public.llm_model_config, config) c
    ON CONFLICT (model) DO UPDATE SET
        arch = EXCLUDED.arch, n_layer = EXCLUDED.n_layer, n_head = EXCLUDED.n_head, d_model = EXCLUDED.d_model,
        n_positions = EXCLUDED.n_positions, vocab = EXCLUDED.vocab, d_ff = EXCLUDED.d_ff,
        layer_norm_eps = EXCLUDED.layer_norm_eps, activation_function = EXCLUDED.activation_function,
        tied = EXCLUDED.tied;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_restore_config(jsonb) IS
'Makes the model''s configuration what a checkpoint says it was.';


CREATE FUNCTION public.llm_checkpoint_restore_tokenizer(model text, path text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
BEGIN
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_checkpoint_restore_tokenizer.model;
    DELETE FROM public.llm_bpe_vocab v WHERE v.model = llm_checkpoint_restore_tokenizer.model;
    INSERT INTO public.llm_bpe_merges (model, rank, left_token, right_token, pair)
    SELECT llm_checkpoint_restore_tokenizer.model, (e.value ->> 0)::int, e.value ->> 1, e.value ->> 2, e.value ->> 3
    FROM json_array_elements(
        convert_from(public.pg_llm_file_bytes(path, 'tokenizer.merges', true), 'UTF8')::json
    ) e (value);
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, score)
    SELECT llm_checkpoint_restore_tokenizer.model, (e.value ->> 0)::int, e.value ->> 1, decode(e.value ->> 2, 'hex'),
        (e.value ->> 3)::double precision
    FROM json_array_elements(
        convert_from(public.pg_llm_file_bytes(path, 'tokenizer.vocab', true), 'UTF8')::json
    ) e (value);
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_restore_tokenizer(text, text) IS
'Makes the model''s tokenizer what a checkpoint file says it was.';


CREATE FUNCTION public.llm_checkpoint_load(model text, id bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
DECLARE
    checkpoint public.llm_checkpoint := public.llm_checkpoint_verify(model, id);
    path text := checkpoint.file_path;
    steps jsonb := public.pg_llm_file_metadata(path, 'steps', true)::jsonb;
    stored text[];
BEGIN
    PERFORM public.llm_lock_model(model);
    PERFORM public.llm_checkpoint_restore_config(
        public.pg_llm_file_metadata(path, 'config', true)::jsonb || jsonb_build_object('model', model)
    );
    PERFORM public.llm_require_room_for(model, 'loading a checkpoint of', 3, 0);
    SELECT array_agg(t.name) INTO stored FROM public.pg_llm_file_tensors(path, checkpoint.bytes, true) t;
    DELETE FROM public.llm_param p WHERE p.model = llm_checkpoint_load.model;
    INSERT INTO public.llm_param (model, name, token_id, data, m, v, step)
    SELECT llm_checkpoint_load.model, p.name, s.first_row,
        public.pg_llm_file_tensor(path, p.name, s.first_row, s.n_rows, true),
        CASE WHEN 'optimizer.m.' || p.name = ANY (stored) THEN
            public.pg_llm_file_tensor(path, 'optimizer.m.' || p.name, s.first_row, s.n_rows, true)
        END,
        CASE WHEN 'optimizer.v.' || p.name = ANY (stored) THEN
            public.pg_llm_file_tensor(path, 'optimizer.v.' || p.name, s.first_row, s.n_rows, true)
        END,
        (steps ->> p.name)::bigint
    FROM public.llm_parameters(llm_checkpoint_load.model) p
    CROSS JOIN LATERAL public.llm_parts(p.shape) s
    ORDER BY array_position(stored, p.name), s.first_row;
    PERFORM public.llm_import_end(model);
    PERFORM public.llm_checkpoint_restore_tokenizer(model, path);
    UPDATE public.llm_train_log l SET superseded = true
    WHERE l.model = llm_checkpoint_load.model AND l.step > checkpoint.step AND NOT l.superseded;
    RETURN checkpoint.step;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_load(text, bigint) IS
'Makes the model what it was when the checkpoint was saved: parameters, optimizer state, step, configuration, tokenizer; '
'log rows of later steps are superseded. Returns the step. The file is verified before anything is changed. 42704: '
'unknown id; 22023: another model''s checkpoint; 22000: damaged file; 58P01: no file; 55P03 while the model is trained.';
