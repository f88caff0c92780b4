-- One step on one row of data, written back before it returns.

CREATE FUNCTION public.llm_train_step(
    model text,
    batch_id bigint,
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
    total_steps bigint DEFAULT NULL,
    grad_clip double precision DEFAULT NULL,
    grad_workers int DEFAULT 1,
    prune_workers int DEFAULT 1
) RETURNS double precision
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
SET extra_float_digits = 1
AS $function$
DECLARE
    config public.llm_model_config := public.llm_check_config(model, n_layer, n_head, d, vocab);
    next_step bigint := public.llm_model_step(model) + 1;
    run bigint;
BEGIN
    PERFORM public.llm_check_row(config, batch_id);
    run := public.llm_train_begin(model, jsonb_build_object(
        'dropout_p', 0.1, 'beta1', 0.9, 'beta2', 0.999, 'eps', 1e-8, 'wd', 0.01, 'lr_max', 2.5e-4, 'warmup', NULL,
        'grad_clip', NULL, 'grad_workers', 1, 'prune_workers', 1, 'batch_size', 1, 'grad_accum', 1, 'block_size', NULL,
        'schedule', 'cosine', 'min_lr', 0, 'decay', 'all', 'seed', 0, 'data_order', 'shuffled', 'start_step', NULL,
        'total_steps', NULL, 'log_every', 1, 'keep_grad', false, 'optimizer', 'keep'
    ) || jsonb_build_object(
        'dropout_p', dropout_p, 'beta1', beta1, 'beta2', beta2, 'eps', eps, 'wd', wd, 'lr_max', lr_max,
        'warmup', warmup, 'total_steps', total_steps, 'grad_clip', grad_clip, 'grad_workers', grad_workers,
        'prune_workers', prune_workers
    ) || jsonb_build_object(
        'row', batch_id, 'n_steps', 1, 'data_order', 'by_id', 'log_every', 0, 'start_step', 1,
        'schedule', CASE WHEN total_steps IS NULL THEN 'constant' ELSE 'cosine' END,
        -- Without a planned end the rate stays at lr_max after the warm-up, which may still be under way.
        'total_steps', COALESCE(total_steps, greatest(next_step, warmup + 1)),
        'warmup', CASE WHEN total_steps IS NULL THEN COALESCE(warmup, 0) ELSE warmup END
    ));
    PERFORM public.llm_train_chunk(run, 1, NULL);
    RETURN (SELECT l.loss FROM public.llm_train_log l WHERE l.run_id = run AND l.step = next_step);
END;
$function$;

COMMENT ON FUNCTION public.llm_train_step(
    text, bigint, int, int, int, int,
    double precision, double precision, double precision, double precision, double precision, double precision, int,
    bigint, double precision, int, int
) IS
E'One training step on the llm_dataset row batch_id, stored before it returns; the loss before the step. The rate is '
'that of the model''s next step in a cosine schedule of warmup and total_steps steps counted from the model''s first; '
'without total_steps it stays at lr_max after the warm-up. Dropout is keyed with seed 0. The same bits by hand:\n'
'  SELECT llm_materialize_params(:model);\n'
'  UPDATE llm_autograd_mode SET flag = true;\n'
'  SELECT llm_loss(:model, tokens, target, NULL, NULL, NULL, NULL, :dropout_p, true)\n'
'    FROM llm_dataset WHERE id = :batch_id;\n'
'  UPDATE llm_autograd_mode SET flag = false;\n'
'  SELECT llm_backprop(NULL, :model);\n'
'  SELECT llm_accumulate_grads(:model);\n'
'  UPDATE llm_param SET (data, m, v) = (\n'
'      SELECT s.new_weight, s.new_m, s.new_v FROM pg_llm_adamw_step(data, grad, m, v,\n'
'        pg_llm_lr_schedule(step + 1, :warmup, :total_steps, :lr_max), :beta1, :beta2, :eps, :wd, step + 1) s),\n'
'    step = step + 1 WHERE model = :model;\n'
'  SELECT llm_prune_autograd_state();';
