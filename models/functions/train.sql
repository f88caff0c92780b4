-- Training in one transaction: checks and defaults, the steps, write-back.

CREATE FUNCTION public.llm_train(
    model text,
    n_steps int,
    n_layer int DEFAULT NULL,
    n_head int DEFAULT NULL,
    d int DEFAULT NULL,
    vocab int DEFAULT NULL,
    {{ hyperparameters.parameters }}
) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
SET extra_float_digits = 1
AS $function$
DECLARE
    run bigint;
BEGIN
    PERFORM public.llm_check_config(model, n_layer, n_head, d, vocab);
    run := public.llm_train_begin(model, jsonb_build_object(
        'n_steps', n_steps,
        {{ hyperparameters.pairs }}
    ));
    PERFORM public.llm_train_chunk(run, n_steps, NULL);
    RETURN run;
END;
$function$;

COMMENT ON FUNCTION public.llm_train(
    text, int, int, int, int, int,
    {{ hyperparameters.types }}
) IS
'Trains the model for n_steps optimizer steps (AdamW) on the train rows of llm_dataset, in one transaction, and '
'returns the id of the run. llm_train_log gets a row per step; all of it or nothing is kept. Calls with the same '
'seed, start_step and total_steps together do what one call would do. Loss and gradient of a step are means over all '
'target tokens of its batches, however the tokens are divided; the gradient of each batch is computed separately and '
'added in their order. A run uses the rows that exist when it begins. '
{{ hyperparameters.docs }}
'55P03: another session trains the model; 55000: a run of it has logged steps whose weights are not stored, to be '
'resumed or given up (llm_train_give_up); 40001: its weights or data were changed meanwhile; 22023: invalid arguments; '
'22003: the loss is not finite; P0002: no data, or a step without any target; 53200, 53100: it does not fit in memory '
'or on disk.';


CREATE FUNCTION public.llm_train_begin(model text, arguments jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    h record;
    first_step bigint;
    start_step bigint;
    total_steps bigint;
    warmup bigint;
    run bigint;
BEGIN
    PERFORM public.llm_require(
        jsonb_typeof(arguments) = 'object',
        format('arguments must be a JSON object of llm_train''s arguments by name, got %s',
            COALESCE(arguments::text, 'NULL'))
    );
    PERFORM public.llm_lock_model(model, 'trained');
    PERFORM public.llm_check_hyperparameters(config, arguments);
    h := public.llm_hyperparameters(arguments);
    first_step := public.llm_model_step(model) + 1;
    start_step := COALESCE(h.start_step, first_step);
    total_steps := COALESCE(h.total_steps, h.n_steps);
    PERFORM public.llm_require(
        start_step BETWEEN 1 AND first_step,
        format('start_step must be between 1 and the next step %s, got %s', first_step, start_step)
    );
    PERFORM public.llm_require(
        first_step - start_step + h.n_steps <= total_steps,
        format('a schedule of %s steps from step %s ends before step %s',
            total_steps, start_step, first_step + h.n_steps - 1),
        'Raise total_steps, or omit start_step to begin the schedule with this call.'
    );
    warmup := COALESCE(h.warmup, CASE WHEN total_steps <= 2000 THEN total_steps / 10 ELSE 2000 END);
    PERFORM public.llm_require(
        warmup >= 0 AND warmup < total_steps,
        format('warmup must be shorter than the run: %s of %s steps', warmup, total_steps)
    );
    PERFORM public.llm_require_room_for(
        model, 'training', CASE WHEN h.grad_accum > 1 THEN 5 ELSE 4 END,
        -- A loop's last write-back alone is without moments.
        CASE WHEN arguments ? 'commit_every' THEN 'keep' ELSE h.optimizer END, h.keep_grad
    );
    IF arguments ->> 'row' IS NULL THEN
        PERFORM public.llm_check_dataset(config, 'train', h.block_size);
    END IF;
    IF public.llm_is_encoder(config) THEN
        PERFORM public.llm_check_contrast(config, h.batch_size, h.block_size, (arguments ->> 'row')::bigint);
    END IF;
    PERFORM public.llm_train_supersede(model, first_step);
    INSERT INTO public.llm_train_run (
        model, hyperparameters, data, seed, first_step, last_step, stored_step, status, started_at, numerics_version,
        precision, library
    )
    VALUES (
        llm_train_begin.model,
        arguments || jsonb_build_object('warmup', warmup, 'start_step', start_step, 'total_steps', total_steps),
        public.llm_train_data(model, (arguments ->> 'row')::bigint),
        h.seed, first_step, first_step - 1, first_step - 1, 'running', clock_timestamp(),
        public.pg_llm_numerics_version(), 'float32', public.pg_llm_library()
    )
    RETURNING run_id INTO run;
    RETURN run;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_begin(text, jsonb) IS
'Checks the arguments of a run (those of llm_train by name; row: the id of the only llm_dataset row to use), '
'determines its schedule and inserts it into llm_train_run. Takes the training lock of the model.';


CREATE FUNCTION public.llm_train_supersede(model text, first_step bigint, run_id bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    other record;
BEGIN
    PERFORM public.llm_require_argument('model', model IS NOT NULL);
    PERFORM public.llm_require_argument('first_step', first_step IS NOT NULL);
    SELECT r.run_id, min(l.step) AS first_step, max(l.step) AS last_step INTO other
    FROM public.llm_train_run r
    INNER JOIN public.llm_train_log l ON l.run_id = r.run_id AND l.step > r.stored_step AND NOT l.superseded
    WHERE r.model = llm_train_supersede.model AND r.stored_step = llm_train_supersede.first_step - 1
        AND r.run_id IS DISTINCT FROM llm_train_supersede.run_id
    GROUP BY r.run_id
    ORDER BY r.run_id DESC LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'steps % to % of run % of model "%" are logged, and their weights are not stored',
            other.first_step, other.last_step, other.run_id, model
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format(
                'CALL llm_train_resume(%s) computes them again and goes on with that run. SELECT llm_train_give_up(%s) '
                'gives them up; training then begins with the stored weights.', other.run_id, other.run_id
            );
    END IF;
    -- Later steps of an earlier history, and runs that ended without saying so, give way.
    UPDATE public.llm_train_log l SET superseded = true
    WHERE l.model = llm_train_supersede.model AND l.step >= llm_train_supersede.first_step AND NOT l.superseded
        AND l.run_id IS DISTINCT FROM llm_train_supersede.run_id;
    UPDATE public.llm_train_run r SET status = 'interrupted', finished_at = clock_timestamp()
    WHERE r.model = llm_train_supersede.model AND r.status = 'running'
        AND r.run_id IS DISTINCT FROM llm_train_supersede.run_id;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_supersede(text, bigint, bigint) IS
'Makes way for a run that is about to make the model''s step first_step: later steps of other runs are marked as '
'superseded, and runs that say that they are going on as interrupted. run_id: the run, if it exists already. The '
'caller has the model''s lock. 55000: another run has logged steps whose weights are not stored, and can go on with '
'them.';


CREATE FUNCTION public.llm_train_give_up(run_id bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    run public.llm_train_run := public.llm_run(llm_train_give_up.run_id);
    given_up bigint;
BEGIN
    PERFORM public.llm_lock_model(run.model);
    -- As it is now that nobody else can go on with it
    run := public.llm_run(run.run_id);
    UPDATE public.llm_train_log l SET superseded = true
    WHERE l.run_id = run.run_id AND l.step > run.stored_step AND NOT l.superseded;
    GET DIAGNOSTICS given_up = ROW_COUNT;
    UPDATE public.llm_train_run r
    SET last_step = COALESCE(r.stored_step, r.last_step),
        status = CASE r.status WHEN 'running' THEN 'interrupted' ELSE r.status END,
        finished_at = COALESCE(r.finished_at, clock_timestamp())
    WHERE r.run_id = run.run_id;
    RETURN given_up;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_give_up(bigint) IS
'Gives up the logged steps of a run whose weights are not stored: they stay in llm_train_log as superseded, and '
'training goes on from the stored weights, by a new run or by llm_train_resume. Returns the number of steps. 42704: '
'unknown run; 55P03: a session trains or changes the model.';


CREATE FUNCTION public.llm_hyperparameters(
    arguments jsonb,
    OUT n_steps bigint,
    {{ hyperparameters.results }}
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
    SELECT a.*
    FROM jsonb_to_record(arguments) a (
        n_steps bigint,
        {{ hyperparameters.columns }}
    );
$function$;

COMMENT ON FUNCTION public.llm_hyperparameters(jsonb) IS
'The arguments of a run (llm_train_run.hyperparameters) as a typed row.';


CREATE FUNCTION public.llm_check_hyperparameters(config public.llm_model_config, arguments jsonb) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require(
        c.holds, format('%s must %s, got %s', c.name, c.rule, COALESCE(arguments ->> c.name, 'NULL'))
    )
    FROM public.llm_hyperparameters(arguments) h
    CROSS JOIN LATERAL (
        VALUES
        ('n_steps', n_steps >= 1, 'be at least 1', n_steps::text),
        {{ hyperparameters.checks }}
    ) c (name, holds, rule, value);
END;
$function$;

COMMENT ON FUNCTION public.llm_check_hyperparameters(public.llm_model_config, jsonb) IS
'Raises 22023, naming argument, rule and value, if a training argument is out of range.';


CREATE FUNCTION public.llm_run(run_id bigint) RETURNS public.llm_train_run
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    run public.llm_train_run;
BEGIN
    SELECT r.* INTO run FROM public.llm_train_run r WHERE r.run_id = llm_run.run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'training run % does not exist', COALESCE(llm_run.run_id::text, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'llm_train_run lists the runs.';
    END IF;
    RETURN run;
END;
$function$;

COMMENT ON FUNCTION public.llm_run(bigint) IS
'The run''s row of llm_train_run. 42704: no such run.';


CREATE FUNCTION public.llm_train_chunk(run_id bigint, n_steps bigint, expected bytea) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    run public.llm_train_run;
    h record;
    fingerprint bytea;
    end_step bigint;
    is_last boolean;
    rows record;
    row_ids bigint[];
    recording boolean := public.pg_llm_recording();
BEGIN
    PERFORM public.llm_require_argument('run_id', llm_train_chunk.run_id IS NOT NULL);
    PERFORM public.llm_require_argument('n_steps', n_steps IS NOT NULL);
    run := public.llm_run(llm_train_chunk.run_id);
    h := public.llm_hyperparameters(run.hyperparameters);
    PERFORM public.llm_lock_model(run.model, 'trained');
    IF expected IS NOT NULL AND public.llm_recognise(run.model, expected) THEN
        expected := public.llm_fingerprint(run.model);
    END IF;
    fingerprint := public.llm_pin(run.model, true);
    -- What is logged beyond the stored weights is computed again.
    end_step := greatest(run.stored_step + n_steps, run.last_step);
    IF fingerprint <> expected OR public.llm_model_step(run.model) <> run.stored_step THEN
        PERFORM public.llm_raise_other_weights(run);
    END IF;
    rows := public.llm_train_rows(run);
    row_ids := rows.row_ids;
    end_step := (public.llm_train_steps(run, row_ids, run.stored_step + 1, end_step)).step;
    is_last := end_step - run.first_step + 1 >= h.n_steps;
    PERFORM public.llm_train_rows_version(run, rows.version);
    fingerprint := public.llm_write_back(
        run.model, fingerprint, end_step, h.keep_grad, h.grad_workers,
        keep_moments => NOT is_last OR h.optimizer IS DISTINCT FROM 'drop'
    );
    PERFORM public.llm_train_clear(run.model, h.prune_workers);
    PERFORM public.pg_llm_arena_close(run.model);
    PERFORM public.pg_llm_set_recording(recording, true);
    UPDATE public.llm_train_run r
    SET last_step = end_step, stored_step = end_step, stored_hash = NULL,
        status = CASE WHEN is_last THEN 'done' ELSE 'running' END,
        finished_at = CASE WHEN is_last THEN clock_timestamp() END
    WHERE r.run_id = llm_train_chunk.run_id;
    IF is_last THEN
        PERFORM public.pg_llm_progress_clear();
    END IF;
    RETURN fingerprint;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_chunk(bigint, bigint, bytea) IS
'The next n_steps of a run and their write-back: all that llm_train does. expected: the fingerprint that the previous '
'chunk returned; 40001 if the weights are a different version.';


CREATE FUNCTION public.llm_raise_other_weights(run public.llm_train_run) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument('run', run.run_id IS NOT NULL);
    RAISE EXCEPTION 'the weights of model "%" are no longer those of run % after step %',
        run.model, run.run_id, run.stored_step
        USING ERRCODE = 'serialization_failure', HINT = format(
            'The run keeps what it committed. CALL llm_train_resume(%s, on_mismatch => ''rewind'') continues from '
            'weights that have taken the same number of steps; or start a new run from the present weights, after '
            'SELECT llm_train_give_up(%s) where this one has logged steps that are not stored.', run.run_id, run.run_id
        );
END;
$function$;

COMMENT ON FUNCTION public.llm_raise_other_weights(public.llm_train_run) IS
'Raises the error for a run whose stored weights were changed by others.';


CREATE FUNCTION public.llm_train_clear(model text, workers int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    threads text := current_setting('pg_llm.threads');
BEGIN
    IF workers > 0 THEN
        PERFORM set_config('pg_llm.threads', workers::text, true);
    END IF;
    PERFORM public.pg_llm_tape_clear();
    PERFORM public.pg_llm_arena_zero_grad(model);
    PERFORM set_config('pg_llm.threads', threads, true);
END;
$function$;

COMMENT ON FUNCTION public.llm_train_clear(text, int) IS
'Frees the tape and the gradients of a training call.';
