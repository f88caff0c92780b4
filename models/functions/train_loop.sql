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
    {{ hyperparameters.parameters }}
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
        {{ hyperparameters.pairs }}
    ));
    COMMIT;
    CALL public.llm_train_resume(run);
END;
$procedure$;

COMMENT ON PROCEDURE public.llm_train_loop(
    text, int, int, int, int, int, int, int,
    {{ hyperparameters.types }}
) IS
'Like llm_train, with bit-identical results, but commits as it goes. The log is committed every commit_every steps '
'(NULL: about once a second), the weights are written back every write_back_every steps (NULL: when that costs at most '
'5% of the time) and at the end. Others see the log at once and the weights as they were last written; after a crash '
'or an error llm_train_resume(run_id) computes the logged steps again and goes on. llm_train_stop(run_id) ends it with '
'its weights stored. llm_train_run has the id of the run. Call it outside a transaction block (2D000 otherwise). '
'40001: the weights, or the dataset rows that existed when the run began, were changed; rows added later do not join '
'the run. Weights that only moved (VACUUM FULL, CLUSTER) count as unchanged.';


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
    write_back_every int DEFAULT NULL
)
LANGUAGE plpgsql
AS $procedure$
DECLARE
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
    PERFORM public.llm_train_take_up(run_id, commit_every, write_back_every);
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

COMMENT ON PROCEDURE public.llm_train_resume(bigint, int, int) IS
'Continues an interrupted run of llm_train_loop to its planned end, with the same batches, schedule and dropout, so '
'the result is bit-identical to an uninterrupted run. Steps that are logged and whose weights are not stored are '
'computed again: their batches, losses and gradient norms must be those of the log to the bit. commit_every, '
'write_back_every: as for llm_train_loop; NULL: as the run began. 40001, naming step and rows: weights, data or log '
'have changed since; 22023: the run is complete. An error marks the run as failed in llm_train_run; it can be resumed '
'again. Call it outside a transaction block.';


CREATE FUNCTION public.llm_train_take_up(run_id bigint, commit_every int, write_back_every int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    run public.llm_train_run;
    h record;
BEGIN
    SELECT r.* INTO run FROM public.llm_train_run r WHERE r.run_id = llm_train_take_up.run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'training run % does not exist', COALESCE(llm_train_take_up.run_id::text, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'llm_train_run lists the runs.';
    END IF;
    h := public.llm_hyperparameters(run.hyperparameters);
    PERFORM public.llm_check_intervals(commit_every, write_back_every);
    PERFORM public.llm_require(
        run.stored_step < run.first_step + h.n_steps - 1,
        format('training run %s is complete: it ended with step %s', run.run_id, run.stored_step)
    );
    PERFORM public.llm_lock_model(run.model, 'trained');
    IF public.llm_model_step(run.model) <> run.stored_step THEN
        PERFORM public.llm_raise_other_weights(run);
    END IF;
    PERFORM public.llm_train_logged(run.run_id, s.step)
    FROM generate_series(run.stored_step + 1, run.last_step) s (step);
    PERFORM public.pg_llm_hold_lock('public.llm_model_config', run.model);
    PERFORM public.pg_llm_hold_lock('public.llm_train_run', run.model);
    IF run.last_step > run.stored_step THEN
        RAISE NOTICE 'steps % to % of run % are logged and not stored: they are computed again',
            run.stored_step + 1, run.last_step, run.run_id;
    END IF;
    UPDATE public.llm_train_run r SET status = 'running', finished_at = NULL
    WHERE r.run_id = run.run_id AND (r.status <> 'running' OR r.finished_at IS NOT NULL);
END;
$function$;

COMMENT ON FUNCTION public.llm_train_take_up(bigint, int, int) IS
'Begins llm_train_resume: checks that the run can go on, and takes the model''s lock for the length of the statement. '
'42704: unknown run; 22023: it is complete; 55P03: another session changes the model.';


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
    recording boolean := public.pg_llm_recording();
BEGIN
    SELECT r.* INTO run FROM public.llm_train_run r WHERE r.run_id = run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'training run % does not exist', COALESCE(run_id::text, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'llm_train_run lists the runs.';
    END IF;
    h := public.llm_hyperparameters(run.hyperparameters);
    final_step := run.first_step + h.n_steps - 1;
    commit_every := COALESCE(commit_every, (run.hyperparameters ->> 'commit_every')::int);
    write_back_every := COALESCE(write_back_every, (run.hyperparameters ->> 'write_back_every')::int);
    PERFORM public.llm_lock_model(run.model, 'trained');
    IF write_began IS NOT NULL THEN
        written_at := clock_timestamp();
        write_seconds := EXTRACT(epoch FROM written_at - write_began);
        write_began := NULL;
    END IF;
    IF row_ids IS NULL THEN
        SELECT d.* INTO row_ids, row_versions FROM public.llm_train_rows(run) d;
    END IF;
    -- Memory is ahead of the table by the steps since the last write-back.
    fingerprint := public.llm_fingerprint(run.model);
    step := COALESCE(step, run.last_step);
    IF public.pg_llm_arena_open_run(run.model, fingerprint, run_id, step) IS NOT TRUE THEN
        SELECT l.* INTO fingerprint, hash FROM public.llm_train_load(run) l;
        run.stored_hash := hash;
        step := run.stored_step;
    END IF;
    written_at := COALESCE(written_at, clock_timestamp());
    write_seconds := COALESCE(write_seconds, public.llm_write_seconds(run.model));
    target := least(final_step, step + commit_every, run.stored_step + write_back_every);
    IF step < target THEN
        step := (
            public.llm_train_steps(run, row_ids, step + 1, target, CASE WHEN commit_every IS NULL THEN 1.0 END)
        ).step;
    END IF;
    ended := step >= final_step;
    IF ended OR step - run.stored_step >= write_back_every OR (
        write_back_every IS NULL AND clock_timestamp() - written_at >= make_interval(secs => 20 * write_seconds)
    ) THEN
        write_began := clock_timestamp();
        BEGIN
            row_versions := public.llm_train_rows_version(run, row_versions);
            fingerprint := public.llm_write_back(
                run.model, fingerprint, step, h.keep_grad, h.grad_workers,
                keep_moments => NOT ended OR h.optimizer IS DISTINCT FROM 'drop'
            );
            run.stored_step := step;
            -- NULL where a trigger may have stored something else
            run.stored_hash := public.pg_llm_arena_hash(run.model);
        EXCEPTION
            WHEN OTHERS THEN
                -- The steps stand, in the log and in memory.
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, problem = MESSAGE_TEXT,
                    details = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT;
                ended := false;
        END;
    END IF;
    PERFORM public.llm_train_clear(run.model, h.prune_workers);
    PERFORM public.pg_llm_arena_keep(run.model, run_id, step);
    PERFORM public.pg_llm_arena_close(run.model);
    PERFORM public.pg_llm_set_recording(recording, true);
    UPDATE public.llm_train_run r
    SET last_step = greatest(r.last_step, step),
        stored_step = run.stored_step,
        stored_hash = run.stored_hash,
        status = CASE WHEN ended THEN 'done' ELSE 'running' END,
        finished_at = CASE WHEN ended THEN clock_timestamp() END
    WHERE r.run_id = run_id;
    IF ended THEN
        PERFORM public.pg_llm_progress_clear();
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
        SELECT sum(3 * pg_column_size(p.data)) / 250e6 FROM public.llm_param p WHERE p.model = llm_write_seconds.model
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_write_seconds(text) IS
'A guess at how long a write-back of the model takes, for want of one that was measured.';
