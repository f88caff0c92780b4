-- Training that commits as it goes, and taking up an interrupted run.

CREATE PROCEDURE public.llm_train_loop(
    model text,
    n_steps int,
    commit_every int DEFAULT 100,
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
    PERFORM public.llm_require(
        commit_every OPERATOR(pg_catalog.>=) 1,
        pg_catalog.format('commit_every must be at least 1, got %s', COALESCE(commit_every::pg_catalog.text, 'NULL'))
    );
    PERFORM public.llm_check_config(model, n_layer, n_head, d, vocab);
    -- Until the next commit: numbers go into jsonb as their shortest exact text.
    PERFORM pg_catalog.set_config('extra_float_digits', '1', true);
    run := public.llm_train_begin(model, pg_catalog.jsonb_build_object(
        'n_steps', n_steps, 'commit_every', commit_every,
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
    text, int, int, int, int, int, int,
    double precision, double precision, double precision, double precision, double precision, double precision, int,
    double precision, int, int, int, int, int, text, double precision, text, bigint, text, bigint, bigint, int,
    boolean, text
) IS
'Like llm_train, with bit-identical results, but writes back and commits after every commit_every steps: others see '
'the weights and the log, and a crash or an error costs at most the steps since the last commit, which '
'llm_train_resume(run_id) repeats. llm_train_run has the id of the run. Call it outside a transaction block (2D000 '
'otherwise). 40001: the weights, or the dataset rows that existed when the run began, were changed; rows added later '
'do not join the run. Weights that only moved (VACUUM FULL, CLUSTER) count as unchanged.';


CREATE PROCEDURE public.llm_train_resume(run_id bigint, commit_every int DEFAULT NULL)
LANGUAGE plpgsql
AS $procedure$
DECLARE
    run public.llm_train_run;
    steps_left bigint;
    chunk bigint;
    fingerprint pg_catalog.bytea;
    code pg_catalog.text;
    problem pg_catalog.text;
    details pg_catalog.text;
    advice pg_catalog.text;
BEGIN
    PERFORM public.pg_llm_require_autocommit('llm_train_resume');
    COMMIT;
    SELECT r.* INTO run FROM public.llm_train_run r WHERE r.run_id OPERATOR(pg_catalog.=) llm_train_resume.run_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'training run % does not exist', COALESCE(llm_train_resume.run_id::pg_catalog.text, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'llm_train_run lists the runs.';
    END IF;
    steps_left := run.first_step
        OPERATOR(pg_catalog.+) (run.hyperparameters OPERATOR(pg_catalog.->>) 'n_steps')::bigint
        OPERATOR(pg_catalog.-) 1 OPERATOR(pg_catalog.-) run.last_step;
    PERFORM public.llm_require(
        steps_left OPERATOR(pg_catalog.>) 0,
        pg_catalog.format('training run %s is complete: it ended with step %s', run.run_id, run.last_step)
    );
    chunk := COALESCE(commit_every, (run.hyperparameters OPERATOR(pg_catalog.->>) 'commit_every')::int, 100);
    PERFORM public.llm_require(
        chunk OPERATOR(pg_catalog.>=) 1, pg_catalog.format('commit_every must be at least 1, got %s', chunk)
    );
    WHILE steps_left OPERATOR(pg_catalog.>) 0 LOOP
        BEGIN
            fingerprint := public.llm_train_chunk(run.run_id, least(chunk, steps_left), fingerprint);
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
        steps_left := steps_left OPERATOR(pg_catalog.-) least(chunk, steps_left);
        COMMIT;
    END LOOP;
END;
$procedure$;

COMMENT ON PROCEDURE public.llm_train_resume(bigint, int) IS
'Continues an interrupted run of llm_train_loop from its last commit to its planned end, with the same batches, '
'schedule and dropout, so the result is bit-identical to an uninterrupted run. 40001: the model''s weights have '
'changed since; 22023: the run is complete. An error marks the run as failed in llm_train_run; it can be resumed '
'again. Call it outside a transaction block.';
