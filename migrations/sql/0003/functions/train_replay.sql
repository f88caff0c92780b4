-- Steps of a run computed again as an audit: nothing is written.

CREATE FUNCTION public.llm_replay(
    run_id bigint,
    first bigint DEFAULT NULL,
    last bigint DEFAULT NULL,
    OUT step bigint,
    OUT loss double precision,
    OUT replayed_loss double precision,
    OUT same boolean
)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    run public.llm_train_run;
    part record;
    rows record;
    row_ids bigint[];
    logged public.llm_train_log;
    again record;
    base record;
    recording boolean := public.pg_llm_recording();
BEGIN
    run := public.llm_run(run_id);
    first := COALESCE(first, run.first_step);
    last := COALESCE(last, run.last_step);
    PERFORM public.llm_require(
        first BETWEEN run.first_step AND run.last_step AND last BETWEEN first AND run.last_step,
        format('run %s logged steps %s to %s, not %s to %s', run_id, run.first_step, run.last_step, first, last)
    );
    base := public.llm_replay_base(run, first);
    PERFORM public.llm_replay_load(run.model, base.checkpoint, base.seed);
    FOR part IN
        SELECT l.run_id AS part_run, min(l.step) AS first_step, max(l.step) AS last_step
        FROM public.llm_replay_steps(run, base.step + 1, last) l
        GROUP BY l.run_id ORDER BY min(l.step)
    LOOP
        SELECT r.* INTO run FROM public.llm_train_run r WHERE r.run_id = part.part_run;
        rows := public.llm_train_rows(run);
        row_ids := rows.row_ids;
        FOR replayed IN part.first_step .. part.last_step LOOP
            again := public.llm_train_steps(run, row_ids, replayed, replayed, NULL, true);
            CONTINUE WHEN replayed < first;
            SELECT l.* INTO logged FROM public.llm_replay_steps(run, replayed, replayed) l;
            step := replayed;
            loss := logged.loss;
            replayed_loss := again.loss;
            same := (logged.loss, logged.grad_norm) IS NOT DISTINCT FROM (again.loss, again.grad_norm)
                AND COALESCE(logged.batch_hash = again.batch_hash, true);
            RETURN NEXT;
        END LOOP;
    END LOOP;
    PERFORM public.pg_llm_tape_clear();
    PERFORM public.pg_llm_arena_discard(run.model);
    PERFORM public.pg_llm_arena_close(run.model);
    PERFORM public.pg_llm_set_recording(recording, true);
END;
$function$;

COMMENT ON FUNCTION public.llm_replay(bigint, bigint, bigint) IS
'Computes steps first to last of a run again (NULL: from its first, to its last logged one) and compares them with '
'llm_train_log: the logged loss, the one that came out, and whether loss, gradient norm and batch are the same to the '
'bit. It begins with the newest checkpoint below first that has the optimizer state, else with the initialisation by '
'its seed, and computes the steps up to first without returning them. Writes nothing, so that it runs on replicas, '
'too. Requires llm_trainer. P0002: neither is there; the message names the earliest step that can be replayed; 40001, '
'naming them: rows of llm_dataset have changed since; 42704: unknown run; 22023: steps that the run did not log.';


CREATE FUNCTION public.llm_replay_steps(run public.llm_train_run, first bigint, last bigint)
RETURNS SETOF public.llm_train_log
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- Of the run itself, what it logged last; before it, the history that it went on from.
    RETURN QUERY
    SELECT DISTINCT ON (l.step) l.*
    FROM public.llm_train_log l
    WHERE l.model = run.model AND l.step BETWEEN first AND last
        AND CASE
            WHEN l.step >= run.first_step THEN l.run_id = run.run_id
            ELSE NOT l.superseded AND l.run_id < run.run_id
        END
    ORDER BY l.step, l.superseded, l.tape_id DESC;
END;
$function$;

COMMENT ON FUNCTION public.llm_replay_steps(public.llm_train_run, bigint, bigint) IS
'The rows of llm_train_log that led to a run''s steps, its own and those of the runs before it.';


CREATE FUNCTION public.llm_replay_bases(
    run public.llm_train_run, OUT step bigint, OUT checkpoint bigint, OUT seed bigint
)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN QUERY
    SELECT b.step, b.checkpoint, b.seed
    FROM (
        SELECT c.step, c.id AS checkpoint, NULL::bigint AS seed
        FROM public.llm_checkpoint c
        WHERE c.model = run.model AND c.step < run.last_step AND public.llm_replay_usable(run, c)
        UNION ALL
        SELECT 0, NULL, m.init_seed FROM public.llm_model_config m
        WHERE m.model = run.model AND m.init_seed IS NOT NULL
    ) b
    -- All steps from there to the run's own must be known.
    WHERE b.step >= run.first_step - 1 OR run.first_step - 1 - b.step = (
        SELECT count(*) FROM public.llm_replay_steps(run, b.step + 1, run.first_step - 1) l
    )
    ORDER BY b.step;
END;
$function$;

COMMENT ON FUNCTION public.llm_replay_bases(public.llm_train_run) IS
'What steps of the run can be computed from: checkpoints with optimizer state, and the initialisation by its seed, '
'with the step that each is of.';


CREATE FUNCTION public.llm_replay_usable(run public.llm_train_run, checkpoint public.llm_checkpoint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- Saved after that step of this history was made, and with what AdamW needs to go on.
    RETURN checkpoint.format = 'checkpoint 1'
        AND (checkpoint.step = 0 OR EXISTS (
            SELECT FROM public.llm_replay_steps(run, checkpoint.step, checkpoint.step) l
            WHERE l.logged_at <= checkpoint.created_at
        ))
        AND (checkpoint.step = 0 OR EXISTS (
            SELECT FROM public.pg_llm_checkpoint_tensors(checkpoint.id) t WHERE starts_with(t.name, 'optimizer.m.')
        ));
EXCEPTION
    -- A file that is gone, on another server or damaged is no base.
    WHEN undefined_file OR data_exception OR data_corrupted OR io_error THEN
        RETURN false;
END;
$function$;

COMMENT ON FUNCTION public.llm_replay_usable(public.llm_train_run, public.llm_checkpoint) IS
'Whether the checkpoint is one of this run''s history, and its file is here and has the optimizer state.';


CREATE FUNCTION public.llm_replay_base(
    run public.llm_train_run, first bigint, OUT step bigint, OUT checkpoint bigint, OUT seed bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    earliest bigint;
BEGIN
    SELECT b.* INTO step, checkpoint, seed
    FROM public.llm_replay_bases(run) b WHERE b.step < first ORDER BY b.step DESC LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    earliest := (SELECT min(b.step) + 1 FROM public.llm_replay_bases(run) b WHERE b.step < run.last_step);
    RAISE EXCEPTION 'step % of run % cannot be replayed: there is nothing to begin from', first, run.run_id
        USING ERRCODE = 'no_data_found', DETAIL = CASE
            WHEN earliest IS NULL THEN
                'None of its steps can: no checkpoint is of its history, and its weights did not begin with a seed.'
            ELSE format('The earliest step that can be replayed is %s.', greatest(earliest, run.first_step)) END,
        HINT = 'llm_checkpoint_save, before and during a run, makes such beginnings.';
END;
$function$;

COMMENT ON FUNCTION public.llm_replay_base(public.llm_train_run, bigint) IS
'The newest of llm_replay_bases below the step first. P0002, naming the earliest step that can be replayed: there is '
'none.';


CREATE FUNCTION public.llm_replay_load(model text, checkpoint bigint, seed bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    stored text[];
    parameter record;
BEGIN
    PERFORM public.llm_require_argument('model', model IS NOT NULL);
    PERFORM public.llm_require(
        (checkpoint IS NULL) <> (seed IS NULL), 'a replay begins with either a checkpoint or a seed, not both'
    );
    PERFORM public.llm_require_memory(
        format('replaying a run of model "%s"', model),
        (SELECT sum(public.llm_count(e.shape)) FROM public.llm_parameters(model) e), 4
    );
    PERFORM public.pg_llm_set_recording(false, true);
    IF checkpoint IS NOT NULL THEN
        PERFORM public.llm_checkpoint_verify(model, checkpoint);
        PERFORM public.llm_checkpoint_check(model, checkpoint);
        stored := ARRAY(SELECT t.name FROM public.pg_llm_checkpoint_tensors(checkpoint) t);
    END IF;
    -- A version that no row has: nobody else finds it.
    PERFORM public.pg_llm_arena_open(model, decode(replace(gen_random_uuid()::text, '-', ''), 'hex'), true);
    FOR parameter IN
        SELECT e.name, s.first_row, s.n_rows, e.shape, e.init, e.std
        FROM public.llm_parameters(model) e CROSS JOIN LATERAL public.llm_parts(e.shape) s
    LOOP
        IF checkpoint IS NULL THEN
            parameter.shape[1] := parameter.n_rows;
            PERFORM public.pg_llm_arena_put(
                model, parameter.name, parameter.first_row,
                public.llm_initial_tensor(
                    parameter.shape, parameter.init, parameter.std, seed, parameter.name, parameter.first_row
                ), NULL, NULL
            );
        ELSE
            PERFORM public.pg_llm_arena_put(
                model, parameter.name, parameter.first_row,
                public.pg_llm_checkpoint_tensor(checkpoint, parameter.name, parameter.first_row, parameter.n_rows),
                CASE WHEN 'optimizer.m.' || parameter.name = ANY (stored) THEN public.pg_llm_checkpoint_tensor(
                    checkpoint, 'optimizer.m.' || parameter.name, parameter.first_row, parameter.n_rows) END,
                CASE WHEN 'optimizer.v.' || parameter.name = ANY (stored) THEN public.pg_llm_checkpoint_tensor(
                    checkpoint, 'optimizer.v.' || parameter.name, parameter.first_row, parameter.n_rows) END
            );
        END IF;
    END LOOP;
    PERFORM public.pg_llm_arena_seal(model);
    PERFORM public.llm_pin_base(model);
END;
$function$;

COMMENT ON FUNCTION public.llm_replay_load(text, bigint, bigint) IS
'Pins for training, as a version of its own, the weights of a checkpoint or those that llm_init_model gives with the '
'seed.';
