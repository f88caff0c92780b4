-- Steps with what their ops put out: one element per op of the recorded pass, in the order they ran.

CREATE VIEW public.llm_step WITH (security_invoker = true) AS
SELECT
    log.tape_id,
    log.step,
    ops.activations,
    log.loss,
    log.grad_norm,
    COALESCE(ops.recorded_at, log.logged_at) AS recorded_at
FROM public.llm_train_log AS log
CROSS JOIN LATERAL (
    SELECT
        jsonb_agg(
            jsonb_build_object(
                'position', tape.position,
                'op', tape.name,
                'shape', tensor.shape,
                'norm', public.llm_exact_number(tensor.norm),
                'grad_norm', public.llm_exact_number(tensor.grad_norm)
            )
            ORDER BY tape.id
        ) AS activations,
        max(tape.recorded_at) AS recorded_at
    FROM public.llm_tape AS tape
    LEFT JOIN public.llm_tensor_rt AS tensor ON tensor.id = tape.output
    WHERE tape.run = log.run_id AND tape.model = log.model AND tape.step = log.step
) AS ops;

COMMENT ON VIEW public.llm_step IS
'training steps with the norm of every recorded activation; activations is NULL when the tape was not kept';
