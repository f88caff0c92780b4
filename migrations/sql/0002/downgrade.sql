DROP TABLE llm_param;

DROP TABLE llm_clip;

DROP TABLE llm_train_log;

DROP TABLE llm_model_config;

DROP TABLE llm_train_run;

DROP TABLE llm_tensor_rt;

DROP TABLE llm_tensor_map;

DROP TABLE llm_tensor;

DROP TABLE llm_tape;

DROP TABLE llm_dataset_load;

DROP TABLE llm_dataset;

DROP TABLE llm_checkpoint;

DROP TABLE llm_bpe_vocab;

DROP TABLE llm_bpe_merges;

DROP TABLE llm_arch;

DROP SEQUENCE llm_pass_seq;
