-- The validation split of every model's data.

CREATE VIEW public.llm_heldout WITH (security_invoker = true) AS
SELECT id, model, tokens AS seq, target
FROM public.llm_dataset
WHERE split = 'validation';

COMMENT ON VIEW public.llm_heldout IS 'sequences held out from training';
