-- Training that commits as it goes: its log often, its weights seldom; and taking up an interrupted run.

CREATE PROCEDURE public.llm_train_loop(
    model text,
    n_steps int,
    commit_every int DEFAULT NULL,
    write_back_every int DEFAULT NULL,
    n_layer int DEFAULT NULL,
    n_head int DEFAULT NULL,
    d int DEFAULT NULL,
    vocab int DEFAULT NULL,
    dropout_p double precision DEFAULT 0.1,
    beta1 double precision DEFAULT 0.9,
    beta2 double precision DEFAULT 0.999,
    eps double precision DEFAULT 1e-8,
    wd double precision DEFAULT 0.01,
    lr_max double precision DEFAULT 2.5e-4,
    warmup int DEFAULT NULL,
    grad_clip double precision DEFAULT NULL,
    grad_workers int DEFAULT 1,
    prune_workers int DEFAULT 1,
    batch_size int DEFAULT 1,
    grad_accum int DEFAULT 1,
    block_size int DEFAULT NULL,
    schedule text DEFAULT 'cosine',
    min_lr double precision DEFAULT 0,
    decay text DEFAULT 'all',
    seed bigint DEFAULT 0,
    data_order text DEFAULT 'shuffled',
    start_step bigint DEFAULT NULL,
    total_steps bigint DEFAULT NULL,
    log_every int DEFAULT 1,
    keep_grad boolean DEFAULT false,
    optimizer text DEFAULT 'keep'
)
LANGUAGE plpgsql
AS $procedure$
DECLARE
    run bigint;
BEGIN
    -- 2D000 before any work is done. What commits cannot set search_path.
    PERFORM public.pg_llm_require_autocommit('llm_train_loop');
    COMMIT;
    PERFORM public.llm_check_intervals(commit_every, write_back_every);
    PERFORM public.llm_check_config(model, n_layer, n_head, d, vocab);
    -- Until the next commit: numbers go into jsonb as their shortest exact text.
    PERFORM pg_catalog.set_config('extra_float_digits', '1', true);
    run := public.llm_train_begin(model, pg_catalog.jsonb_build_object(
        'n_steps', n_steps, 'commit_every', commit_every, 'write_back_every', write_back_every,
        'dropout_p', dropout_p, 'beta1', beta1, 'beta2', beta2, 'eps', eps, 'wd', wd, 'lr_max', lr_max,
        'warmup', warmup, 'grad_clip', grad_clip, 'grad_workers', grad_workers, 'prune_workers', prune_workers,
        'batch_size', batch_size, 'grad_accum', grad_accum, 'block_size', block_size, 'schedule', schedule,
        'min_lr', min_lr, 'decay', decay, 'seed', seed, 'data_order', data_order, 'start_step', start_step,
        'total_steps', total_steps, 'log_every', log_every, 'keep_grad', keep_grad, 'optimizer', optimizer
    ));
    COMMIT;
    CALL public.llm_train_resume(run);
END;
$procedure$;

COMMENT ON PROCEDURE public.llm_train_loop(
    text, int, int, int, int, int, int, int,
    double precision, double precision, double precision, double precision, double precision, double precision, int,
    double precision, int, int, int, int, int, text, double precision, text, bigint, text, bigint, bigint, int,
    boolean, text
) IS
'Like llm_train, with bit-identical results, but commits as it goes. The log is committed every commit_every steps '
'(NULL: about once a second), the weights are written back every write_back_every steps (NULL: when that costs at most '
'5% of the time) and at the end. Others see the log at once and the weights as they were last written; after a crash '
'or an error llm_train_resume(run_id) computes the logged steps again and goes on. llm_train_stop(run_id) ends it with '
'its weights stored. llm_train_run has the id of the run. Call it outside a transaction block (2D000 otherwise). '
'55000: an earlier run has logged steps whose weights are not stored: llm_train_resume continues it, llm_train_give_up '
'gives them up. 40001: the weights, or the dataset rows that existed when the run began, were changed; rows added '
'later do not join the run. Weights that only moved (VACUUM FULL, CLUSTER) count as unchanged.';


CREATE FUNCTION public.llm_check_intervals(commit_every int, write_back_every int) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require(
        COALESCE(commit_every >= 1, true), format('commit_every must be at least 1, got %s', commit_every)
    );
    PERFORM public.llm_require(
        COALESCE(write_back_every >= 1, true), format('write_back_every must be at least 1, got %s', write_back_every)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_check_intervals(int, int) IS
'22023: a number of steps between commits or write-backs that is below 1. NULL is allowed.';


CREATE PROCEDURE public.llm_train_resume(
    run_id bigint,
    commit_every int DEFAULT NULL,
    write_back_every int DEFAULT NULL,
    on_mismatch text DEFAULT 'error'
)
LANGUAGE plpgsql
AS $procedure$
DECLARE
    rewound pg_catalog.bool := false;
    fingerprint pg_catalog.bytea;
    row_ids pg_catalog.int8[];
    row_versions pg_catalog.bytea;
    step pg_catalog.int8;
    written_at pg_catalog.timestamptz;
    write_seconds pg_catalog.float8;
    write_began pg_catalog.timestamptz;
    ended pg_catalog.bool;
    code pg_catalog.text;
    problem pg_catalog.text;
    details pg_catalog.text;
    advice pg_catalog.text;
BEGIN
    PERFORM public.pg_llm_require_autocommit('llm_train_resume');
    COMMIT;
    PERFORM public.llm_train_take_up(run_id, commit_every, write_back_every, on_mismatch);
    COMMIT;
    LOOP
        BEGIN
            SELECT a.* INTO fingerprint, row_ids, row_versions, step, written_at, write_seconds, write_began, ended,
                code, problem, details, advice
            FROM public.llm_train_advance(
                run_id, commit_every, write_back_every,
                fingerprint, row_ids, row_versions, step, written_at, write_seconds, write_began
            ) a;
        EXCEPTION
            -- Another session trains the model, this run perhaps: it is not this call's to say how that ends.
            WHEN lock_not_available THEN
                RAISE;
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, problem = MESSAGE_TEXT,
                    details = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT;
        END;
        IF code OPERATOR(pg_catalog.=) '40001' AND on_mismatch OPERATOR(pg_catalog.=) 'rewind' AND NOT rewound THEN
            rewound := public.llm_train_rewind(run_id, step, problem);
            IF rewound THEN
                fingerprint := NULL;
                row_ids := NULL;
                step := NULL;
                code := NULL;
                COMMIT;
                CONTINUE;
            END IF;
        END IF;
        IF code IS NOT NULL THEN
            UPDATE public.llm_train_run r SET status = 'failed', finished_at = pg_catalog.clock_timestamp()
            WHERE r.run_id OPERATOR(pg_catalog.=) llm_train_resume.run_id;
            COMMIT;
            PERFORM public.llm_raise(code, problem, details, advice);
        END IF;
        -- What a crash takes of the log alone is computed again.
        IF write_began IS NULL THEN
            PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
        END IF;
        COMMIT;
        EXIT WHEN ended;
    END LOOP;
    PERFORM public.pg_llm_drop_locks();
END;
$procedure$;

COMMENT ON PROCEDURE public.llm_train_resume(bigint, int, int, text) IS
'Continues an interrupted run of llm_train_loop to its planned end, with the same batches, schedule and dropout, so '
'the result is bit-identical to an uninterrupted run. Steps that are logged and whose weights are not stored are '
'computed again: their batches, losses and gradient norms must be those of the log to the bit. commit_every, '
'write_back_every: as for llm_train_loop; NULL: as the run began. on_mismatch: error, or rewind: give up the logged '
'steps that are not stored (they are superseded) and go on from the stored weights, with the data and the library as '
'they are now. 40001, naming step and rows: weights, data or log have changed since; 55000: another library whose '
'self-test fails, other numerical rules, or steps of another run that are logged and not stored; 22023: the run is '
'complete. An error marks the run as failed in llm_train_run; it can be resumed again. Call it outside a transaction '
'block.';


CREATE FUNCTION public.llm_train_take_up(
    run_id bigint, commit_every int, write_back_every int, on_mismatch text DEFAULT 'error'
) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    run public.llm_train_run;
    h record;
    other text;
    gone bigint;
BEGIN
    run := public.llm_run(llm_train_take_up.run_id);
    h := public.llm_hyperparameters(run.hyperparameters);
    PERFORM public.llm_check_intervals(commit_every, write_back_every);
    PERFORM public.llm_require(
        COALESCE(on_mismatch IN ('error', 'rewind'), false),
        format('on_mismatch must be error or rewind, got %s', COALESCE(on_mismatch, 'NULL'))
    );
    PERFORM public.llm_require(
        run.stored_step < run.first_step + h.n_steps - 1,
        format('training run %s is complete: it ended with step %s', run.run_id, run.stored_step)
    );
    PERFORM public.llm_lock_model(run.model, 'trained');
    IF public.llm_model_step(run.model) <> run.stored_step THEN
        PERFORM public.llm_raise_other_weights(run);
    END IF;
    PERFORM public.llm_train_supersede(run.model, run.stored_step + 1, run.run_id);
    other := public.llm_train_other_library(run);
    gone := (
        SELECT min(s.step) FROM generate_series(run.stored_step + 1, run.last_step) s (step)
        WHERE NOT EXISTS (
            SELECT FROM public.llm_train_log l WHERE l.run_id = run.run_id AND l.step = s.step AND NOT l.superseded
        )
    );
    IF on_mismatch = 'rewind' AND (other IS NOT NULL OR gone IS NOT NULL) THEN
        PERFORM public.llm_train_rewind(run.run_id, NULL, COALESCE(other, format('the log of step %s is gone', gone)));
    ELSIF other IS NOT NULL THEN
        RAISE EXCEPTION 'run % cannot go on to the same bits here: %', run.run_id, other
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format(
                'Resume it with the library that it ran with, or CALL llm_train_resume(%s, on_mismatch => ''rewind'') '
                'to go on from its stored weights with this one.', run.run_id
            );
    ELSIF gone IS NOT NULL THEN
        PERFORM public.llm_train_logged(run.run_id, gone);
    ELSIF run.last_step > run.stored_step THEN
        RAISE NOTICE 'steps % to % of run % are logged and not stored: they are computed again',
            run.stored_step + 1, run.last_step, run.run_id;
    END IF;
    PERFORM public.pg_llm_hold_lock('public.llm_model_config', run.model);
    PERFORM public.pg_llm_hold_lock('public.llm_train_run', run.model);
    -- From here on llm_train_stop finds it.
    PERFORM public.pg_llm_progress(
        run.model, run.run_id, run.stored_step, run.first_step + h.n_steps - 1, NULL, NULL, 0
    );
    UPDATE public.llm_train_run r SET status = 'running', finished_at = NULL, library = public.pg_llm_library()
    WHERE r.run_id = run.run_id;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_take_up(bigint, int, int, text) IS
'Begins llm_train_resume: checks that the run can go on, and takes the model''s lock for the length of the statement. '
'42704: unknown run; 22023: it is complete; 55P03: another session changes the model; 40001 and 55000: as for '
'llm_train_resume.';


CREATE FUNCTION public.llm_train_other_library(run public.llm_train_run) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN CASE
        WHEN run.numerics_version <> public.pg_llm_numerics_version() THEN
            format('it followed version %s of the numerical rules, and this library follows version %s',
                run.numerics_version, public.pg_llm_numerics_version())
        WHEN run.precision <> 'float32' THEN
            format('it computed with %s numbers, and this library trains with float32', run.precision)
        WHEN run.library <> public.pg_llm_library() AND NOT public.pg_llm_self_test() THEN
            format('it ran with %s, and the self-test of %s fails', run.library, public.pg_llm_library())
    END;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_other_library(public.llm_train_run) IS
'Why what computes here cannot repeat the run''s bits, or NULL. Another build of the same rules must pass its '
'self-test.';


CREATE FUNCTION public.llm_train_rewind(run_id bigint, step bigint, problem text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    run public.llm_train_run;
BEGIN
    PERFORM public.llm_require_argument('run_id', llm_train_rewind.run_id IS NOT NULL);
    SELECT r.* INTO run FROM public.llm_train_run r WHERE r.run_id = llm_train_rewind.run_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Only what happens while logged steps are computed again is a mismatch with them.
    IF llm_train_rewind.step >= run.last_step THEN
        RETURN false;
    END IF;
    PERFORM public.llm_lock_model(run.model, 'trained');
    IF public.llm_model_step(run.model) IS DISTINCT FROM run.stored_step THEN
        RETURN false;
    END IF;
    RAISE NOTICE 'run % goes on from step %, and its later steps are superseded: %',
        run.run_id, run.stored_step, problem;
    UPDATE public.llm_train_log l SET superseded = true
    WHERE l.run_id = run.run_id AND l.step > run.stored_step AND NOT l.superseded;
    UPDATE public.llm_train_run r
    SET last_step = run.stored_step,
        stored_hash = NULL,
        data = public.llm_train_data(run.model, (run.hyperparameters ->> 'row')::bigint),
        numerics_version = public.pg_llm_numerics_version(),
        precision = 'float32'
    WHERE r.run_id = run.run_id;
    RETURN true;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_rewind(bigint, bigint, text) IS
'Supersedes the steps that a run has logged beyond its stored weights, so that it goes on from those, with the data as '
'it is now. step: the last one that was computed again; false, and nothing is done, if that was all of them or the '
'weights are not of the run''s step.';


CREATE FUNCTION public.llm_train_stop(run_id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    run public.llm_train_run;
BEGIN
    SELECT r.* INTO run FROM public.llm_train_run r WHERE r.run_id = llm_train_stop.run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'training run % does not exist', COALESCE(llm_train_stop.run_id::text, 'NULL')
            USING ERRCODE = 'undefined_object',
            HINT = 'llm_train_run lists the runs. One of llm_train is a single transaction: pg_cancel_backend ends it.';
    END IF;
    IF public.pg_llm_stop_training(run.run_id) THEN
        RETURN true;
    END IF;
    RAISE NOTICE 'run % does not run: its status is %, with step % stored', run.run_id, run.status, run.stored_step;
    RETURN false;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_stop(bigint) IS
'Asks the session that runs llm_train_loop or llm_train_resume for this run to write its weights back and end after '
'the present step, with status stopped; llm_train_resume can continue it. Returns at once: true, or false with a '
'NOTICE where no session runs it. 42704: unknown run; 42501: the caller neither has the rights of the role that trains '
'nor may update llm_train_run.';


CREATE FUNCTION public.llm_train_advance(
    run_id bigint,
    commit_every int,
    write_back_every int,
    INOUT fingerprint bytea,
    INOUT row_ids bigint[],
    INOUT row_versions bytea,
    INOUT step bigint,
    INOUT written_at timestamptz,
    INOUT write_seconds double precision,
    INOUT write_began timestamptz,
    OUT ended boolean,
    OUT code text,
    OUT problem text,
    OUT details text,
    OUT advice text
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    run public.llm_train_run;
    h record;
    final_step bigint;
    target bigint;
    hash bigint;
    stopped boolean;
    dropped boolean;
    recording boolean := public.pg_llm_recording();
BEGIN
    run := public.llm_run(run_id);
    h := public.llm_hyperparameters(run.hyperparameters);
    final_step := run.first_step + h.n_steps - 1;
    commit_every := COALESCE(commit_every, (run.hyperparameters ->> 'commit_every')::int);
    write_back_every := COALESCE(write_back_every, (run.hyperparameters ->> 'write_back_every')::int);
    PERFORM public.llm_lock_model(run.model, 'trained');
    IF write_began IS NOT NULL THEN
        written_at := clock_timestamp();
        write_seconds := EXTRACT(epoch FROM written_at - write_began);
        write_began := NULL;
        -- Vacuum would otherwise hear of the old versions when the CALL ends.
        PERFORM public.pg_llm_report_dead('public.llm_param'::regclass);
    END IF;
    IF row_ids IS NULL THEN
        SELECT d.* INTO row_ids, row_versions FROM public.llm_train_rows(run) d;
    END IF;
    -- Memory is ahead of the table by the steps since the last write-back.
    fingerprint := public.llm_fingerprint(run.model);
    step := COALESCE(step, run.last_step);
    IF public.pg_llm_arena_open_run(
        run.model, fingerprint, run_id, public.llm_train_log_id(run_id, step)
    ) IS NOT TRUE THEN
        SELECT l.* INTO fingerprint, hash FROM public.llm_train_load(run) l;
        run.stored_hash := hash;
        step := run.stored_step;
    ELSE
        PERFORM public.llm_pin_base(run.model);
    END IF;
    written_at := COALESCE(written_at, clock_timestamp());
    write_seconds := COALESCE(write_seconds, public.llm_write_seconds(run.model));
    target := least(final_step, step + commit_every, run.stored_step + write_back_every);
    IF step < target THEN
        step := (
            public.llm_train_steps(run, row_ids, step + 1, target, CASE WHEN commit_every IS NULL THEN 1.0 END)
        ).step;
    END IF;
    stopped := step < final_step AND public.pg_llm_stop_wanted(run_id);
    ended := stopped OR step >= final_step;
    -- A stopped run goes on with its moments some day.
    dropped := step >= final_step AND h.optimizer IS NOT DISTINCT FROM 'drop';
    IF ended OR step - run.stored_step >= write_back_every OR (
        write_back_every IS NULL AND clock_timestamp() - written_at >= make_interval(secs => 20 * write_seconds)
    ) THEN
        write_began := clock_timestamp();
        BEGIN
            row_versions := public.llm_train_rows_version(run, row_versions);
            fingerprint := public.llm_write_back(
                run.model, fingerprint, step, h.keep_grad, h.grad_workers,
                keep_moments => NOT dropped
            );
            run.stored_step := step;
            -- NULL where a trigger may have stored something else, and where memory is no longer one to train
            run.stored_hash := CASE WHEN NOT dropped THEN public.pg_llm_arena_hash(run.model) END;
        EXCEPTION
            WHEN OTHERS THEN
                -- The steps stand, in the log and in memory.
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, problem = MESSAGE_TEXT,
                    details = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT;
                ended := false;
                dropped := false;
        END;
    END IF;
    PERFORM public.llm_train_clear(run.model, h.prune_workers);
    IF NOT dropped THEN
        PERFORM public.pg_llm_arena_keep(run.model, run_id, public.llm_train_log_id(run_id, step));
    END IF;
    PERFORM public.pg_llm_arena_close(run.model);
    PERFORM public.pg_llm_set_recording(recording, true);
    UPDATE public.llm_train_run r
    SET last_step = greatest(r.last_step, step),
        stored_step = run.stored_step,
        stored_hash = run.stored_hash,
        status = CASE WHEN NOT ended THEN 'running' WHEN stopped THEN 'stopped' ELSE 'done' END,
        finished_at = CASE WHEN ended THEN clock_timestamp() END
    WHERE r.run_id = run_id;
    IF ended THEN
        PERFORM public.pg_llm_progress_clear();
        IF stopped THEN
            RAISE NOTICE 'run % is stopped, with the weights of step % stored', run_id, step
                USING HINT = format('CALL llm_train_resume(%s) continues it.', run_id);
        END IF;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_advance(
    bigint, int, int, bytea, bigint[], bytea, bigint, timestamptz, double precision, timestamptz
) IS
'What llm_train_resume does between two commits: steps until the next commit is due, and a write-back when that is '
'due. The other arguments are what the call before returned, NULL at first: the version of the stored weights, the '
'rows of the data and their version, the step that memory has, when the last write-back ended, how long it took, when '
'the present one began (NULL: none). code and so on: the error of a write-back that failed; its steps are logged.';


CREATE FUNCTION public.llm_train_log_id(run_id bigint, step bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN (
        SELECT l.tape_id FROM public.llm_train_log l
        WHERE l.run_id = llm_train_log_id.run_id AND l.step = llm_train_log_id.step AND NOT l.superseded
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_train_log_id(bigint, bigint) IS
'The tape_id under which a step of the run is logged; NULL: it is not, or no longer. Tells a step from that of the '
'same number in a history that was given up.';


CREATE FUNCTION public.llm_train_load(run public.llm_train_run, OUT fingerprint bytea, OUT hash bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    fingerprint := public.llm_pin(run.model, true);
    hash := public.pg_llm_arena_hash(run.model);
    IF public.llm_model_step(run.model) <> run.stored_step OR hash <> run.stored_hash THEN
        PERFORM public.llm_raise_other_weights(run);
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_load(public.llm_train_run) IS
'Pins the stored weights that the run goes on from, and returns their fingerprint and hash. 40001: they are not those '
'that it stored.';


CREATE FUNCTION public.llm_write_seconds(model text) RETURNS double precision
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- data, m and v, at 250 MB a second
    RETURN (
        SELECT sum(3 * 4 * public.llm_elements(public.shape(p.data))) / 250e6
        FROM public.llm_param p
        WHERE p.model = llm_write_seconds.model
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_write_seconds(text) IS
'A guess at how long a write-back of the model takes, for want of one that was measured.';
