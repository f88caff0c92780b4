-- Weights that all sessions of the server map, of models that the caller may read.

CREATE VIEW public.llm_shared_version WITH (security_invoker = true) AS
SELECT
    version.model,
    version.weights AS "precision",
    version.bytes,
    version.built_at,
    version.current
FROM public.pg_llm_shared_versions() AS version;

COMMENT ON VIEW public.llm_shared_version IS
'versions of weights that sessions share: one file each; current: the one that the caller''s snapshot shows';
