DROP TRIGGER IF EXISTS llm_autograd_mode_write ON public.llm_autograd_mode;

DROP VIEW IF EXISTS public.llm_train_status;

DROP VIEW IF EXISTS public.llm_train_progress;

DROP VIEW IF EXISTS public.llm_step;

DROP VIEW IF EXISTS public.llm_shared_version;

DROP VIEW IF EXISTS public.llm_param_er;

DROP VIEW IF EXISTS public.llm_heldout;

DROP VIEW IF EXISTS public.llm_autograd_mode;

DROP FUNCTION IF EXISTS public.llm_autograd_mode_write();

DROP FUNCTION IF EXISTS public.llm_write_cost(model text, task text, write_backs int, n_steps bigint, optimizer text, keep_grad boolean, dtype text);

DROP FUNCTION IF EXISTS public.llm_tokenizer_cost(model text, OUT heap_bytes bigint, OUT index_bytes bigint, OUT wal_bytes bigint);

DROP FUNCTION IF EXISTS public.llm_version_layout(model text, n_tensors int, element_bytes int, OUT n_rows bigint, OUT row_bytes bigint, OUT row_pages numeric, OUT chunks bigint, OUT full_chunks bigint, OUT rest_bytes bigint);

DROP FUNCTION IF EXISTS public.llm_row_layout(model_bytes int, name_bytes int, tensor_bytes bigint, n_tensors int, OUT row_bytes bigint, OUT out_of_line int);

DROP FUNCTION IF EXISTS public.llm_load_wordpiece(model text, vocab text, settings jsonb, added jsonb);

DROP FUNCTION IF EXISTS public.llm_load_wordpiece(model text, vocab bytea, settings jsonb, added jsonb);

DROP FUNCTION IF EXISTS public.llm_wordpiece_feed(model text, version bytea);

DROP FUNCTION IF EXISTS public.llm_wordpiece_settings(settings jsonb);

DROP FUNCTION IF EXISTS public.llm_release(shared boolean);

DROP FUNCTION IF EXISTS public.llm_write_back(model text, fingerprint bytea, step bigint, keep_grad boolean, workers int, keep_moments boolean);

DROP FUNCTION IF EXISTS public.llm_recognise(model text, known bytea);

DROP FUNCTION IF EXISTS public.llm_written(model text, n_written bigint, command bigint);

DROP FUNCTION IF EXISTS public.llm_stored_as_written(model text, n_written bigint, command bigint);

DROP FUNCTION IF EXISTS public.llm_lock_rows(model text, fingerprint bytea);

DROP FUNCTION IF EXISTS public.llm_weight(model text, name text);

DROP FUNCTION IF EXISTS public.llm_check_weights(model text);

DROP FUNCTION IF EXISTS public.llm_pin(model text, training boolean);

DROP FUNCTION IF EXISTS public.llm_fingerprint(model text);

DROP FUNCTION IF EXISTS public.llm_raise_mismatch(run_id bigint, step bigint, problem text, detail text);

DROP FUNCTION IF EXISTS public.llm_train_logged(run_id bigint, step bigint);

DROP FUNCTION IF EXISTS public.llm_train_step_rows(run public.llm_train_run, row_ids bigint[], step bigint);

DROP FUNCTION IF EXISTS public.llm_train_steps(run public.llm_train_run, row_ids bigint[], first_step bigint, last_step bigint, seconds double precision, audit boolean, OUT step bigint, OUT loss double precision, OUT grad_norm double precision, OUT batch_hash bigint);

DROP FUNCTION IF EXISTS public.llm_train_step(model text, batch_id bigint, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, total_steps bigint, grad_clip double precision, grad_workers int, prune_workers int);

DROP FUNCTION IF EXISTS public.llm_replay_load(model text, checkpoint bigint, seed bigint);

DROP FUNCTION IF EXISTS public.llm_replay_base(run public.llm_train_run, first bigint, OUT step bigint, OUT checkpoint bigint, OUT seed bigint);

DROP FUNCTION IF EXISTS public.llm_replay_usable(run public.llm_train_run, checkpoint public.llm_checkpoint);

DROP FUNCTION IF EXISTS public.llm_replay_bases(run public.llm_train_run, OUT step bigint, OUT checkpoint bigint, OUT seed bigint);

DROP FUNCTION IF EXISTS public.llm_replay_steps(run public.llm_train_run, first bigint, last bigint);

DROP FUNCTION IF EXISTS public.llm_replay(run_id bigint, first bigint, last bigint, OUT step bigint, OUT loss double precision, OUT replayed_loss double precision, OUT same boolean);

DROP FUNCTION IF EXISTS public.llm_write_seconds(model text);

DROP FUNCTION IF EXISTS public.llm_train_load(run public.llm_train_run, OUT fingerprint bytea, OUT hash bigint);

DROP FUNCTION IF EXISTS public.llm_train_log_id(run_id bigint, step bigint);

DROP FUNCTION IF EXISTS public.llm_train_advance(run_id bigint, commit_every int, write_back_every int, INOUT fingerprint bytea, INOUT row_ids bigint[], INOUT row_versions bytea, INOUT step bigint, INOUT written_at timestamptz, INOUT write_seconds double precision, INOUT write_began timestamptz, OUT ended boolean, OUT code text, OUT problem text, OUT details text, OUT advice text);

DROP FUNCTION IF EXISTS public.llm_train_stop(run_id bigint);

DROP FUNCTION IF EXISTS public.llm_train_rewind(run_id bigint, step bigint, problem text);

DROP FUNCTION IF EXISTS public.llm_train_other_library(run public.llm_train_run);

DROP FUNCTION IF EXISTS public.llm_train_take_up(run_id bigint, commit_every int, write_back_every int, on_mismatch text);

DROP PROCEDURE IF EXISTS public.llm_train_resume(run_id bigint, commit_every int, write_back_every int, on_mismatch text);

DROP FUNCTION IF EXISTS public.llm_check_intervals(commit_every int, write_back_every int);

DROP PROCEDURE IF EXISTS public.llm_train_loop(model text, n_steps int, commit_every int, write_back_every int, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, grad_clip double precision, grad_workers int, prune_workers int, batch_size int, grad_accum int, block_size int, schedule text, min_lr double precision, decay text, seed bigint, data_order text, start_step bigint, total_steps bigint, log_every int, keep_grad boolean, optimizer text);

DROP FUNCTION IF EXISTS public.llm_pad(ids int[], width int, filler int);

DROP FUNCTION IF EXISTS public.llm_train_batch(row_ids bigint[], seed bigint, first_row bigint, n_rows int, block_size int, data_order text, OUT tokens int[], OUT targets int[], OUT n_targets bigint);

DROP FUNCTION IF EXISTS public.llm_train_picks(n_rows bigint, seed bigint, first_row bigint, n_picks int, data_order text);

DROP FUNCTION IF EXISTS public.llm_raise_missing(run_id bigint, missing int8multirange);

DROP FUNCTION IF EXISTS public.llm_train_rows_version(run public.llm_train_run, known bytea);

DROP FUNCTION IF EXISTS public.llm_train_rows(run public.llm_train_run, OUT row_ids bigint[], OUT version bytea);

DROP FUNCTION IF EXISTS public.llm_train_data(model text, only_row bigint);

DROP FUNCTION IF EXISTS public.llm_train_clear(model text, workers int);

DROP FUNCTION IF EXISTS public.llm_raise_other_weights(run public.llm_train_run);

DROP FUNCTION IF EXISTS public.llm_train_chunk(run_id bigint, n_steps bigint, expected bytea);

DROP FUNCTION IF EXISTS public.llm_run(run_id bigint);

DROP FUNCTION IF EXISTS public.llm_check_hyperparameters(config public.llm_model_config, arguments jsonb);

DROP FUNCTION IF EXISTS public.llm_hyperparameters(arguments jsonb, OUT n_steps bigint, OUT dropout_p double precision, OUT beta1 double precision, OUT beta2 double precision, OUT eps double precision, OUT wd double precision, OUT lr_max double precision, OUT warmup int, OUT grad_clip double precision, OUT grad_workers int, OUT prune_workers int, OUT batch_size int, OUT grad_accum int, OUT block_size int, OUT schedule text, OUT min_lr double precision, OUT decay text, OUT seed bigint, OUT data_order text, OUT start_step bigint, OUT total_steps bigint, OUT log_every int, OUT keep_grad boolean, OUT optimizer text);

DROP FUNCTION IF EXISTS public.llm_train_give_up(run_id bigint);

DROP FUNCTION IF EXISTS public.llm_train_supersede(model text, first_step bigint, run_id bigint);

DROP FUNCTION IF EXISTS public.llm_train_begin(model text, arguments jsonb);

DROP FUNCTION IF EXISTS public.llm_train(model text, n_steps int, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, grad_clip double precision, grad_workers int, prune_workers int, batch_size int, grad_accum int, block_size int, schedule text, min_lr double precision, decay text, seed bigint, data_order text, start_step bigint, total_steps bigint, log_every int, keep_grad boolean, optimizer text);

DROP FUNCTION IF EXISTS public.llm_decode(ids int[], model text);

DROP FUNCTION IF EXISTS public.llm_known_tokens(ids int[], model text);

DROP FUNCTION IF EXISTS public.llm_token_bytes(ids int[], model text);

DROP FUNCTION IF EXISTS public.llm_encode_sequence(text text, model text, max_tokens int);

DROP FUNCTION IF EXISTS public.llm_encode_sequences(texts text[], model text, max_tokens int);

DROP FUNCTION IF EXISTS public.llm_encode(text text, model text, special boolean, bos boolean);

DROP FUNCTION IF EXISTS public.llm_encode_documents(documents text[], model text, continued boolean);

DROP FUNCTION IF EXISTS public.llm_encode_characters(documents text[], model text);

DROP FUNCTION IF EXISTS public.llm_query_documents(query text);

DROP FUNCTION IF EXISTS public.llm_subquery(query text);

DROP FUNCTION IF EXISTS public.llm_build_char_tokenizer(model text, query text);

DROP FUNCTION IF EXISTS public.llm_prefix_tokens(model text);

DROP FUNCTION IF EXISTS public.llm_json_ids(ids jsonb);

DROP FUNCTION IF EXISTS public.llm_begin_token(model text);

DROP FUNCTION IF EXISTS public.llm_end_token(model text);

DROP FUNCTION IF EXISTS public.llm_end_tokens(model text);

DROP FUNCTION IF EXISTS public.llm_check_tokenizer(model text);

DROP FUNCTION IF EXISTS public.llm_tokenizer_kind(model text);

DROP FUNCTION IF EXISTS public.llm_prune_autograd_state(workers int);

DROP FUNCTION IF EXISTS public.llm_accumulate_grads(model text, workers int);

DROP FUNCTION IF EXISTS public.llm_materialize_params(model text);

DROP FUNCTION IF EXISTS public.llm_backprop(start_id bigint, model text);

DROP FUNCTION IF EXISTS public.llm_tape_backward(start_id bigint, scale double precision);

DROP FUNCTION IF EXISTS public.llm_forget_tensors(passes bigint[]);

DROP FUNCTION IF EXISTS public.llm_tape_forget(model text, before bigint);

DROP FUNCTION IF EXISTS public.llm_tape_flush(run bigint, model text, step bigint);

DROP FUNCTION IF EXISTS public.llm_refuse_setting(key text, value jsonb, declared jsonb, config public.llm_model_config);

DROP FUNCTION IF EXISTS public.llm_size(name text, config public.llm_model_config);

DROP FUNCTION IF EXISTS public.llm_setting_fits(value jsonb, declaration jsonb, config public.llm_model_config);

DROP FUNCTION IF EXISTS public.llm_settings(config public.llm_model_config, declared jsonb);

DROP FUNCTION IF EXISTS public.llm_load_sentencepiece(model text, vocab jsonb, merges jsonb, settings jsonb, added jsonb);

DROP FUNCTION IF EXISTS public.llm_sentencepiece_feed(model text, version bytea);

DROP FUNCTION IF EXISTS public.llm_sentencepiece_settings(settings jsonb);

DROP FUNCTION IF EXISTS public.llm_require_room_for(model text, task text, memory_copies int, optimizer text, keep_grad boolean, dtype text);

DROP FUNCTION IF EXISTS public.llm_require_room_to_fill(model text, documents text[], block_size int, stride int);

DROP FUNCTION IF EXISTS public.llm_require_memory(task text, n_weights numeric, copies int);

DROP FUNCTION IF EXISTS public.llm_require_disk(task text, heap_bytes numeric, toast_bytes numeric, index_bytes numeric, wal_bytes numeric);

DROP FUNCTION IF EXISTS public.llm_count(shape int[]);

DROP FUNCTION IF EXISTS public.llm_check_copied(model text);

DROP FUNCTION IF EXISTS public.llm_is_filtered(model text);

DROP FUNCTION IF EXISTS public.llm_check_publication(model text);

DROP FUNCTION IF EXISTS public.llm_unpublish(model text);

DROP FUNCTION IF EXISTS public.llm_publish(model text);

DROP FUNCTION IF EXISTS public.llm_publication_tables(model text);

DROP FUNCTION IF EXISTS public.llm_publication_mark(model text);

DROP FUNCTION IF EXISTS public.llm_publication(model text);

DROP FUNCTION IF EXISTS public.llm_fill_pairs(model text, query text, split text, validation double precision, seed bigint, anchor_prompt text, positive_prompt text, max_tokens int, OUT pairs bigint, OUT validation_pairs bigint);

DROP FUNCTION IF EXISTS public.llm_encode_pair(texts text[], model text, max_tokens int, anchor_prompt text, positive_prompt text, OUT tokens int[], OUT target int[], OUT n_cut int);

DROP FUNCTION IF EXISTS public.llm_query_pairs(query text);

DROP FUNCTION IF EXISTS public.llm_prune_passes(run_id bigint);

DROP FUNCTION IF EXISTS public.llm_prune_runs(model text, keep int, OUT runs bigint, OUT passes bigint);

DROP FUNCTION IF EXISTS public.llm_rename_model(model text, new_name text);

DROP FUNCTION IF EXISTS public.llm_drop_model(model text);

DROP FUNCTION IF EXISTS public.llm_initial_tensor(shape int[], init text, std double precision, seed bigint, name text, first_row int);

DROP FUNCTION IF EXISTS public.llm_check_size(config public.llm_model_config);

DROP FUNCTION IF EXISTS public.llm_init_model(model text, seed bigint);

DROP FUNCTION IF EXISTS public.llm_create_model(model text, arch text, n_layer int, n_head int, d_model int, n_positions int, vocab int, seed bigint, settings jsonb);

DROP FUNCTION IF EXISTS public.llm_logits(tokens int[], model text, n_layer int, n_head int, d_model int, vocab_size int);

DROP FUNCTION IF EXISTS public.llm_loss(model text, tokens int[], targets int[], n_layer int, n_head int, d int, vocab int, dropout_p double precision, training boolean);

DROP FUNCTION IF EXISTS public.llm_loss(model text, tokens int[], targets int[]);

DROP FUNCTION IF EXISTS public.llm_recorded_loss(config public.llm_model_config, tokens int[], targets int[], dropout_p double precision, training boolean);

DROP FUNCTION IF EXISTS public.llm_check_tokens(config public.llm_model_config, tokens int[], targets int[]);

DROP FUNCTION IF EXISTS public.llm_shape_text(value anyarray);

DROP FUNCTION IF EXISTS public.llm_import_check(model text, tensors jsonb, megatron_version double precision);

DROP FUNCTION IF EXISTS public.llm_import_source_shape(shape int[], how text, n_sources int);

DROP FUNCTION IF EXISTS public.llm_import_plan(model text, tensors jsonb, megatron_version double precision);

DROP FUNCTION IF EXISTS public.llm_require_tensors(tensors jsonb);

DROP FUNCTION IF EXISTS public.llm_file_name(name text);

DROP FUNCTION IF EXISTS public.pg_llm_import_safetensors(path text, model text, megatron_version double precision);

DROP FUNCTION IF EXISTS public.pg_llm_import_npz(path text, model text, megatron_version double precision);

DROP FUNCTION IF EXISTS public.llm_import_file(path text, model text, formats text[], megatron_version double precision);

DROP FUNCTION IF EXISTS public.llm_import_is_bf16(tensors jsonb, sources text[]);

DROP FUNCTION IF EXISTS public.llm_import_heads_equal(path text, tensors jsonb, vocab int);

DROP FUNCTION IF EXISTS public.llm_import_value(path text, sources text[], how text, n_head int);

DROP FUNCTION IF EXISTS public.llm_file_limit(model text);

DROP FUNCTION IF EXISTS public.llm_import_end(model text);

DROP FUNCTION IF EXISTS public.llm_import_part(model text, name text, first_row int, data public.tensor);

DROP FUNCTION IF EXISTS public.llm_parts(shape int[]);

DROP FUNCTION IF EXISTS public.llm_import_begin(model text, tensors jsonb, tied boolean, megatron_version double precision);

DROP FUNCTION IF EXISTS public.llm_import_tie(model text, tied boolean);

DROP FUNCTION IF EXISTS public.llm_hub_name(family text, parameter text, OUT name text, OUT how text);

DROP FUNCTION IF EXISTS public.llm_hub_family(model text);

DROP FUNCTION IF EXISTS public.llm_opt_name(parameter text, OUT name text, OUT how text);

DROP FUNCTION IF EXISTS public.llm_neox_name(parameter text, OUT name text, OUT how text);

DROP FUNCTION IF EXISTS public.llm_llama_name(parameter text, OUT name text, OUT how text);

DROP FUNCTION IF EXISTS public.llm_bert_name(parameter text, OUT name text, OUT transposed boolean);

DROP FUNCTION IF EXISTS public.llm_sum_rows(x public.tensor);

DROP FUNCTION IF EXISTS public.llm_embed_text(text text, model text, layer int, pooling text);

DROP FUNCTION IF EXISTS public.llm_hidden(model text, tokens int[], layer int);

DROP FUNCTION IF EXISTS public.llm_chat(messages jsonb, model text, max_tokens int, temperature double precision, top_k int, top_p double precision, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision, overflow text);

DROP FUNCTION IF EXISTS public.llm_chat_stream(messages jsonb, model text, max_tokens int, temperature double precision, top_k int, top_p double precision, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision, overflow text);

DROP FUNCTION IF EXISTS public.llm_chat_begin(messages jsonb, model text, max_tokens int, temperature double precision, top_k int, top_p double precision, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision, overflow text, OUT handle int, OUT chosen text, OUT context int, OUT before text);

DROP FUNCTION IF EXISTS public.llm_chat_key(config public.llm_model_config);

DROP FUNCTION IF EXISTS public.llm_generate(prompts text[], max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision);

DROP FUNCTION IF EXISTS public.llm_generate_together(prompts text[], max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision);

DROP FUNCTION IF EXISTS public.llm_generate(prompt text, max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision);

DROP FUNCTION IF EXISTS public.llm_generate_stream(prompt text, max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision);

DROP FUNCTION IF EXISTS public.llm_generation_next(handle int, logits public.tensor, model text, OUT step int, OUT token_id int, OUT token text, OUT text text, OUT is_complete boolean);

DROP FUNCTION IF EXISTS public.llm_generations_logits(handles int[], model text, context int);

DROP FUNCTION IF EXISTS public.llm_generation_logits(handle int, model text, context int);

DROP FUNCTION IF EXISTS public.llm_generation_pass(handles int[], model text, tokens int[]);

DROP FUNCTION IF EXISTS public.llm_generation_begin(prompt text, model text, max_tokens int, temperature double precision, top_k int, top_p double precision, seed bigint, stop text[], repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision, OUT handle int, OUT chosen text, OUT context int);

DROP FUNCTION IF EXISTS public.llm_generation_open(prompt text, model text, OUT handle int, OUT n_prompt int, OUT chosen text, OUT context int, OUT end_tokens int[]);

DROP FUNCTION IF EXISTS public.llm_parameters_opt(model text);

DROP FUNCTION IF EXISTS public.llm_hidden_opt(model text, tokens int[], n_blocks int);

DROP FUNCTION IF EXISTS public.llm_forward_opt(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean);

DROP FUNCTION IF EXISTS public.llm_parameters_neox(model text);

DROP FUNCTION IF EXISTS public.llm_hidden_neox(model text, tokens int[], n_blocks int);

DROP FUNCTION IF EXISTS public.llm_forward_neox(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean);

DROP FUNCTION IF EXISTS public.llm_parameters_microgpt(model text);

DROP FUNCTION IF EXISTS public.llm_hidden_microgpt(model text, tokens int[], n_blocks int);

DROP FUNCTION IF EXISTS public.llm_forward_microgpt(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean);

DROP FUNCTION IF EXISTS public.llm_parameters_llama(model text);

DROP FUNCTION IF EXISTS public.llm_hidden_llama(model text, tokens int[], n_blocks int);

DROP FUNCTION IF EXISTS public.llm_forward_llama(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean);

DROP FUNCTION IF EXISTS public.llm_parameters_gpt3(model text);

DROP FUNCTION IF EXISTS public.llm_hidden_gpt3(model text, tokens int[], n_blocks int);

DROP FUNCTION IF EXISTS public.llm_forward_gpt3(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean);

DROP FUNCTION IF EXISTS public.llm_parameters_gpt2(model text);

DROP FUNCTION IF EXISTS public.llm_hidden_gpt2(model text, tokens int[], n_blocks int);

DROP FUNCTION IF EXISTS public.llm_forward_gpt2(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean);

DROP FUNCTION IF EXISTS public.llm_parameters_bert(model text);

DROP FUNCTION IF EXISTS public.llm_hidden_bert(model text, tokens int[], n_blocks int);

DROP FUNCTION IF EXISTS public.llm_forward_bert(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean);

DROP FUNCTION IF EXISTS public.llm_embed_bert(model text, tokens int[], lengths int[], training boolean, dropout_p double precision);

DROP FUNCTION IF EXISTS public.llm_forward(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean);

DROP FUNCTION IF EXISTS public.llm_finetune(model text, query text, steps int, new_name text, block_size int, stride int, validation double precision, batch_size int, grad_accum int, lr_max double precision, warmup int, schedule text, min_lr double precision, dropout_p double precision, wd double precision, grad_clip double precision, decay text, seed bigint, log_every int, beta1 double precision, beta2 double precision, eps double precision, grad_workers int, prune_workers int, data_order text, start_step bigint, total_steps bigint, keep_grad boolean, optimizer text, OUT name text, OUT perplexity_before double precision, OUT perplexity_after double precision);

DROP FUNCTION IF EXISTS public.llm_finetune_name(model text);

DROP FUNCTION IF EXISTS public.llm_copy_tokenizer(model text, new_name text);

DROP FUNCTION IF EXISTS public.llm_claim_name(new_name text);

DROP FUNCTION IF EXISTS public.llm_copy_model(model text, new_name text, optimizer boolean);

DROP FUNCTION IF EXISTS public.pg_llm_export_safetensors(path text, model text);

DROP FUNCTION IF EXISTS public.pg_llm_export_npz(path text, model text, gzip boolean);

DROP FUNCTION IF EXISTS public.llm_export_file(path text, model text, format text);

DROP FUNCTION IF EXISTS public.llm_export_whole(model text, name text);

DROP FUNCTION IF EXISTS public.llm_export_value(model text, name text, how text);

DROP FUNCTION IF EXISTS public.llm_export_data(model text);

DROP FUNCTION IF EXISTS public.llm_export_is_bf16(model text, name text, how text);

DROP FUNCTION IF EXISTS public.llm_export_first(how text);

DROP FUNCTION IF EXISTS public.llm_export_tensors(model text);

DROP FUNCTION IF EXISTS public.llm_perplexity(model text, text text, stride int);

DROP FUNCTION IF EXISTS public.llm_evaluation_batches(config public.llm_model_config, split text, stride int, query text);

DROP FUNCTION IF EXISTS public.llm_log_evaluation(model text, split text, stride int, OUT step bigint, OUT tokens bigint, OUT nll double precision, OUT perplexity double precision);

DROP FUNCTION IF EXISTS public.llm_evaluate(model text, split text, stride int, query text, OUT tokens bigint, OUT nll double precision, OUT perplexity double precision);

DROP FUNCTION IF EXISTS public.llm_pin_statement(model text);

DROP FUNCTION IF EXISTS public.llm_windows(n int, width int, stride int);

DROP FUNCTION IF EXISTS public.llm_check_embed_trigger(name text, happens text, level text, event text, arguments text[], max_arguments int);

DROP FUNCTION IF EXISTS public.llm_embed_later();

DROP FUNCTION IF EXISTS public.llm_embed_column();

DROP FUNCTION IF EXISTS public.llm_embedding_assignment(relation regclass, embedding_column text);

DROP FUNCTION IF EXISTS public.llm_embed_batch(relation regclass, text_column text, embedding_column text, model text, prompt text, tables oid[], places tid[], OUT filled bigint, OUT n_cut bigint);

DROP FUNCTION IF EXISTS public.llm_embed_find(relation regclass, text_column text, embedding_column text, OUT tables oid[], OUT places tid[]);

DROP FUNCTION IF EXISTS public.llm_embed_advance(relation regclass, text_column text, embedding_column text, model text, prompt text, batch_rows int, INOUT tables oid[], INOUT places tid[], INOUT place int, INOUT filled bigint, INOUT filled_before bigint, INOUT n_cut bigint, INOUT shown_at timestamptz, OUT ended boolean);

DROP PROCEDURE IF EXISTS public.llm_embed_missing(relation regclass, text_column text, embedding_column text, model text, prompt text, batch_rows int);

DROP FUNCTION IF EXISTS public.llm_check_embedding(relation regclass, text_column text, embedding_column text);

DROP FUNCTION IF EXISTS public.llm_embedding_cast(relation regclass, column_name text);

DROP FUNCTION IF EXISTS public.llm_tell_cut(model text, n_cut bigint, n_texts bigint);

DROP FUNCTION IF EXISTS public.llm_embed(texts text[], model text, prompt text);

DROP FUNCTION IF EXISTS public.llm_embed(text text, model text, prompt text);

DROP FUNCTION IF EXISTS public.llm_embed_texts(texts text[], model text, prompt text, OUT embeddings public.tensor[], OUT n_cut bigint);

DROP FUNCTION IF EXISTS public.llm_rows(x public.tensor);

DROP FUNCTION IF EXISTS public.llm_embed_prefix(config public.llm_model_config, prompt text);

DROP FUNCTION IF EXISTS public.llm_embed_sequences(model text, tokens int[], lengths int[], training boolean, dropout_p double precision);

DROP FUNCTION IF EXISTS public.llm_require_decoder(config public.llm_model_config, task text, hint text);

DROP FUNCTION IF EXISTS public.llm_is_encoder(config public.llm_model_config);

DROP FUNCTION IF EXISTS public.llm_refuse_row(model text, row_id bigint, problem text);

DROP FUNCTION IF EXISTS public.llm_check_row(config public.llm_model_config, row_id bigint);

DROP FUNCTION IF EXISTS public.llm_check_dataset(config public.llm_model_config, split text, block_size int);

DROP FUNCTION IF EXISTS public.llm_dataset_problems(config public.llm_model_config, block_size int);

DROP FUNCTION IF EXISTS public.llm_insert_documents(config public.llm_model_config, split text, documents text[]);

DROP FUNCTION IF EXISTS public.llm_boundaries(model text, OUT first_ids int[], OUT between_ids int[], OUT last_ids int[]);

DROP FUNCTION IF EXISTS public.llm_insert_blocks(config public.llm_model_config, split text, documents text[], block_size int, stride int);

DROP FUNCTION IF EXISTS public.llm_split_documents(given text[], validation double precision, seed bigint, keep_order boolean, OUT documents text[], OUT held_out boolean[]);

DROP FUNCTION IF EXISTS public.llm_fill_dataset(model text, query text, block_size int, stride int, validation double precision, seed bigint, keep_order boolean, OUT train_rows bigint, OUT validation_rows bigint);

DROP FUNCTION IF EXISTS public.llm_first_places(numbers int[]);

DROP FUNCTION IF EXISTS public.llm_recall(model text, split text, k int, OUT pairs bigint, OUT candidates bigint, OUT recall double precision);

DROP FUNCTION IF EXISTS public.llm_recall_rows(config public.llm_model_config, split text, OUT row_ids bigint[], OUT anchors int[], OUT positives int[]);

DROP FUNCTION IF EXISTS public.llm_check_contrast(config public.llm_model_config, batch_size int, block_size int, only_row bigint);

DROP FUNCTION IF EXISTS public.llm_contrastive_loss(model text, tokens int[], targets int[], training boolean, dropout_p double precision);

DROP FUNCTION IF EXISTS public.llm_require_encoder(config public.llm_model_config, task text, hint text);

DROP FUNCTION IF EXISTS public.llm_max_tokens(config public.llm_model_config);

DROP FUNCTION IF EXISTS public.llm_model_step(model text);

DROP FUNCTION IF EXISTS public.llm_lock_model(model text, change text);

DROP FUNCTION IF EXISTS public.llm_default_model(model text);

DROP FUNCTION IF EXISTS public.llm_check_config(model text, n_layer int, n_head int, d_model int, vocab int);

DROP FUNCTION IF EXISTS public.llm_registered_arch(model text);

DROP FUNCTION IF EXISTS public.llm_stored_config(model text);

DROP FUNCTION IF EXISTS public.llm_config(model text);

DROP FUNCTION IF EXISTS public.llm_exact_number(number double precision);

DROP FUNCTION IF EXISTS public.llm_raise(code text, message text, detail text, hint text);

DROP FUNCTION IF EXISTS public.llm_require_argument(name text, given boolean);

DROP FUNCTION IF EXISTS public.llm_require(condition boolean, message text, hint text);

DROP FUNCTION IF EXISTS public.llm_checkpoint_load(model text, id bigint);

DROP FUNCTION IF EXISTS public.llm_checkpoint_restore_tokenizer(model text, id bigint);

DROP FUNCTION IF EXISTS public.llm_checkpoint_check(model text, id bigint);

DROP FUNCTION IF EXISTS public.llm_checkpoint_restore_adapter(model text, id bigint);

DROP FUNCTION IF EXISTS public.llm_checkpoint_restore_config(config public.llm_model_config);

DROP FUNCTION IF EXISTS public.llm_checkpoint_config(model text, id bigint);

DROP FUNCTION IF EXISTS public.llm_checkpoint_verify(model text, id bigint);

DROP FUNCTION IF EXISTS public.llm_checkpoint_orphans(remove boolean);

DROP FUNCTION IF EXISTS public.llm_checkpoint_retain(model text, keep int);

DROP FUNCTION IF EXISTS public.llm_checkpoint_tokenizer(model text);

DROP FUNCTION IF EXISTS public.llm_checkpoint_encoding();

DROP FUNCTION IF EXISTS public.llm_checkpoint_data(model text);

DROP FUNCTION IF EXISTS public.llm_checkpoint_tensors(model text);

DROP FUNCTION IF EXISTS public.llm_checkpoint_metadata(model text);

DROP FUNCTION IF EXISTS public.llm_checkpoint_incomplete(model text);

DROP FUNCTION IF EXISTS public.llm_elements(shape int[]);

DROP FUNCTION IF EXISTS public.llm_checkpoint_save(model text, note text, keep int);

DROP FUNCTION IF EXISTS public.llm_checkpoint_permitted(action text);

DROP FUNCTION IF EXISTS public.llm_checkpoint_sweep();

DROP FUNCTION IF EXISTS public.llm_chat_render_inst(messages jsonb, format text, bos text, eos text, OUT texts text[], OUT is_template boolean[], OUT ending text);

DROP FUNCTION IF EXISTS public.llm_chat_render(messages jsonb, format text, default_system text, bos text, eos text, OUT texts text[], OUT is_template boolean[], OUT ending text);

DROP FUNCTION IF EXISTS public.llm_chat_stripped(content text);

DROP FUNCTION IF EXISTS public.llm_chat_format(template text, OUT format text, OUT default_system text);

DROP FUNCTION IF EXISTS public.llm_chat_normalized(template text);

DROP FUNCTION IF EXISTS public.llm_chat_end_tokens(messages jsonb, model text);

DROP FUNCTION IF EXISTS public.llm_chat_from(messages jsonb, number int);

DROP FUNCTION IF EXISTS public.llm_chat_fit(messages jsonb, model text, max_tokens int, overflow text, context int, OUT tokens int[], OUT text text);

DROP FUNCTION IF EXISTS public.llm_chat_prompt(messages jsonb, model text, OUT tokens int[], OUT text text);

DROP FUNCTION IF EXISTS public.llm_chat_parts(messages jsonb, model text, OUT texts text[], OUT is_template boolean[], OUT ending text);

DROP FUNCTION IF EXISTS public.llm_chat_encode(texts text[], is_template boolean[], model text);

DROP FUNCTION IF EXISTS public.llm_chat_special_tokens(texts text[], model text);

DROP FUNCTION IF EXISTS public.llm_chat_given_parts(rendered jsonb, OUT texts text[], OUT is_template boolean[], OUT ending text);

DROP FUNCTION IF EXISTS public.llm_chat_check(messages jsonb);

DROP FUNCTION IF EXISTS public.llm_chat_template(model text, OUT template text, OUT format text, OUT default_system text, OUT bos text, OUT eos text);

DROP FUNCTION IF EXISTS public.llm_set_chat_template(model text, template text);

DROP FUNCTION IF EXISTS public.llm_train_bpe(model text, query text, vocab int);

DROP FUNCTION IF EXISTS public.pg_llm_load_bpe_merges(path text, model text);

DROP FUNCTION IF EXISTS public.pg_llm_load_bpe_vocab(path text, model text);

DROP FUNCTION IF EXISTS public.llm_load_bpe(model text, vocab text, merges text);

DROP FUNCTION IF EXISTS public.llm_load_bpe(model text, vocab bytea, merges bytea, added jsonb, settings jsonb);

DROP FUNCTION IF EXISTS public.llm_replace_bpe_merges(model text, contents bytea);

DROP FUNCTION IF EXISTS public.llm_replace_bpe_vocab(model text, contents bytea, flags text[]);

DROP FUNCTION IF EXISTS public.llm_bpe_feed(model text, version bytea);

DROP FUNCTION IF EXISTS public.llm_bpe_settings(settings jsonb);

DROP FUNCTION IF EXISTS public.llm_bpe_handle(model text);

DROP FUNCTION IF EXISTS public.llm_token_flags(token text, flags text[]);

DROP FUNCTION IF EXISTS public.llm_bpe_version(model text);

DROP FUNCTION IF EXISTS public.llm_beam_advance(parents int[], beams int[], tokens int[], scores double precision[], end_tokens int[], beam_width int, OUT handles int[], OUT totals double precision[]);

DROP FUNCTION IF EXISTS public.llm_beam_candidates(handles int[], scores double precision[], model text, context int, n int, OUT beams int[], OUT tokens int[], OUT totals double precision[]);

DROP FUNCTION IF EXISTS public.llm_beam_search(prompt text, beam_width int, max_tokens int, model text, length_penalty double precision, early_stopping boolean);

DROP FUNCTION IF EXISTS public.llm_parameters(model text);

DROP FUNCTION IF EXISTS public.llm_add_tokens(model text, added jsonb);

DROP FUNCTION IF EXISTS public.llm_pin_base(model text);

DROP FUNCTION IF EXISTS public.llm_adapter_parameters(parameter text, matrix int[], rank int, targets text[]);

DROP FUNCTION IF EXISTS public.llm_is_target(name text, target text);

DROP FUNCTION IF EXISTS public.llm_hub_target(name text);

DROP FUNCTION IF EXISTS public.llm_adapter_targets(base text, targets text[]);

DROP FUNCTION IF EXISTS public.llm_adapter_target(parameter text);

DROP FUNCTION IF EXISTS public.llm_recognise_base(base text);

DROP FUNCTION IF EXISTS public.llm_base_identity(base text, OUT sha256 text, OUT version bytea);

DROP FUNCTION IF EXISTS public.llm_create_adapter(name text, base text, rank int, alpha double precision, targets text[], seed bigint);
