DROP TABLE public.llm_param;

DROP TABLE public.llm_clip;

DROP TABLE public.llm_train_log;

DROP TABLE public.llm_model_config;

DROP TABLE public.llm_train_run;

DROP TABLE public.llm_tensor_rt;

DROP TABLE public.llm_tensor_map;

DROP TABLE public.llm_tensor;

DROP TABLE public.llm_tape;

DROP TABLE public.llm_dataset_load;

DROP TABLE public.llm_dataset;

DROP TABLE public.llm_checkpoint;

DROP TABLE public.llm_bpe_vocab;

DROP TABLE public.llm_bpe_merges;

DROP TABLE public.llm_arch;

DROP SEQUENCE public.llm_pass_seq;
