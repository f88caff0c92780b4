-- Runs of this database that are going on now, also those inside a transaction that has not committed.

CREATE VIEW public.llm_train_progress WITH (security_invoker = true) AS
SELECT
    progress.pid,
    progress.model,
    progress.run_id,
    progress.step,
    progress.total,
    progress.loss,
    progress.lr,
    progress.tokens,
    progress.started_at,
    progress.updated_at
FROM public.pg_llm_train_progress() AS progress
INNER JOIN pg_catalog.pg_database AS db ON db.oid = progress.datid
WHERE db.datname = pg_catalog.current_database();

COMMENT ON VIEW public.llm_train_progress IS 'training that is running in this database, visible from any session';
