-- The tape: writing it to its relations, the backward pass over it, and the steps of training by hand.

CREATE FUNCTION public.llm_tape_flush(
    run bigint DEFAULT NULL,
    model text DEFAULT NULL,
    step bigint DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    record_mode text := current_setting('pg_llm.record', true);
    keep text := current_setting('pg_llm.tape_keep', true);
    base bigint := public.pg_llm_tape_base();
    n_ops bigint;
BEGIN
    IF record_mode = 'off' OR keep = 'none' OR current_setting('transaction_read_only')::boolean
        OR NOT has_table_privilege('public.llm_tape', 'INSERT')
    THEN
        RETURN 0;
    END IF;
    IF base = 0 THEN
        base := nextval('public.llm_pass_seq') * 16777216;
        PERFORM public.pg_llm_tape_base(base);
    END IF;
    IF model IS NULL THEN
        SELECT min(p.model) INTO model FROM public.pg_llm_tape_params() p;
    END IF;
    IF step IS NULL AND model IS NOT NULL THEN
        step := public.llm_model_step(model) + 1;
    END IF;
    IF keep = 'last' THEN
        PERFORM public.llm_tape_forget(model, base);
    END IF;
    INSERT INTO public.llm_tape (id, run, model, step, position, name, inputs, output, extra)
    SELECT t.id, llm_tape_flush.run, llm_tape_flush.model, llm_tape_flush.step,
        t.position, t.name, t.inputs, t.output, t.extra
    FROM public.pg_llm_tape(true) t
    ON CONFLICT (id) DO NOTHING;
    GET DIAGNOSTICS n_ops = ROW_COUNT;
    INSERT INTO public.llm_tensor_rt AS kept (id, run, shape, requires_grad, norm, grad_norm, data, grad)
    SELECT t.id, llm_tape_flush.run, t.shape, t.requires_grad, t.norm, t.grad_norm, t.data, t.grad
    FROM public.pg_llm_tape_tensors(record_mode = 'full') t
    ON CONFLICT (id) DO UPDATE SET
        norm = COALESCE(EXCLUDED.norm, kept.norm),
        grad_norm = COALESCE(EXCLUDED.grad_norm, kept.grad_norm),
        data = COALESCE(EXCLUDED.data, kept.data),
        grad = COALESCE(EXCLUDED.grad, kept.grad);
    INSERT INTO public.llm_tensor_map (model, name, token_id, tensor_id)
    SELECT p.model, p.name, w.token_id, p.id
    FROM public.pg_llm_tape_params() p
    INNER JOIN public.llm_param w ON w.model = p.model AND w.name = p.name
    ORDER BY p.model, p.name, w.token_id
    ON CONFLICT (model, name, token_id) DO UPDATE SET tensor_id = EXCLUDED.tensor_id;
    RETURN n_ops;
END;
$function$;

COMMENT ON FUNCTION public.llm_tape_flush(bigint, text, bigint) IS
'Writes the pass in this session''s memory to llm_tape, llm_tensor_rt and llm_tensor_map and returns the number of '
'new tape rows. Called again after the backward pass, it adds the norms of the gradients. With pg_llm.tape_keep = '
'last, the model''s earlier passes are removed. Writes nothing if pg_llm.record is off, tape_keep is none, the '
'transaction is read-only, or the role has no INSERT privilege on llm_tape.';


CREATE FUNCTION public.llm_tape_forget(model text, before bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    passes bigint[];
BEGIN
    -- Rows that another transaction is removing are left to it: nobody waits for a tape.
    WITH old AS (
        SELECT t.id FROM public.llm_tape t
        WHERE t.model IS NOT DISTINCT FROM llm_tape_forget.model AND t.id < before
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM public.llm_tape t USING old WHERE t.id = old.id RETURNING t.id
    )
    SELECT array_agg(DISTINCT gone.id / 16777216) INTO passes FROM gone;
    PERFORM public.llm_forget_tensors(passes);
END;
$function$;

COMMENT ON FUNCTION public.llm_tape_forget(text, bigint) IS
'Removes the recorded passes of the model (NULL: those without a model) whose ids are below the given one.';


CREATE FUNCTION public.llm_forget_tensors(passes bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    DELETE FROM public.llm_tensor_rt r
    USING unnest(passes) pass
    WHERE r.id >= pass * 16777216 AND r.id < (pass + 1) * 16777216;
    DELETE FROM public.llm_tensor_map m
    USING unnest(passes) pass
    WHERE m.tensor_id >= pass * 16777216 AND m.tensor_id < (pass + 1) * 16777216;
END;
$function$;

COMMENT ON FUNCTION public.llm_forget_tensors(bigint[]) IS
'Removes the rows of llm_tensor_rt and llm_tensor_map of the recorded passes with these numbers (ids / 2^24).';


CREATE FUNCTION public.llm_tape_backward(start_id bigint, scale double precision) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    op bigint;
    n_ops bigint := 0;
BEGIN
    PERFORM public.pg_llm_backward_begin(start_id, scale);
    FOR op IN SELECT t.id FROM public.pg_llm_tape(false) t LOOP
        PERFORM public.pg_llm_backward(op);
        n_ops := n_ops + 1;
    END LOOP;
    RETURN n_ops;
END;
$function$;

COMMENT ON FUNCTION public.llm_tape_backward(bigint, double precision) IS
'Runs the backward pass over the tape in memory, newest op first, from start_id (NULL: the newest), whose gradient is '
'scale. Gradients of parameters are added to existing ones. Returns the number of ops.';


CREATE FUNCTION public.llm_backprop(start_id bigint DEFAULT NULL, model text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    n_ops bigint;
BEGIN
    IF model IS NOT NULL THEN
        PERFORM public.llm_config(model);
    END IF;
    PERFORM public.pg_llm_set_recording(false, true);
    n_ops := public.llm_tape_backward(start_id, 1.0);
    PERFORM public.pg_llm_set_recording(recording, true);
    PERFORM public.llm_tape_flush(NULL, model);
    RETURN n_ops;
END;
$function$;

COMMENT ON FUNCTION public.llm_backprop(bigint, text) IS
'Computes the gradients of the recorded pass by reverse-mode differentiation from start_id, the tape id of a single '
'number (NULL: the newest op). Gradients of parameters stay in this session''s memory for llm_accumulate_grads; '
'pg_llm_grad(tensor) returns those of tracked tensors. Returns the number of ops.';


CREATE FUNCTION public.llm_materialize_params(model text) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_pin(model, true);
    PERFORM public.pg_llm_tape_clear();
    PERFORM public.pg_llm_arena_zero_grad(model);
    IF current_setting('pg_llm.record') <> 'off' AND NOT current_setting('transaction_read_only')::boolean
        AND has_table_privilege('public.llm_tensor', 'INSERT') AND has_table_privilege('public.llm_tensor', 'UPDATE')
    THEN
        -- A value of more than 1 GB does not fit a row.
        INSERT INTO public.llm_tensor AS kept (model, name, data, shape, requires_grad)
        SELECT llm_materialize_params.model, e.name, public.pg_llm_param(llm_materialize_params.model, e.name),
            e.shape, true
        FROM public.llm_parameters(llm_materialize_params.model) e
        WHERE public.llm_count(e.shape) < 260000000
        ON CONFLICT ON CONSTRAINT pk_llm_tensor DO UPDATE
        SET data = EXCLUDED.data, shape = EXCLUDED.shape, requires_grad = true;
    END IF;
    PERFORM public.pg_llm_arena_close(model);
    RETURN (SELECT count(*)::int FROM public.llm_param p WHERE p.model = llm_materialize_params.model);
END;
$function$;

COMMENT ON FUNCTION public.llm_materialize_params(text) IS
'The first step of training by hand: reads the model''s weights and optimizer state into this session''s memory and '
'starts with zero gradients and an empty tape. Returns the number of llm_param rows. Also stores the parameters by '
'name in llm_tensor with their parts joined (those below 1 GB), unless pg_llm.record is off, the transaction is '
'read-only, or the role may not write there. llm_tensor_map shows their ids after a pass was recorded.';


CREATE FUNCTION public.llm_accumulate_grads(model text, workers int DEFAULT 1) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    threads text := current_setting('pg_llm.threads');
    fingerprint bytea;
    command bigint;
    n_rows int;
BEGIN
    PERFORM public.llm_require(workers >= 0, format('workers must not be negative, got %s', workers));
    PERFORM public.llm_lock_model(model);
    fingerprint := public.llm_pin(model, true);
    PERFORM public.llm_lock_rows(model, fingerprint);
    IF workers > 0 THEN
        PERFORM set_config('pg_llm.threads', workers::text, true);
    END IF;
    command := public.pg_llm_command_id();
    UPDATE public.llm_param p
    SET grad = public.pg_llm_arena_grad(p.model, p.name, p.token_id)
    WHERE p.model = llm_accumulate_grads.model;
    GET DIAGNOSTICS n_rows = ROW_COUNT;
    PERFORM set_config('pg_llm.threads', threads, true);
    PERFORM public.llm_written(model, n_rows, command);
    PERFORM public.pg_llm_arena_close(model);
    RETURN n_rows;
END;
$function$;

COMMENT ON FUNCTION public.llm_accumulate_grads(text, int) IS
'Stores the gradients that this session''s backward passes have summed in llm_param.grad (NULL for parameters without '
'one) and returns the number of rows. workers: threads, 0 for pg_llm.threads. 55P03: another session trains the '
'model; 40001: another transaction changed its weights meanwhile; 42501: a policy or a trigger prevents some of the '
'rows from being written.';


CREATE FUNCTION public.llm_prune_autograd_state(workers int DEFAULT 1) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    threads text := current_setting('pg_llm.threads');
    base bigint := public.pg_llm_tape_base();
    n_ops bigint;
BEGIN
    PERFORM public.llm_require(workers >= 0, format('workers must not be negative, got %s', workers));
    IF workers > 0 THEN
        PERFORM set_config('pg_llm.threads', workers::text, true);
    END IF;
    SELECT count(*) INTO n_ops FROM public.pg_llm_tape(false) t;
    PERFORM public.pg_llm_tape_clear();
    IF base > 0 AND current_setting('pg_llm.tape_keep') <> 'all'
        AND NOT current_setting('transaction_read_only')::boolean AND has_table_privilege('public.llm_tape', 'DELETE')
    THEN
        DELETE FROM public.llm_tape t WHERE t.id >= base AND t.id < base + 16777216;
        PERFORM public.llm_forget_tensors(ARRAY[base / 16777216]);
    END IF;
    PERFORM set_config('pg_llm.threads', threads, true);
    RETURN n_ops;
END;
$function$;

COMMENT ON FUNCTION public.llm_prune_autograd_state(int) IS
'The last step of training by hand: frees the tape in this session''s memory with its tensors, removes its rows from '
'llm_tape, llm_tensor_rt and llm_tensor_map (unless pg_llm.tape_keep = all), and returns the number of its ops. '
'llm_prune_runs removes what training runs recorded.';
