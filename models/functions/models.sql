-- Making, initialising and dropping models.

CREATE FUNCTION public.llm_create_model(
    model text,
    arch text DEFAULT 'gpt2',
    n_layer int DEFAULT NULL,
    n_head int DEFAULT NULL,
    d_model int DEFAULT NULL,
    n_positions int DEFAULT NULL,
    vocab int DEFAULT NULL,
    seed bigint DEFAULT 0,
    settings jsonb DEFAULT '{}'
) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    smallest record;
BEGIN
    PERFORM public.llm_require(model <> '', 'a model needs a name');
    IF NOT EXISTS (SELECT FROM public.llm_arch a WHERE a.arch = llm_create_model.arch) THEN
        RAISE EXCEPTION 'architecture % does not exist', COALESCE('"' || arch || '"', 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'llm_arch lists the architectures.';
    END IF;
    IF EXISTS (SELECT FROM public.llm_model_config c WHERE c.model = llm_create_model.model) THEN
        RAISE EXCEPTION 'model "%" already exists', model
            USING ERRCODE = 'duplicate_object',
            HINT = 'llm_init_model gives it new weights, llm_drop_model removes it.';
    END IF;
    SELECT s.* INTO smallest
    FROM (
        VALUES
        {{ architectures.sizes }}
    ) s (arch, n_layer, n_head, d_model, n_positions, vocab, layer_norm_eps, activation_function, tied)
    WHERE s.arch IN (llm_create_model.arch, 'gpt2')
    ORDER BY s.arch = llm_create_model.arch DESC
    LIMIT 1;
    n_layer := COALESCE(n_layer, smallest.n_layer);
    n_head := COALESCE(n_head, smallest.n_head);
    d_model := COALESCE(d_model, smallest.d_model);
    n_positions := COALESCE(n_positions, smallest.n_positions);
    vocab := COALESCE(
        vocab,
        (SELECT max(v.token_id) + 1 FROM public.llm_bpe_vocab v WHERE v.model = llm_create_model.model),
        smallest.vocab
    );
    PERFORM public.llm_require(s.value > 0, format('%s must be positive, got %s', s.name, s.value))
    FROM (
        VALUES
        ('n_layer', n_layer), ('n_head', n_head), ('d_model', d_model),
        ('n_positions', n_positions), ('vocab', vocab)
    ) s (name, value);
    settings := COALESCE(settings, '{}');
    PERFORM public.llm_require(
        jsonb_typeof(settings) = 'object', format('settings must be a JSON object, got %s', left(settings::text, 100))
    );
    PERFORM public.llm_require(
        d_model % n_head = 0 OR settings ->> 'd_head' IS NOT NULL,
        format('d_model %s is not a multiple of n_head %s', d_model, n_head)
    );
    INSERT INTO public.llm_model_config (
        model, arch, n_layer, n_head, d_model, n_positions, vocab, layer_norm_eps, activation_function, tied, settings
    )
    VALUES (
        model, arch, n_layer, n_head, d_model, n_positions, vocab, smallest.layer_norm_eps,
        smallest.activation_function, smallest.tied, settings
    )
    -- Waits for another session that is creating it, to the end of its transaction.
    ON CONFLICT ON CONSTRAINT pk_llm_model_config DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model "%" already exists', model
            USING ERRCODE = 'duplicate_object', DETAIL = 'Another session has just created it.',
            HINT = 'llm_init_model gives it new weights, llm_drop_model removes it.';
    END IF;
    RETURN public.llm_init_model(model, seed);
END;
$function$;

COMMENT ON FUNCTION public.llm_create_model(text, text, int, int, int, int, int, bigint, jsonb) IS
'Registers a model and initialises its weights. Returns the number of weights. Sizes that are not given are those of '
'the architecture''s smallest model in llm_model_config, or of the smallest GPT-2; vocab is that of the model''s '
'tokenizer if it already has one. settings: what the architecture knows beyond sizes, as llm_arch.settings declares. '
'42710: the model exists; 42704: unknown architecture; 22023: inconsistent sizes, or a setting that is unknown or not '
'allowed; 53100: the weights do not fit on the disk; 54000: more than 10,000 layers or 10^12 weights. VACUUM '
'(TRUNCATE) llm_param frees the space of a failed or dropped model.';


CREATE FUNCTION public.llm_init_model(model text, seed bigint DEFAULT 0) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- What a tensor in one part may have, and the parts of a larger one: reading and writing a part takes copies
    -- of it, which the allocator keeps for reuse up to 32 MB.
    whole_elements CONSTANT bigint := 8388608;
    part_elements CONSTANT bigint := 2097152;
    recording boolean := public.pg_llm_recording();
    n_weights bigint := 0;
    parameter record;
    width bigint;
    part_rows bigint;
    part_shape int[];
BEGIN
    PERFORM public.llm_require(seed IS NOT NULL, 'seed must not be NULL');
    PERFORM public.llm_check_size(public.llm_config(model));
    PERFORM public.llm_lock_model(model);
    PERFORM public.llm_require_room_for(model, 'initialising');
    PERFORM public.pg_llm_set_recording(false, true);
    UPDATE public.llm_model_config c SET init_seed = llm_init_model.seed
    WHERE c.model = llm_init_model.model AND c.init_seed IS DISTINCT FROM llm_init_model.seed;
    DELETE FROM public.llm_param p WHERE p.model = llm_init_model.model;
    UPDATE public.llm_train_log l SET superseded = true
    WHERE l.model = llm_init_model.model AND NOT l.superseded;
    DELETE FROM public.llm_eval_log e WHERE e.model = llm_init_model.model AND e.tape_id IS NULL;
    FOR parameter IN SELECT e.name, e.shape, e.init, e.std FROM public.llm_parameters(model) e LOOP
        width := 1;
        FOR axis IN 2 .. cardinality(parameter.shape) LOOP
            width := width * parameter.shape[axis];
        END LOOP;
        part_rows := CASE
            WHEN width * parameter.shape[1] <= whole_elements THEN parameter.shape[1]
            ELSE greatest(part_elements / width, 1)
        END;
        FOR first_row IN 0 .. parameter.shape[1] - 1 BY least(part_rows, parameter.shape[1])::int LOOP
            part_shape := parameter.shape;
            part_shape[1] := least(part_rows, parameter.shape[1] - first_row);
            INSERT INTO public.llm_param (model, name, token_id, data)
            VALUES (
                llm_init_model.model, parameter.name, first_row,
                public.llm_initial_tensor(part_shape, parameter.init, parameter.std, seed, parameter.name, first_row)
            );
            n_weights := n_weights + width * part_shape[1];
        END LOOP;
    END LOOP;
    PERFORM public.pg_llm_set_recording(recording, true);
    RETURN n_weights;
END;
$function$;

COMMENT ON FUNCTION public.llm_init_model(text, bigint) IS
'Gives the model new weights, initialised as its architecture defines (GPT-2: normal 0.02, residual projections '
'scaled by 1/sqrt(2 n_layer), zero biases, unit gains), at step 0 and without optimizer state. Its log rows are '
'marked as superseded. The same seed gives the same bits. Returns the number of weights. 55P03: another session is '
'changing the model; 53100: the weights do not fit on the disk.';


CREATE FUNCTION public.llm_check_size(config public.llm_model_config) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- Embeddings, and in each layer 4 d^2 for attention, more with wider heads, and 2 d d_ff for the MLP.
    n_weights CONSTANT numeric := (config.vocab::numeric + config.n_positions) * config.d_model
        + config.n_layer::numeric * config.d_model * (
            4 * COALESCE((config.settings ->> 'd_head')::numeric * config.n_head, config.d_model)
            + 2 * COALESCE(config.d_ff, 4 * config.d_model::numeric)
        );
BEGIN
    IF n_weights > 1e12 OR config.n_layer > 10000 THEN
        RAISE EXCEPTION 'model "%" would have % layers and about % weights',
            config.model, config.n_layer, trunc(n_weights)
            USING ERRCODE = 'program_limit_exceeded', HINT = 'The limits are 10000 layers and 10^12 weights.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_size(public.llm_model_config) IS
'Raises 54000 for a model so large that initialising it can only be a mistake.';


CREATE FUNCTION public.llm_initial_tensor(
    shape int[],
    init text,
    std double precision,
    seed bigint,
    name text,
    first_row int
) RETURNS public.tensor
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    stream bigint;
BEGIN
    IF init IN ('zeros', 'ones') THEN
        RETURN public.pg_llm_full(shape, CASE init WHEN 'ones' THEN 1.0 ELSE 0.0 END);
    END IF;
    PERFORM public.llm_require(
        init IN ('normal', 'residual', 'uniform') AND std >= 0,
        format('parameter "%s" has initialisation %s with standard deviation %s', name, init, std),
        'The initialisation of a parameter must be normal, residual, uniform, zeros or ones.'
    );
    -- A stream of its own for every part, the same on every server.
    stream := ('x' || left(encode(sha256(convert_to(format('%s/%s', name, first_row), 'UTF8')), 'hex'), 16))
        ::bit(64)::bigint;
    IF init = 'uniform' THEN
        RETURN public.pg_llm_uniform(shape, -std, std, seed, stream);
    END IF;
    RETURN public.pg_llm_normal(shape, 0.0, std, seed, stream);
END;
$function$;

COMMENT ON FUNCTION public.llm_initial_tensor(int[], text, double precision, bigint, text, int) IS
'The initial values of one part of a parameter. They depend on seed, the parameter''s name and the part''s first row.';


CREATE FUNCTION public.llm_drop_model(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    adapters text;
BEGIN
    PERFORM public.llm_stored_config(model);
    PERFORM public.llm_lock_model(model);
    -- Waits for another session that is making an adapter of it; whoever may not lock rows meets its foreign key.
    IF has_any_column_privilege('public.llm_model_config', 'UPDATE') THEN
        PERFORM FROM public.llm_model_config c WHERE c.model = llm_drop_model.model FOR UPDATE;
    END IF;
    SELECT string_agg(format('"%s"', a.model), ', ' ORDER BY a.model) INTO adapters
    FROM public.llm_adapter a WHERE a.base = llm_drop_model.model;
    IF adapters IS NOT NULL THEN
        RAISE EXCEPTION 'model "%" is the base of adapters', model
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = format('They are %s.', adapters),
            HINT = 'Without it they are nothing: drop them first.';
    END IF;
    DELETE FROM public.llm_tensor_rt r
    USING (
        SELECT DISTINCT t.id / 16777216 AS pass FROM public.llm_tape t WHERE t.model = llm_drop_model.model
    ) recorded
    WHERE r.id >= recorded.pass * 16777216 AND r.id < (recorded.pass + 1) * 16777216;
    DELETE FROM public.llm_tape t WHERE t.model = llm_drop_model.model;
    DELETE FROM public.llm_tensor_map t WHERE t.model = llm_drop_model.model;
    DELETE FROM public.llm_tensor t WHERE t.model = llm_drop_model.model;
    DELETE FROM public.llm_eval_log e WHERE e.model = llm_drop_model.model;
    DELETE FROM public.llm_train_run r WHERE r.model = llm_drop_model.model;
    DELETE FROM public.llm_train_log l WHERE l.model = llm_drop_model.model;
    DELETE FROM public.llm_dataset d WHERE d.model = llm_drop_model.model;
    DELETE FROM public.llm_dataset_load l WHERE l.model = llm_drop_model.model;
    DELETE FROM public.llm_tokenizer t WHERE t.model = llm_drop_model.model;
    DELETE FROM public.llm_bpe_merges b WHERE b.model = llm_drop_model.model;
    DELETE FROM public.llm_bpe_vocab b WHERE b.model = llm_drop_model.model;
    PERFORM public.pg_llm_shared_forget(model);
    DELETE FROM public.llm_param p WHERE p.model = llm_drop_model.model;
    DELETE FROM public.llm_adapter a WHERE a.model = llm_drop_model.model;
    DELETE FROM public.llm_model_config c WHERE c.model = llm_drop_model.model;
END;
$function$;

COMMENT ON FUNCTION public.llm_drop_model(text) IS
'Removes the model: configuration, weights, tokenizer, its own data sets, runs, log and tape. Its checkpoints, files '
'and rows, are kept. 2BP01: it is the base of adapters; 55P03: another session is changing the model. The space of its '
'weights can be reused after a vacuum; VACUUM (TRUNCATE) llm_param returns it to the system.';


CREATE FUNCTION public.llm_rename_model(model text, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    old_name CONSTANT text := llm_rename_model.model;
    new_name CONSTANT text := llm_rename_model.new_name;
    old_version bytea;
    n_locked bigint;
    n_renamed bigint;
BEGIN
    PERFORM public.llm_stored_config(old_name);
    PERFORM public.llm_require(new_name <> '', 'a model needs a name');
    PERFORM public.llm_lock_model(old_name);
    IF EXISTS (SELECT FROM public.llm_model_config c WHERE c.model = new_name) THEN
        RAISE EXCEPTION 'model "%" already exists', new_name
            USING ERRCODE = 'duplicate_object', HINT = 'Choose another name, or drop that model with llm_drop_model.';
    END IF;
    IF EXISTS (SELECT FROM public.llm_bpe_vocab v WHERE v.model = new_name)
        OR EXISTS (SELECT FROM public.llm_tokenizer t WHERE t.model = new_name)
        OR EXISTS (SELECT FROM public.llm_dataset d WHERE d.model = new_name)
    THEN
        RAISE EXCEPTION 'there is already a tokenizer or data for a model "%"', new_name
            USING ERRCODE = 'duplicate_object',
            HINT = 'Choose another name, or delete its rows of llm_bpe_vocab, llm_tokenizer and llm_dataset.';
    END IF;
    PERFORM public.llm_lock_model(new_name);
    -- Waits for another session that is making an adapter of it, as llm_drop_model does.
    IF has_any_column_privilege('public.llm_model_config', 'UPDATE') THEN
        PERFORM FROM public.llm_model_config c WHERE c.model = old_name FOR UPDATE;
    END IF;
    INSERT INTO public.llm_model_config
    SELECT (jsonb_populate_record(c, jsonb_build_object('model', new_name))).*
    FROM public.llm_model_config c
    WHERE c.model = old_name
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model "%" already exists', new_name
            USING ERRCODE = 'duplicate_object', DETAIL = 'Another session has just created it.',
            HINT = 'Choose another name.';
    END IF;
    -- Waits for writers under way: what they write is not what the adapters of the old name know.
    PERFORM FROM public.llm_param p WHERE p.model = old_name FOR UPDATE;
    GET DIAGNOSTICS n_locked = ROW_COUNT;
    old_version := public.pg_llm_shared_version(old_name);
    PERFORM public.pg_llm_shared_forget(old_name);
    IF public.llm_is_filtered(new_name) THEN
        -- To subscribers these are new rows, and logical decoding has only the values that are written now.
        WITH gone AS (
            DELETE FROM public.llm_param WHERE model = old_name RETURNING *
        )
        INSERT INTO public.llm_param (model, name, token_id, data, grad, m, v, step, updated_at)
        SELECT new_name, g.name, g.token_id, g.data, g.grad, g.m, g.v, g.step, g.updated_at
        FROM gone g;
    ELSE
        -- Of large values only the references are written anew.
        UPDATE public.llm_param SET model = new_name WHERE model = old_name;
    END IF;
    GET DIAGNOSTICS n_renamed = ROW_COUNT;
    UPDATE public.llm_adapter SET model = new_name WHERE model = old_name;
    UPDATE public.llm_adapter a
    SET base = new_name,
        -- Rows that were added meanwhile are of another base.
        base_version = CASE
            WHEN n_renamed = n_locked AND a.base_version = old_version THEN public.pg_llm_shared_version(new_name)
        END
    WHERE a.base = old_name;
    UPDATE public.llm_tensor SET model = new_name WHERE model = old_name;
    UPDATE public.llm_tensor_map SET model = new_name WHERE model = old_name;
    UPDATE public.llm_tape SET model = new_name WHERE model = old_name;
    UPDATE public.llm_bpe_vocab SET model = new_name WHERE model = old_name;
    UPDATE public.llm_bpe_merges SET model = new_name WHERE model = old_name;
    UPDATE public.llm_tokenizer SET model = new_name WHERE model = old_name;
    UPDATE public.llm_dataset SET model = new_name WHERE model = old_name;
    UPDATE public.llm_dataset_load SET model = new_name WHERE model = old_name;
    -- What an earlier model of the new name left in the log is no longer that of the name's steps.
    UPDATE public.llm_train_log SET superseded = true WHERE model = new_name AND NOT superseded;
    UPDATE public.llm_train_log SET model = new_name WHERE model = old_name;
    UPDATE public.llm_train_run SET model = new_name WHERE model = old_name;
    DELETE FROM public.llm_eval_log e WHERE e.model = new_name AND e.tape_id IS NULL;
    UPDATE public.llm_eval_log SET model = new_name WHERE model = old_name;
    UPDATE public.llm_checkpoint c SET model = new_name, saved_as = COALESCE(c.saved_as, old_name)
    WHERE c.model = old_name;
    DELETE FROM public.llm_model_config c WHERE c.model = old_name;
END;
$function$;

COMMENT ON FUNCTION public.llm_rename_model(text, text) IS
'Renames the model in every relation: weights, tokenizer, data, runs, log, tape, checkpoints. Checkpoint files keep '
'the name under which they were saved. 42704: unknown model; 42710: the new name is taken; 55P03: another session is '
'changing one of the two.';


CREATE FUNCTION public.llm_prune_runs(model text DEFAULT NULL, keep int DEFAULT 10, OUT runs bigint, OUT passes bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    run record;
BEGIN
    PERFORM public.llm_require(keep >= 0, format('keep must not be negative, got %s', COALESCE(keep::text, 'NULL')));
    runs := 0;
    passes := 0;
    FOR run IN
        SELECT r.run_id, r.model FROM (
            SELECT t.run_id, t.model, row_number() OVER (PARTITION BY t.model ORDER BY t.run_id DESC) AS age
            FROM public.llm_train_run t
            WHERE (llm_prune_runs.model IS NULL OR t.model = llm_prune_runs.model) AND t.status <> 'running'
        ) r
        WHERE r.age > keep
        ORDER BY r.run_id
    LOOP
        -- Its log, and what was clipped, go with it. Meanwhile another session may have taken it up.
        DELETE FROM public.llm_train_run r WHERE r.run_id = run.run_id AND r.status <> 'running';
        CONTINUE WHEN NOT FOUND;
        passes := passes + public.llm_prune_passes(run.run_id);
        runs := runs + 1;
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_prune_runs(text, int) IS
'Removes all but the newest keep ended runs of the model (NULL: of each model), with their log, clippings and '
'recorded passes. Returns the numbers of runs and passes removed. Weights and checkpoints are kept. A removed run '
'cannot be resumed.';


CREATE FUNCTION public.llm_prune_passes(run_id bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    passes bigint[];
BEGIN
    WITH gone AS (
        DELETE FROM public.llm_tape t WHERE t.run = llm_prune_passes.run_id RETURNING t.id
    )
    SELECT array_agg(DISTINCT gone.id / 16777216) INTO passes FROM gone;
    PERFORM public.llm_forget_tensors(passes);
    RETURN COALESCE(cardinality(passes), 0);
END;
$function$;

COMMENT ON FUNCTION public.llm_prune_passes(bigint) IS
'Removes the recorded passes of a run from llm_tape, llm_tensor_rt and llm_tensor_map; returns their number.';
