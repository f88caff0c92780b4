DROP TABLE IF EXISTS llm_param;

DROP TABLE IF EXISTS llm_clip;

DROP TABLE IF EXISTS llm_train_log;

DROP TABLE IF EXISTS llm_model_config;

DROP TABLE IF EXISTS llm_train_run;

DROP TABLE IF EXISTS llm_tensor_rt;

DROP TABLE IF EXISTS llm_tensor_map;

DROP TABLE IF EXISTS llm_tensor;

DROP TABLE IF EXISTS llm_tape;

DROP TABLE IF EXISTS llm_dataset_load;

DROP TABLE IF EXISTS llm_dataset;

DROP TABLE IF EXISTS llm_checkpoint;

DROP TABLE IF EXISTS llm_bpe_vocab;

DROP TABLE IF EXISTS llm_bpe_merges;

DROP TABLE IF EXISTS llm_arch;

DROP SEQUENCE IF EXISTS llm_pass_seq;
