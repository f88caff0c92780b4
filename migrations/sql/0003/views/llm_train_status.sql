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
    run.first_step + (run.hyperparameters ->> 'n_steps')::bigint - 1 AS planned_step,
    run.seed,
    run.started_at,
    run.finished_at
FROM public.llm_train_run AS run
CROSS JOIN LATERAL (
    SELECT
        EXISTS (SELECT FROM public.llm_train_progress AS progress WHERE progress.run_id = run.run_id)
        -- Before its first step a run shows no progress, but its trainer holds the model's lock.
        OR (run.status = 'running' AND EXISTS (
            SELECT
            FROM pg_catalog.pg_locks AS held
            CROSS JOIN pg_catalog.hashtextextended('llm_sql:' || run.model, 0) AS key (value)
            WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
                AND held.database = (
                    SELECT db.oid FROM pg_catalog.pg_database AS db
                    WHERE db.datname = pg_catalog.current_database()
                )
                AND held.classid = ((key.value >> 32) & 4294967295)::oid
                AND held.objid = (key.value & 4294967295)::oid
        )) AS is_live
) AS live;

COMMENT ON VIEW public.llm_train_status IS
'training runs with the status they have now: running only while a session trains, interrupted when it is gone';
