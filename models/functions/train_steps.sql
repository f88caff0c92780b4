-- The inside of a training run: one optimizer step after the other on the weights in memory, and its batches.

CREATE FUNCTION public.llm_train_steps(run public.llm_train_run, last_step bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
DECLARE
    h jsonb := run.hyperparameters;
    grad_accum int := (h ->> 'grad_accum')::int;
    batch_rows int := (h ->> 'batch_size')::int;
    block_size int := (h ->> 'block_size')::int;
    dropout_p double precision := (h ->> 'dropout_p')::double precision;
    beta1 double precision := (h ->> 'beta1')::double precision;
    beta2 double precision := (h ->> 'beta2')::double precision;
    eps double precision := (h ->> 'eps')::double precision;
    wd double precision := (h ->> 'wd')::double precision;
    lr_max double precision := (h ->> 'lr_max')::double precision;
    min_lr double precision := (h ->> 'min_lr')::double precision;
    grad_clip double precision := (h ->> 'grad_clip')::double precision;
    schedule text := h ->> 'schedule';
    matrices_only boolean := h ->> 'decay' = 'matrices';
    warmup bigint := (h ->> 'warmup')::bigint;
    start_step bigint := (h ->> 'start_step')::bigint;
    total_steps bigint := (h ->> 'total_steps')::bigint;
    log_every int := (h ->> 'log_every')::int;
    final_step bigint := run.first_step + (h ->> 'n_steps')::bigint - 1;
    keep text := current_setting('pg_llm.tape_keep', true);
    kept boolean;
    rows_of_run bigint[] := public.llm_train_rows(run.model, (h ->> 'row')::bigint);
    first_row bigint;
    started timestamptz;
    batch record;
    passed public.tensor;
    micro_loss double precision;
    loss double precision;
    tokens bigint;
    lr double precision;
    grad_norm double precision;
    logged bigint;
BEGIN
    FOR step IN run.last_step + 1 .. last_step LOOP
        started := clock_timestamp();
        kept := keep = 'all' OR (keep = 'last' AND step = final_step);
        PERFORM public.pg_llm_tape_quiet(NOT kept);
        loss := 0;
        tokens := 0;
        PERFORM public.pg_llm_arena_zero_grad(run.model);
        FOR micro IN 0 .. grad_accum - 1 LOOP
            first_row := ((step - start_step) * grad_accum + micro) * batch_rows;
            batch := public.llm_train_batch(rows_of_run, run.seed, first_row, batch_rows, block_size);
            PERFORM public.pg_llm_tape_clear();
            PERFORM public.pg_llm_pass_begin(run.seed, step, micro);
            PERFORM public.pg_llm_set_recording(true, true);
            passed := public.llm_forward(run.model, batch.tokens, true, batch.targets, dropout_p);
            micro_loss := public.pg_llm_item(passed);
            PERFORM public.pg_llm_set_recording(false, true);
            IF NOT micro_loss < 'Infinity' THEN
                RAISE EXCEPTION 'the loss of model "%" is not finite at step %', run.model, step
                    USING ERRCODE = 'numeric_value_out_of_range',
                    HINT = 'Nothing was changed. Lower lr_max, lengthen warmup, or set grad_clip.';
            END IF;
            -- From the loss itself: an architecture may have computed something after it.
            IF public.pg_llm_tensor_id(passed) IS NULL THEN
                RAISE EXCEPTION 'the loss of model "%" depends on nothing that was recorded', run.model
                    USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = 'The forward function must compute it from llm_weight by pg_llm_ functions.';
            END IF;
            PERFORM public.llm_tape_backward(public.pg_llm_tensor_id(passed), 1.0 / grad_accum);
            loss := loss + micro_loss / grad_accum;
            tokens := tokens + batch.n_targets;
        END LOOP;
        IF kept THEN
            PERFORM public.llm_tape_flush(run.run_id, run.model, step);
        END IF;
        lr := public.pg_llm_lr_schedule(step - start_step + 1, warmup, total_steps, lr_max, schedule, min_lr);
        grad_norm := public.pg_llm_arena_adamw(
            run.model, lr, beta1, beta2, eps, wd, step, grad_clip, matrices_only
        );
        INSERT INTO public.llm_train_log (run_id, step, model, lr, loss, grad_norm, tokens, seconds)
        VALUES (
            run.run_id, step, run.model, lr, loss, grad_norm, tokens,
            EXTRACT(epoch FROM clock_timestamp() - started)
        )
        RETURNING tape_id INTO logged;
        IF grad_norm > grad_clip THEN
            INSERT INTO public.llm_clip (tape_id, clip_threshold, applied_norm, gradient_slice)
            VALUES (logged, grad_clip, grad_norm, public.pg_llm_arena_grad_norms(run.model));
        END IF;
        PERFORM public.pg_llm_progress(run.model, run.run_id, step, final_step, loss, lr, tokens);
        IF log_every > 0 AND ((step - run.first_step + 1) % log_every = 0 OR step = final_step) THEN
            RAISE NOTICE 'step % of %: loss %, rate %',
                step, final_step, round(loss::numeric, 4), ltrim(to_char(lr, '9.999EEEE'));
        END IF;
    END LOOP;
    PERFORM public.pg_llm_tape_quiet(false);
END;
$function$;

COMMENT ON FUNCTION public.llm_train_steps(public.llm_train_run, bigint) IS
'The run''s steps from its last to last_step on the pinned weights: forward, backward, AdamW, log. Dropout is keyed by '
'seed and step, batches are positions of a seeded permutation, so a step can be repeated to the bit. With grad_accum '
'the gradient and the loss are the mean of the micro-batches''.';


CREATE FUNCTION public.llm_train_rows(model text, only_row bigint DEFAULT NULL) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
AS $function$
DECLARE
    row_ids bigint[];
BEGIN
    IF only_row IS NOT NULL THEN
        RETURN ARRAY[only_row];
    END IF;
    SELECT array_agg(d.id ORDER BY d.id) INTO row_ids
    FROM public.llm_dataset d
    WHERE (d.model = llm_train_rows.model OR d.model IS NULL) AND d.split = 'train';
    IF row_ids IS NULL THEN
        RAISE EXCEPTION 'model "%" has no training data left', model
            USING ERRCODE = 'no_data_found', HINT = 'llm_fill_dataset makes rows from the result of a query.';
    END IF;
    RETURN row_ids;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_rows(text, bigint) IS
'The ids of the llm_dataset rows that the model trains on, in order.';


CREATE FUNCTION public.llm_train_batch(
    row_ids bigint[],
    seed bigint,
    first_row bigint,
    n_rows int,
    block_size int,
    OUT tokens int[],
    OUT targets int[],
    OUT n_targets bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
AS $function$
DECLARE
    picks bigint[] := public.pg_llm_batch(cardinality(row_ids), seed, first_row, n_rows);
    chosen bigint[];
    longest int := COALESCE(block_size, 2147483647);
BEGIN
    IF n_rows = 1 THEN
        SELECT d.tokens[:longest], d.target[:longest] INTO tokens, targets
        FROM public.llm_dataset d WHERE d.id = row_ids[picks[1]];
    ELSE
        FOR i IN 1 .. n_rows LOOP
            chosen[i] := row_ids[picks[i]];
        END LOOP;
        SELECT
            array_agg(public.llm_pad(b.tokens, least(b.width, longest), 0) ORDER BY b.position),
            array_agg(public.llm_pad(b.target, least(b.width, longest), -1) ORDER BY b.position)
        INTO tokens, targets
        FROM (
            SELECT c.position, d.tokens, d.target, max(cardinality(d.tokens)) OVER () AS width
            FROM unnest(chosen) WITH ORDINALITY c (id, position)
            CROSS JOIN LATERAL (
                SELECT s.tokens, s.target FROM public.llm_dataset s WHERE s.id = c.id OFFSET 0
            ) d
        ) b;
    END IF;
    n_targets := (SELECT count(*) FROM unnest(targets) t WHERE t >= 0);
END;
$function$;

COMMENT ON FUNCTION public.llm_train_batch(bigint[], bigint, bigint, int, int) IS
'The rows at positions first_row .. of the endless sequence of seeded permutations of row_ids: tokens and targets '
'[T] for one row, else [B, T] with shorter rows padded (token 0, target -1); n_targets counts those to learn.';


CREATE FUNCTION public.llm_pad(ids int[], width int, filler int) RETURNS int[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT CASE
        WHEN cardinality(ids) = width THEN ids
        WHEN cardinality(ids) > width THEN ids[:width]
        ELSE ids || array_fill(filler, ARRAY[width - cardinality(ids)])
    END;
$function$;

COMMENT ON FUNCTION public.llm_pad(int[], int, int) IS
'The first width ids, filled up with filler.';
