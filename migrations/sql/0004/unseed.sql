DO $unseed$
BEGIN
    IF to_regclass('public.llm_arch') IS NULL OR to_regclass('public.llm_model_config') IS NULL
        OR to_regclass('public.llm_param') IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM public.llm_model_config AS c
    WHERE c.model IN ('gpt2-small', 'gpt2-medium', 'gpt2-large', 'gpt2-xl', 'gpt3-125m', 'gpt3-350m', 'gpt3-760m', 'gpt3-1.3b', 'gpt3-2.7b', 'gpt3-6.7b', 'gpt3-13b', 'gpt3-175b', 'microgpt', 'all-minilm-l6-v2', 'smollm2-135m', 'pythia-70m', 'opt-125m')
        AND NOT EXISTS (SELECT FROM public.llm_param AS p WHERE p.model = c.model);
    DELETE FROM public.llm_arch AS a
    WHERE a.arch IN ('gpt2', 'gpt3', 'microgpt', 'bert', 'llama', 'neox', 'opt')
        AND NOT EXISTS (SELECT FROM public.llm_model_config AS c WHERE c.arch = a.arch);
END
$unseed$;
