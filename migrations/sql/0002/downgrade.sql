DROP TABLE IF EXISTS public.llm_param;

DROP TABLE IF EXISTS public.llm_eval_log;

DROP TABLE IF EXISTS public.llm_clip;

DROP TABLE IF EXISTS public.llm_adapter;

DROP TABLE IF EXISTS public.llm_train_log;

DROP TABLE IF EXISTS public.llm_model_config;

DROP TABLE IF EXISTS public.llm_train_run;

DROP TABLE IF EXISTS public.llm_tokenizer;

DROP TABLE IF EXISTS public.llm_tensor_rt;

DROP TABLE IF EXISTS public.llm_tensor_map;

DROP TABLE IF EXISTS public.llm_tensor;

DROP TABLE IF EXISTS public.llm_tape;

DROP TABLE IF EXISTS public.llm_dataset_load;

DROP TABLE IF EXISTS public.llm_dataset;

DROP TABLE IF EXISTS public.llm_checkpoint;

DROP TABLE IF EXISTS public.llm_bpe_vocab;

DROP TABLE IF EXISTS public.llm_bpe_merges;

DROP TABLE IF EXISTS public.llm_arch;

DROP SEQUENCE IF EXISTS public.llm_pass_seq;
