-- The inside of a training run: one optimizer step after the other on the weights in memory.

CREATE FUNCTION public.llm_train_steps(
    run public.llm_train_run,
    row_ids bigint[],
    first_step bigint,
    last_step bigint,
    seconds double precision DEFAULT NULL,
    audit boolean DEFAULT false,
    OUT step bigint,
    OUT loss double precision,
    OUT grad_norm double precision,
    OUT batch_hash bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    h record := public.llm_hyperparameters(run.hyperparameters);
    final_step bigint := run.first_step + h.n_steps - 1;
    keep text := current_setting('pg_llm.tape_keep', true);
    -- The loss of an encoder is a mean over pairs, not over tokens.
    of_pairs boolean := public.llm_is_encoder(public.llm_config(run.model));
    began timestamptz := clock_timestamp();
    started timestamptz;
    kept boolean;
    logged public.llm_train_log;
    first_row bigint;
    batch record;
    counted bigint[];
    share double precision;
    passed public.tensor;
    micro_loss double precision;
    tokens bigint;
    lr double precision;
    tape bigint;
BEGIN
    PERFORM public.llm_require_argument(a.name, a.given)
    FROM (
        VALUES
        ('run', run.run_id IS NOT NULL), ('row_ids', row_ids IS NOT NULL), ('first_step', first_step IS NOT NULL),
        ('last_step', last_step IS NOT NULL), ('audit', audit IS NOT NULL)
    ) a (name, given);
    FOR current_step IN first_step .. last_step LOOP
        step := current_step;
        started := clock_timestamp();
        -- A step that the log has already is computed again, and must come out as it says.
        logged := NULL;
        IF step <= run.last_step AND NOT audit THEN
            logged := public.llm_train_logged(run.run_id, step);
        END IF;
        kept := NOT audit AND logged.step IS NULL AND (keep = 'all' OR (keep = 'last' AND step = final_step));
        PERFORM public.pg_llm_tape_quiet(NOT kept);
        loss := 0;
        tokens := 0;
        batch_hash := 0;
        PERFORM public.pg_llm_arena_zero_grad(run.model);
        FOR micro IN 0 .. h.grad_accum - 1 LOOP
            first_row := ((step - h.start_step) * h.grad_accum + micro) * h.batch_size;
            batch := public.llm_train_batch(row_ids, run.seed, first_row, h.batch_size, h.block_size, h.data_order);
            batch_hash := public.pg_llm_ids_hash(batch.tokens, batch.targets, batch_hash);
            counted[micro] := CASE WHEN of_pairs THEN h.batch_size ELSE batch.n_targets END;
            tokens := tokens + counted[micro];
        END LOOP;
        IF logged.batch_hash <> batch_hash THEN
            PERFORM public.llm_raise_mismatch(
                run.run_id, step, 'its batch is another one', 'Its rows of llm_dataset: '
                || public.llm_train_step_rows(run, row_ids, step)
            );
        END IF;
        IF tokens = 0 THEN
            RAISE EXCEPTION 'step % of model "%" has nothing to learn: none of its rows has a target', step, run.model
                USING ERRCODE = 'no_data_found',
                DETAIL = 'Its rows of llm_dataset: '
                || public.llm_train_step_rows(run, row_ids, step),
                HINT = 'Nothing was changed. Targets below 0 are not learnt: delete such rows, or raise batch_size.';
        END IF;
        FOR micro IN 0 .. h.grad_accum - 1 LOOP
            CONTINUE WHEN counted[micro] = 0;
            IF h.grad_accum > 1 THEN
                first_row := ((step - h.start_step) * h.grad_accum + micro) * h.batch_size;
                batch := public.llm_train_batch(
                    row_ids, run.seed, first_row, h.batch_size, h.block_size, h.data_order
                );
            END IF;
            share := counted[micro]::double precision / tokens;
            PERFORM public.pg_llm_tape_clear();
            PERFORM public.pg_llm_pass_begin(run.seed, step, micro);
            PERFORM public.pg_llm_set_recording(true, true);
            passed := public.llm_forward(run.model, batch.tokens, true, batch.targets, h.dropout_p);
            micro_loss := public.pg_llm_item(passed);
            PERFORM public.pg_llm_set_recording(false, true);
            IF NOT micro_loss < 'Infinity' THEN
                RAISE EXCEPTION 'the loss of model "%" is not finite at step %', run.model, step
                    USING ERRCODE = 'numeric_value_out_of_range',
                    HINT = 'Nothing was changed. Lower lr_max, lengthen warmup, or set grad_clip.';
            END IF;
            -- From the loss itself: an architecture may have computed something after it.
            IF public.pg_llm_tensor_id(passed) IS NULL THEN
                RAISE EXCEPTION 'the loss of model "%" does not depend on any recorded op', run.model
                    USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = 'The forward function must compute it from llm_weight with pg_llm_ functions.';
            END IF;
            PERFORM public.llm_tape_backward(public.pg_llm_tensor_id(passed), share);
            loss := loss + micro_loss * share;
            IF h.grad_accum > 1 THEN
                PERFORM public.pg_llm_arena_sum_grad(run.model);
            END IF;
        END LOOP;
        IF h.grad_accum > 1 THEN
            PERFORM public.pg_llm_arena_take_sum(run.model);
        END IF;
        IF kept THEN
            PERFORM public.llm_tape_flush(run.run_id, run.model, step);
        END IF;
        lr := public.pg_llm_lr_schedule(
            step - h.start_step + 1, h.warmup, h.total_steps, h.lr_max, h.schedule, h.min_lr
        );
        grad_norm := public.pg_llm_arena_adamw(
            run.model, lr, h.beta1, h.beta2, h.eps, h.wd, step, h.grad_clip, h.decay = 'matrices'
        );
        CONTINUE WHEN audit;
        IF logged.step IS NULL THEN
            INSERT INTO public.llm_train_log (run_id, step, model, lr, loss, grad_norm, tokens, batch_hash, seconds)
            VALUES (
                run.run_id, step, run.model, lr, loss, grad_norm, tokens, batch_hash,
                EXTRACT(epoch FROM clock_timestamp() - started)
            )
            RETURNING tape_id INTO tape;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'step % of run % cannot be logged', step, run.run_id
                    USING ERRCODE = 'insufficient_privilege',
                    HINT = 'A trigger on llm_train_log keeps the row out. Without its log a run cannot be resumed.';
            END IF;
            IF grad_norm > h.grad_clip THEN
                INSERT INTO public.llm_clip (tape_id, clip_threshold, applied_norm, gradient_slice)
                VALUES (tape, h.grad_clip, grad_norm, public.pg_llm_arena_grad_norms(run.model));
            END IF;
            IF h.log_every > 0 AND ((step - run.first_step + 1) % h.log_every = 0 OR step = final_step) THEN
                RAISE NOTICE 'step % of %: loss %, rate %',
                    step, final_step, round(loss::numeric, 4), ltrim(to_char(lr, '9.999EEEE'));
            END IF;
        ELSIF (logged.loss, logged.grad_norm, logged.lr) IS DISTINCT FROM (loss, grad_norm, lr) THEN
            PERFORM public.llm_raise_mismatch(
                run.run_id, step, 'it comes out differently',
                format('Logged: loss %s, gradient norm %s, rate %s. Computed: %s, %s, %s.',
                    logged.loss, logged.grad_norm, logged.lr, loss, grad_norm, lr)
            );
        END IF;
        PERFORM public.pg_llm_progress(run.model, run.run_id, step, final_step, loss, lr, tokens);
        EXIT WHEN clock_timestamp() - began >= make_interval(secs => seconds)
            OR public.pg_llm_stop_wanted(run.run_id);
    END LOOP;
    PERFORM public.pg_llm_tape_quiet(false);
END;
$function$;

COMMENT ON FUNCTION public.llm_train_steps(
    public.llm_train_run, bigint[], bigint, bigint, double precision, boolean
) IS
'Steps of a run on the pinned weights, until last_step or, if given, until so many seconds are over: forward, '
'backward, AdamW, log. Returns the last step made, which is an earlier one when the run is told to stop. Dropout '
'depends on seed and step, and batches are positions of a seeded permutation, so a step can be repeated bit for bit: '
'one that is logged already is compared with the log instead (40001 where it differs), unless audit is true, which '
'neither compares nor logs. Loss and gradient are means over the step''s target tokens: with grad_accum, each '
'micro-batch is weighted by its share of them, computed from zero, and added in order. 40001: dataset rows are gone; '
'P0002: a step without any target; 42501: a trigger keeps its row out of the log.';


CREATE FUNCTION public.llm_train_step_rows(run public.llm_train_run, row_ids bigint[], step bigint) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    h record := public.llm_hyperparameters(run.hyperparameters);
BEGIN
    RETURN (
        SELECT string_agg(row_ids[p.pick]::text, ', ' ORDER BY p.number) || '.'
        FROM unnest(public.llm_train_picks(
            cardinality(row_ids), run.seed, (step - h.start_step) * h.grad_accum * h.batch_size,
            least(h.grad_accum::bigint * h.batch_size, 100)::int, h.data_order
        )) WITH ORDINALITY p (pick, number)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_train_step_rows(public.llm_train_run, bigint[], bigint) IS
'For messages: the ids of the rows, up to 100, that a step of the run takes.';


CREATE FUNCTION public.llm_train_logged(run_id bigint, step bigint) RETURNS public.llm_train_log
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    logged public.llm_train_log;
BEGIN
    PERFORM public.llm_require_argument('run_id', run_id IS NOT NULL);
    PERFORM public.llm_require_argument('step', step IS NOT NULL);
    SELECT l.* INTO logged FROM public.llm_train_log l
    WHERE l.run_id = llm_train_logged.run_id AND l.step = llm_train_logged.step AND NOT l.superseded;
    IF NOT FOUND THEN
        PERFORM public.llm_raise_mismatch(
            run_id, step, 'its log is gone',
            'Another run, a loaded checkpoint or new weights superseded it, or its row was deleted.'
        );
    END IF;
    RETURN logged;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_logged(bigint, bigint) IS
'The row of llm_train_log of a run''s step. 40001: it is gone or superseded.';


CREATE FUNCTION public.llm_raise_mismatch(run_id bigint, step bigint, problem text, detail text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument(a.name, a.given)
    FROM (
        VALUES
        ('run_id', run_id IS NOT NULL), ('step', step IS NOT NULL), ('problem', problem IS NOT NULL),
        ('detail', detail IS NOT NULL)
    ) a (name, given);
    RAISE EXCEPTION 'step % of run % cannot be repeated: %', step, run_id, problem
        USING ERRCODE = 'serialization_failure', DETAIL = detail,
        HINT = format('Put back what has changed, or CALL llm_train_resume(%s, on_mismatch => ''rewind''), which gives '
            'up the logged steps that are not stored and goes on from the stored weights.', run_id);
END;
$function$;

COMMENT ON FUNCTION public.llm_raise_mismatch(bigint, bigint, text, text) IS
'Raises the error for a step that does not come out as the log says.';
