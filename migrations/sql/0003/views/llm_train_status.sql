-- Every training run and how it stands: a run whose session is gone, or was cancelled, is not running.

CREATE VIEW public.llm_train_status WITH (security_invoker = true) AS
SELECT
    run.run_id,
    run.model,
    CASE
        WHEN live.is_live THEN 'running'
        WHEN run.status = 'running' THEN 'interrupted'
        ELSE run.status
    END AS status,
    run.first_step,
    run.last_step,
    run.stored_step,
    run.first_step + (run.hyperparameters ->> 'n_steps')::bigint - 1 AS planned_step,
    run.seed,
    run.started_at,
    run.finished_at
FROM public.llm_train_run AS run
CROSS JOIN LATERAL (
    SELECT
        EXISTS (SELECT FROM public.llm_train_progress AS progress WHERE progress.run_id = run.run_id)
        -- Before its first step a run shows no progress, but its trainer holds the model's lock. Or that of another
        -- run does, which has not committed yet.
        OR (run.status = 'running'
            AND public.pg_llm_lock_holder('public.llm_train_run', run.model) IS NOT NULL
            AND NOT EXISTS (SELECT FROM public.llm_train_progress AS progress WHERE progress.model = run.model)
        ) AS is_live
) AS live;

COMMENT ON VIEW public.llm_train_status IS
'training runs with their present status: running only while a session trains, interrupted when the session is gone';
