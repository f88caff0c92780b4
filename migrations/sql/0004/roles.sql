REVOKE ALL ON TABLE public.llm_arch FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_autograd_mode FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_bpe_merges FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_bpe_vocab FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_checkpoint FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_clip FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_dataset FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_dataset_load FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_heldout FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_model_config FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_param FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_param_er FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_step FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_tape FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_tensor FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_tensor_map FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_tensor_rt FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_train_log FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_train_progress FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_train_run FROM PUBLIC;

REVOKE ALL ON TABLE public.llm_train_status FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_add_tokens(model text, added jsonb) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_parameters(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_beam_search(prompt text, beam_width int, max_tokens int, model text, length_penalty double precision, early_stopping boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_beam_candidates(handles int[], scores double precision[], model text, context int, n int, OUT beams int[], OUT tokens int[], OUT totals double precision[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_beam_advance(parents int[], beams int[], tokens int[], scores double precision[], end_tokens int[], beam_width int, OUT handles int[], OUT totals double precision[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_bpe_version(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_token_flags(token text, flags text[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_bpe_handle(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_replace_bpe_vocab(model text, contents bytea, flags text[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_replace_bpe_merges(model text, contents bytea) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_load_bpe(model text, vocab bytea, merges bytea, added jsonb) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_load_bpe(model text, vocab text, merges text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.pg_llm_load_bpe_vocab(path text, model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.pg_llm_load_bpe_merges(path text, model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_bpe(model text, query text, vocab int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_sweep() FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_permitted(action text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_save(model text, note text, keep int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_elements(shape int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_incomplete(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_metadata(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_tensors(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_data(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_encoding() FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_tokenizer(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_retain(model text, keep int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_orphans(remove boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_verify(model text, id bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_config(model text, id bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_restore_config(config public.llm_model_config) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_check(model text, id bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_restore_tokenizer(model text, id bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_checkpoint_load(model text, id bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_require(condition boolean, message text, hint text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_require_argument(name text, given boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_raise(code text, message text, detail text, hint text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_exact_number(number double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_config(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_check_config(model text, n_layer int, n_head int, d_model int, vocab int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_default_model(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_lock_model(model text, change text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_model_step(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_fill_dataset(model text, query text, block_size int, stride int, validation double precision, seed bigint, keep_order boolean, OUT train_rows bigint, OUT validation_rows bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_split_documents(given text[], validation double precision, seed bigint, keep_order boolean, OUT documents text[], OUT held_out boolean[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_insert_blocks(config public.llm_model_config, split text, documents text[], block_size int, stride int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_boundaries(model text, OUT first_ids int[], OUT between_ids int[], OUT last_ids int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_insert_documents(config public.llm_model_config, split text, documents text[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_dataset_problems(config public.llm_model_config, block_size int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_check_dataset(config public.llm_model_config, split text, block_size int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_check_row(config public.llm_model_config, row_id bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_refuse_row(model text, row_id bigint, problem text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_windows(n int, width int, stride int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_pin_statement(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_evaluate(model text, split text, stride int, query text, OUT tokens bigint, OUT nll double precision, OUT perplexity double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_evaluation_batches(config public.llm_model_config, split text, stride int, query text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_perplexity(model text, text text, stride int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_export_tensors(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_export_data(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_export_file(path text, model text, format text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.pg_llm_export_npz(path text, model text, gzip boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.pg_llm_export_safetensors(path text, model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_copy_model(model text, new_name text, optimizer boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_finetune_name(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_finetune(model text, query text, steps int, new_name text, block_size int, stride int, validation double precision, batch_size int, grad_accum int, lr_max double precision, warmup int, schedule text, min_lr double precision, dropout_p double precision, wd double precision, grad_clip double precision, decay text, seed bigint, log_every int, OUT name text, OUT perplexity_before double precision, OUT perplexity_after double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_forward(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_forward_gpt2(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_hidden_gpt2(model text, tokens int[], n_blocks int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_parameters_gpt2(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_forward_gpt3(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_hidden_gpt3(model text, tokens int[], n_blocks int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_parameters_gpt3(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_forward_microgpt(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_hidden_microgpt(model text, tokens int[], n_blocks int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_parameters_microgpt(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generation_open(prompt text, model text, OUT handle int, OUT n_prompt int, OUT chosen text, OUT context int, OUT end_tokens int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generation_begin(prompt text, model text, max_tokens int, temperature double precision, top_k int, top_p double precision, seed bigint, stop text[], repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision, OUT handle int, OUT chosen text, OUT context int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generation_pass(handles int[], model text, tokens int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generation_logits(handle int, model text, context int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generations_logits(handles int[], model text, context int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generation_next(handle int, logits public.tensor, model text, OUT step int, OUT token_id int, OUT token text, OUT text text, OUT is_complete boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generate_stream(prompt text, max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generate(prompt text, max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generate_together(prompts text[], max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_generate(prompts text[], max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_hidden(model text, tokens int[], layer int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_embed_text(text text, model text, layer int, pooling text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_sum_rows(x public.tensor) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_file_name(name text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_require_tensors(tensors jsonb) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_plan(model text, tensors jsonb, megatron_version double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_source_shape(shape int[], how text, n_sources int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_check(model text, tensors jsonb, megatron_version double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_tie(model text, tied boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_begin(model text, tensors jsonb, tied boolean, megatron_version double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_parts(shape int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_part(model text, name text, first_row int, data public.tensor) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_end(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_file_limit(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_value(path text, sources text[], how text, n_head int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_heads_equal(path text, tensors jsonb, vocab int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_import_file(path text, model text, formats text[], megatron_version double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.pg_llm_import_npz(path text, model text, megatron_version double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.pg_llm_import_safetensors(path text, model text, megatron_version double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_shape_text(value anyarray) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_check_tokens(config public.llm_model_config, tokens int[], targets int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_recorded_loss(config public.llm_model_config, tokens int[], targets int[], dropout_p double precision, training boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_loss(model text, tokens int[], targets int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_loss(model text, tokens int[], targets int[], n_layer int, n_head int, d int, vocab int, dropout_p double precision, training boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_logits(tokens int[], model text, n_layer int, n_head int, d_model int, vocab_size int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_create_model(model text, arch text, n_layer int, n_head int, d_model int, n_positions int, vocab int, seed bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_init_model(model text, seed bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_check_size(config public.llm_model_config) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_initial_tensor(shape int[], init text, std double precision, seed bigint, name text, first_row int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_drop_model(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_rename_model(model text, new_name text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_prune_runs(model text, keep int, OUT runs bigint, OUT passes bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_prune_passes(run_id bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_count(shape int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_require_room(task text, n_weights numeric, disk_copies int, memory_copies int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_require_room_to_fill(model text, documents text[], block_size int, stride int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_require_room_for(model text, task text, disk_copies int, memory_copies int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_tape_flush(run bigint, model text, step bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_tape_forget(model text, before bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_forget_tensors(passes bigint[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_tape_backward(start_id bigint, scale double precision) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_backprop(start_id bigint, model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_materialize_params(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_accumulate_grads(model text, workers int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_prune_autograd_state(workers int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_tokenizer_kind(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_check_tokenizer(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_end_tokens(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_end_token(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_begin_token(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_build_char_tokenizer(model text, query text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_subquery(query text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_query_documents(query text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_encode_characters(documents text[], model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_encode_documents(documents text[], model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_encode(text text, model text, special boolean, bos boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_token_bytes(ids int[], model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_known_tokens(ids int[], model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_decode(ids int[], model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train(model text, n_steps int, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, grad_clip double precision, grad_workers int, prune_workers int, batch_size int, grad_accum int, block_size int, schedule text, min_lr double precision, decay text, seed bigint, data_order text, start_step bigint, total_steps bigint, log_every int, keep_grad boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_begin(model text, arguments jsonb) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_hyperparameters(arguments jsonb, OUT n_steps bigint, OUT dropout_p double precision, OUT beta1 double precision, OUT beta2 double precision, OUT eps double precision, OUT wd double precision, OUT lr_max double precision, OUT warmup int, OUT grad_clip double precision, OUT grad_workers int, OUT prune_workers int, OUT batch_size int, OUT grad_accum int, OUT block_size int, OUT schedule text, OUT min_lr double precision, OUT decay text, OUT seed bigint, OUT data_order text, OUT start_step bigint, OUT total_steps bigint, OUT log_every int, OUT keep_grad boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_check_hyperparameters(config public.llm_model_config, arguments jsonb) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_chunk(run_id bigint, n_steps bigint, expected bytea) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_clear(model text, workers int) FROM PUBLIC;

REVOKE EXECUTE ON PROCEDURE public.llm_train_loop(model text, n_steps int, commit_every int, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, grad_clip double precision, grad_workers int, prune_workers int, batch_size int, grad_accum int, block_size int, schedule text, min_lr double precision, decay text, seed bigint, data_order text, start_step bigint, total_steps bigint, log_every int, keep_grad boolean) FROM PUBLIC;

REVOKE EXECUTE ON PROCEDURE public.llm_train_resume(run_id bigint, commit_every int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_step(model text, batch_id bigint, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, total_steps bigint, grad_clip double precision, grad_workers int, prune_workers int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_steps(run public.llm_train_run, last_step bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_data(model text, only_row bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_row_hash(id bigint, tokens int[], target int[]) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_rows(run public.llm_train_run, OUT row_ids bigint[], OUT version bytea) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_raise_missing(run_id bigint, missing int8multirange) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_picks(n_rows bigint, seed bigint, first_row bigint, n_picks int, data_order text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_train_batch(row_ids bigint[], seed bigint, first_row bigint, n_rows int, block_size int, data_order text, OUT tokens int[], OUT targets int[], OUT n_targets bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_pad(ids int[], width int, filler int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_fingerprint(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_pin(model text, training boolean) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_check_weights(model text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_weight(model text, name text) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_lock_rows(model text, fingerprint bytea) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_stored_as_written(model text, n_written bigint, command bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_written(model text, n_written bigint, command bigint) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_recognise(model text, known bytea) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_write_back(model text, fingerprint bytea, step bigint, keep_grad boolean, workers int) FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_release() FROM PUBLIC;

REVOKE EXECUTE ON FUNCTION public.llm_autograd_mode_write() FROM PUBLIC;

DO $role$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'llm_reader') THEN
        CREATE ROLE llm_reader;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role llm_reader is not created: this takes CREATEROLE';
    WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database's migration was faster
END
$role$;

DO $grants$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'llm_reader') THEN
        RETURN;
    END IF;
    GRANT EXECUTE ON FUNCTION public.llm_accumulate_grads(model text, workers int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_add_tokens(model text, added jsonb) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_autograd_mode_write() TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_backprop(start_id bigint, model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_beam_advance(parents int[], beams int[], tokens int[], scores double precision[], end_tokens int[], beam_width int, OUT handles int[], OUT totals double precision[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_beam_candidates(handles int[], scores double precision[], model text, context int, n int, OUT beams int[], OUT tokens int[], OUT totals double precision[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_beam_search(prompt text, beam_width int, max_tokens int, model text, length_penalty double precision, early_stopping boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_begin_token(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_boundaries(model text, OUT first_ids int[], OUT between_ids int[], OUT last_ids int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_bpe_handle(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_bpe_version(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_build_char_tokenizer(model text, query text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_check_config(model text, n_layer int, n_head int, d_model int, vocab int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_check_dataset(config public.llm_model_config, split text, block_size int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_check_hyperparameters(config public.llm_model_config, arguments jsonb) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_check_row(config public.llm_model_config, row_id bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_check_size(config public.llm_model_config) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_check_tokenizer(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_check_tokens(config public.llm_model_config, tokens int[], targets int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_check_weights(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_check(model text, id bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_config(model text, id bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_data(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_encoding() TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_incomplete(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_load(model text, id bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_metadata(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_orphans(remove boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_permitted(action text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_restore_config(config public.llm_model_config) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_restore_tokenizer(model text, id bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_retain(model text, keep int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_save(model text, note text, keep int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_sweep() TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_tensors(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_tokenizer(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_verify(model text, id bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_config(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_copy_model(model text, new_name text, optimizer boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_count(shape int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_create_model(model text, arch text, n_layer int, n_head int, d_model int, n_positions int, vocab int, seed bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_dataset_problems(config public.llm_model_config, block_size int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_decode(ids int[], model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_default_model(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_drop_model(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_elements(shape int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_embed_text(text text, model text, layer int, pooling text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_encode(text text, model text, special boolean, bos boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_encode_characters(documents text[], model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_encode_documents(documents text[], model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_end_token(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_end_tokens(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_evaluate(model text, split text, stride int, query text, OUT tokens bigint, OUT nll double precision, OUT perplexity double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_evaluation_batches(config public.llm_model_config, split text, stride int, query text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_exact_number(number double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_export_data(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_export_file(path text, model text, format text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_export_tensors(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_file_limit(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_file_name(name text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_fill_dataset(model text, query text, block_size int, stride int, validation double precision, seed bigint, keep_order boolean, OUT train_rows bigint, OUT validation_rows bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_finetune(model text, query text, steps int, new_name text, block_size int, stride int, validation double precision, batch_size int, grad_accum int, lr_max double precision, warmup int, schedule text, min_lr double precision, dropout_p double precision, wd double precision, grad_clip double precision, decay text, seed bigint, log_every int, OUT name text, OUT perplexity_before double precision, OUT perplexity_after double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_finetune_name(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_fingerprint(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_forget_tensors(passes bigint[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_forward(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_forward_gpt2(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_forward_gpt3(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_forward_microgpt(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generate(prompt text, max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generate(prompts text[], max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generate_stream(prompt text, max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generate_together(prompts text[], max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generation_begin(prompt text, model text, max_tokens int, temperature double precision, top_k int, top_p double precision, seed bigint, stop text[], repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision, OUT handle int, OUT chosen text, OUT context int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generation_logits(handle int, model text, context int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generation_next(handle int, logits public.tensor, model text, OUT step int, OUT token_id int, OUT token text, OUT text text, OUT is_complete boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generation_open(prompt text, model text, OUT handle int, OUT n_prompt int, OUT chosen text, OUT context int, OUT end_tokens int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generation_pass(handles int[], model text, tokens int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_generations_logits(handles int[], model text, context int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_hidden(model text, tokens int[], layer int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_hidden_gpt2(model text, tokens int[], n_blocks int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_hidden_gpt3(model text, tokens int[], n_blocks int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_hidden_microgpt(model text, tokens int[], n_blocks int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_hyperparameters(arguments jsonb, OUT n_steps bigint, OUT dropout_p double precision, OUT beta1 double precision, OUT beta2 double precision, OUT eps double precision, OUT wd double precision, OUT lr_max double precision, OUT warmup int, OUT grad_clip double precision, OUT grad_workers int, OUT prune_workers int, OUT batch_size int, OUT grad_accum int, OUT block_size int, OUT schedule text, OUT min_lr double precision, OUT decay text, OUT seed bigint, OUT data_order text, OUT start_step bigint, OUT total_steps bigint, OUT log_every int, OUT keep_grad boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_begin(model text, tensors jsonb, tied boolean, megatron_version double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_check(model text, tensors jsonb, megatron_version double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_end(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_file(path text, model text, formats text[], megatron_version double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_heads_equal(path text, tensors jsonb, vocab int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_part(model text, name text, first_row int, data public.tensor) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_plan(model text, tensors jsonb, megatron_version double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_source_shape(shape int[], how text, n_sources int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_tie(model text, tied boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_import_value(path text, sources text[], how text, n_head int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_init_model(model text, seed bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_initial_tensor(shape int[], init text, std double precision, seed bigint, name text, first_row int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_insert_blocks(config public.llm_model_config, split text, documents text[], block_size int, stride int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_insert_documents(config public.llm_model_config, split text, documents text[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_known_tokens(ids int[], model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_load_bpe(model text, vocab bytea, merges bytea, added jsonb) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_load_bpe(model text, vocab text, merges text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_lock_model(model text, change text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_lock_rows(model text, fingerprint bytea) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_logits(tokens int[], model text, n_layer int, n_head int, d_model int, vocab_size int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_loss(model text, tokens int[], targets int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_loss(model text, tokens int[], targets int[], n_layer int, n_head int, d int, vocab int, dropout_p double precision, training boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_materialize_params(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_model_step(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_pad(ids int[], width int, filler int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_parameters(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_parameters_gpt2(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_parameters_gpt3(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_parameters_microgpt(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_parts(shape int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_perplexity(model text, text text, stride int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_pin(model text, training boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_pin_statement(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_prune_autograd_state(workers int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_prune_passes(run_id bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_prune_runs(model text, keep int, OUT runs bigint, OUT passes bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_query_documents(query text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_raise(code text, message text, detail text, hint text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_raise_missing(run_id bigint, missing int8multirange) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_recognise(model text, known bytea) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_recorded_loss(config public.llm_model_config, tokens int[], targets int[], dropout_p double precision, training boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_refuse_row(model text, row_id bigint, problem text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_release() TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_rename_model(model text, new_name text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_replace_bpe_merges(model text, contents bytea) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_replace_bpe_vocab(model text, contents bytea, flags text[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_require(condition boolean, message text, hint text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_require_argument(name text, given boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_require_room(task text, n_weights numeric, disk_copies int, memory_copies int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_require_room_for(model text, task text, disk_copies int, memory_copies int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_require_room_to_fill(model text, documents text[], block_size int, stride int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_require_tensors(tensors jsonb) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_row_hash(id bigint, tokens int[], target int[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_shape_text(value anyarray) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_split_documents(given text[], validation double precision, seed bigint, keep_order boolean, OUT documents text[], OUT held_out boolean[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_stored_as_written(model text, n_written bigint, command bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_subquery(query text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_sum_rows(x public.tensor) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_tape_backward(start_id bigint, scale double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_tape_flush(run bigint, model text, step bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_tape_forget(model text, before bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_token_bytes(ids int[], model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_token_flags(token text, flags text[]) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_tokenizer_kind(model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train(model text, n_steps int, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, grad_clip double precision, grad_workers int, prune_workers int, batch_size int, grad_accum int, block_size int, schedule text, min_lr double precision, decay text, seed bigint, data_order text, start_step bigint, total_steps bigint, log_every int, keep_grad boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_batch(row_ids bigint[], seed bigint, first_row bigint, n_rows int, block_size int, data_order text, OUT tokens int[], OUT targets int[], OUT n_targets bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_begin(model text, arguments jsonb) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_bpe(model text, query text, vocab int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_chunk(run_id bigint, n_steps bigint, expected bytea) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_clear(model text, workers int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_data(model text, only_row bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_picks(n_rows bigint, seed bigint, first_row bigint, n_picks int, data_order text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_rows(run public.llm_train_run, OUT row_ids bigint[], OUT version bytea) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_step(model text, batch_id bigint, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, total_steps bigint, grad_clip double precision, grad_workers int, prune_workers int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_train_steps(run public.llm_train_run, last_step bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_weight(model text, name text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_windows(n int, width int, stride int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_write_back(model text, fingerprint bytea, step bigint, keep_grad boolean, workers int) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.llm_written(model text, n_written bigint, command bigint) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.pg_llm_export_npz(path text, model text, gzip boolean) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.pg_llm_export_safetensors(path text, model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.pg_llm_import_npz(path text, model text, megatron_version double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.pg_llm_import_safetensors(path text, model text, megatron_version double precision) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.pg_llm_load_bpe_merges(path text, model text) TO llm_reader;
    GRANT EXECUTE ON FUNCTION public.pg_llm_load_bpe_vocab(path text, model text) TO llm_reader;
    GRANT EXECUTE ON PROCEDURE public.llm_train_loop(model text, n_steps int, commit_every int, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, grad_clip double precision, grad_workers int, prune_workers int, batch_size int, grad_accum int, block_size int, schedule text, min_lr double precision, decay text, seed bigint, data_order text, start_step bigint, total_steps bigint, log_every int, keep_grad boolean) TO llm_reader;
    GRANT EXECUTE ON PROCEDURE public.llm_train_resume(run_id bigint, commit_every int) TO llm_reader;
    GRANT USAGE ON SEQUENCE public.llm_pass_seq TO llm_reader;
    GRANT SELECT ON TABLE public.llm_arch TO llm_reader;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_autograd_mode TO llm_reader;
    GRANT SELECT ON TABLE public.llm_bpe_merges TO llm_reader;
    GRANT SELECT ON TABLE public.llm_bpe_vocab TO llm_reader;
    GRANT SELECT ON TABLE public.llm_checkpoint TO llm_reader;
    GRANT SELECT ON TABLE public.llm_clip TO llm_reader;
    GRANT SELECT ON TABLE public.llm_dataset TO llm_reader;
    GRANT SELECT ON TABLE public.llm_dataset_load TO llm_reader;
    GRANT SELECT ON TABLE public.llm_heldout TO llm_reader;
    GRANT SELECT ON TABLE public.llm_model_config TO llm_reader;
    GRANT SELECT ON TABLE public.llm_param TO llm_reader;
    GRANT SELECT ON TABLE public.llm_param_er TO llm_reader;
    GRANT SELECT ON TABLE public.llm_sql_version TO llm_reader;
    GRANT SELECT ON TABLE public.llm_step TO llm_reader;
    GRANT SELECT ON TABLE public.llm_tape TO llm_reader;
    GRANT SELECT ON TABLE public.llm_tensor TO llm_reader;
    GRANT SELECT ON TABLE public.llm_tensor_map TO llm_reader;
    GRANT SELECT ON TABLE public.llm_tensor_rt TO llm_reader;
    GRANT SELECT ON TABLE public.llm_train_log TO llm_reader;
    GRANT SELECT ON TABLE public.llm_train_progress TO llm_reader;
    GRANT SELECT ON TABLE public.llm_train_run TO llm_reader;
    GRANT SELECT ON TABLE public.llm_train_status TO llm_reader;
END
$grants$;

DO $grants$
DECLARE
    routine pg_catalog.regprocedure;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'llm_reader') THEN
        RETURN;
    END IF;
    FOR routine IN
        SELECT p.oid
        FROM pg_catalog.pg_depend AS d
        INNER JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pg_llm'
        INNER JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND d.deptype = 'e'
            AND p.proname !~ '^(pg_llm_read_file|pg_llm_file_(tensor|bytes|metadata|sha256)|pg_llm_checkpoint_|pg_llm_progress|pg_llm_try_lock|pg_llm_arena_adamw|pg_llm_arena_saved)'
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO llm_reader', routine);
    END LOOP;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role llm_reader is not granted pg_llm''s functions: this takes the database''s owner';
END
$grants$;

DO $role$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'llm_trainer') THEN
        CREATE ROLE llm_trainer;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role llm_trainer is not created: this takes CREATEROLE';
    WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database's migration was faster
END
$role$;

DO $grants$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'llm_trainer') THEN
        RETURN;
    END IF;
    GRANT EXECUTE ON FUNCTION public.llm_accumulate_grads(model text, workers int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_add_tokens(model text, added jsonb) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_autograd_mode_write() TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_backprop(start_id bigint, model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_beam_advance(parents int[], beams int[], tokens int[], scores double precision[], end_tokens int[], beam_width int, OUT handles int[], OUT totals double precision[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_beam_candidates(handles int[], scores double precision[], model text, context int, n int, OUT beams int[], OUT tokens int[], OUT totals double precision[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_beam_search(prompt text, beam_width int, max_tokens int, model text, length_penalty double precision, early_stopping boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_begin_token(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_boundaries(model text, OUT first_ids int[], OUT between_ids int[], OUT last_ids int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_bpe_handle(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_bpe_version(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_build_char_tokenizer(model text, query text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_check_config(model text, n_layer int, n_head int, d_model int, vocab int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_check_dataset(config public.llm_model_config, split text, block_size int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_check_hyperparameters(config public.llm_model_config, arguments jsonb) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_check_row(config public.llm_model_config, row_id bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_check_size(config public.llm_model_config) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_check_tokenizer(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_check_tokens(config public.llm_model_config, tokens int[], targets int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_check_weights(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_check(model text, id bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_config(model text, id bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_data(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_encoding() TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_incomplete(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_load(model text, id bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_metadata(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_orphans(remove boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_permitted(action text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_restore_config(config public.llm_model_config) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_restore_tokenizer(model text, id bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_retain(model text, keep int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_save(model text, note text, keep int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_sweep() TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_tensors(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_tokenizer(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_checkpoint_verify(model text, id bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_config(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_copy_model(model text, new_name text, optimizer boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_count(shape int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_create_model(model text, arch text, n_layer int, n_head int, d_model int, n_positions int, vocab int, seed bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_dataset_problems(config public.llm_model_config, block_size int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_decode(ids int[], model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_default_model(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_drop_model(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_elements(shape int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_embed_text(text text, model text, layer int, pooling text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_encode(text text, model text, special boolean, bos boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_encode_characters(documents text[], model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_encode_documents(documents text[], model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_end_token(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_end_tokens(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_evaluate(model text, split text, stride int, query text, OUT tokens bigint, OUT nll double precision, OUT perplexity double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_evaluation_batches(config public.llm_model_config, split text, stride int, query text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_exact_number(number double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_export_data(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_export_file(path text, model text, format text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_export_tensors(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_file_limit(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_file_name(name text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_fill_dataset(model text, query text, block_size int, stride int, validation double precision, seed bigint, keep_order boolean, OUT train_rows bigint, OUT validation_rows bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_finetune(model text, query text, steps int, new_name text, block_size int, stride int, validation double precision, batch_size int, grad_accum int, lr_max double precision, warmup int, schedule text, min_lr double precision, dropout_p double precision, wd double precision, grad_clip double precision, decay text, seed bigint, log_every int, OUT name text, OUT perplexity_before double precision, OUT perplexity_after double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_finetune_name(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_fingerprint(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_forget_tensors(passes bigint[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_forward(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_forward_gpt2(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_forward_gpt3(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_forward_microgpt(model text, tokens int[], training boolean, targets int[], dropout_p double precision, last_only boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generate(prompt text, max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generate(prompts text[], max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generate_stream(prompt text, max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generate_together(prompts text[], max_tokens int, temperature double precision, top_k int, top_p double precision, model text, seed bigint, stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generation_begin(prompt text, model text, max_tokens int, temperature double precision, top_k int, top_p double precision, seed bigint, stop text[], repetition_penalty double precision, presence_penalty double precision, frequency_penalty double precision, OUT handle int, OUT chosen text, OUT context int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generation_logits(handle int, model text, context int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generation_next(handle int, logits public.tensor, model text, OUT step int, OUT token_id int, OUT token text, OUT text text, OUT is_complete boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generation_open(prompt text, model text, OUT handle int, OUT n_prompt int, OUT chosen text, OUT context int, OUT end_tokens int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generation_pass(handles int[], model text, tokens int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_generations_logits(handles int[], model text, context int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_hidden(model text, tokens int[], layer int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_hidden_gpt2(model text, tokens int[], n_blocks int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_hidden_gpt3(model text, tokens int[], n_blocks int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_hidden_microgpt(model text, tokens int[], n_blocks int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_hyperparameters(arguments jsonb, OUT n_steps bigint, OUT dropout_p double precision, OUT beta1 double precision, OUT beta2 double precision, OUT eps double precision, OUT wd double precision, OUT lr_max double precision, OUT warmup int, OUT grad_clip double precision, OUT grad_workers int, OUT prune_workers int, OUT batch_size int, OUT grad_accum int, OUT block_size int, OUT schedule text, OUT min_lr double precision, OUT decay text, OUT seed bigint, OUT data_order text, OUT start_step bigint, OUT total_steps bigint, OUT log_every int, OUT keep_grad boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_begin(model text, tensors jsonb, tied boolean, megatron_version double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_check(model text, tensors jsonb, megatron_version double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_end(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_file(path text, model text, formats text[], megatron_version double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_heads_equal(path text, tensors jsonb, vocab int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_part(model text, name text, first_row int, data public.tensor) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_plan(model text, tensors jsonb, megatron_version double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_source_shape(shape int[], how text, n_sources int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_tie(model text, tied boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_import_value(path text, sources text[], how text, n_head int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_init_model(model text, seed bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_initial_tensor(shape int[], init text, std double precision, seed bigint, name text, first_row int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_insert_blocks(config public.llm_model_config, split text, documents text[], block_size int, stride int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_insert_documents(config public.llm_model_config, split text, documents text[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_known_tokens(ids int[], model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_load_bpe(model text, vocab bytea, merges bytea, added jsonb) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_load_bpe(model text, vocab text, merges text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_lock_model(model text, change text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_lock_rows(model text, fingerprint bytea) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_logits(tokens int[], model text, n_layer int, n_head int, d_model int, vocab_size int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_loss(model text, tokens int[], targets int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_loss(model text, tokens int[], targets int[], n_layer int, n_head int, d int, vocab int, dropout_p double precision, training boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_materialize_params(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_model_step(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_pad(ids int[], width int, filler int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_parameters(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_parameters_gpt2(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_parameters_gpt3(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_parameters_microgpt(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_parts(shape int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_perplexity(model text, text text, stride int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_pin(model text, training boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_pin_statement(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_prune_autograd_state(workers int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_prune_passes(run_id bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_prune_runs(model text, keep int, OUT runs bigint, OUT passes bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_query_documents(query text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_raise(code text, message text, detail text, hint text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_raise_missing(run_id bigint, missing int8multirange) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_recognise(model text, known bytea) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_recorded_loss(config public.llm_model_config, tokens int[], targets int[], dropout_p double precision, training boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_refuse_row(model text, row_id bigint, problem text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_release() TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_rename_model(model text, new_name text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_replace_bpe_merges(model text, contents bytea) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_replace_bpe_vocab(model text, contents bytea, flags text[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_require(condition boolean, message text, hint text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_require_argument(name text, given boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_require_room(task text, n_weights numeric, disk_copies int, memory_copies int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_require_room_for(model text, task text, disk_copies int, memory_copies int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_require_room_to_fill(model text, documents text[], block_size int, stride int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_require_tensors(tensors jsonb) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_row_hash(id bigint, tokens int[], target int[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_shape_text(value anyarray) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_split_documents(given text[], validation double precision, seed bigint, keep_order boolean, OUT documents text[], OUT held_out boolean[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_stored_as_written(model text, n_written bigint, command bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_subquery(query text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_sum_rows(x public.tensor) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_tape_backward(start_id bigint, scale double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_tape_flush(run bigint, model text, step bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_tape_forget(model text, before bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_token_bytes(ids int[], model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_token_flags(token text, flags text[]) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_tokenizer_kind(model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train(model text, n_steps int, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, grad_clip double precision, grad_workers int, prune_workers int, batch_size int, grad_accum int, block_size int, schedule text, min_lr double precision, decay text, seed bigint, data_order text, start_step bigint, total_steps bigint, log_every int, keep_grad boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_batch(row_ids bigint[], seed bigint, first_row bigint, n_rows int, block_size int, data_order text, OUT tokens int[], OUT targets int[], OUT n_targets bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_begin(model text, arguments jsonb) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_bpe(model text, query text, vocab int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_chunk(run_id bigint, n_steps bigint, expected bytea) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_clear(model text, workers int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_data(model text, only_row bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_picks(n_rows bigint, seed bigint, first_row bigint, n_picks int, data_order text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_rows(run public.llm_train_run, OUT row_ids bigint[], OUT version bytea) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_step(model text, batch_id bigint, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, total_steps bigint, grad_clip double precision, grad_workers int, prune_workers int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_train_steps(run public.llm_train_run, last_step bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_weight(model text, name text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_windows(n int, width int, stride int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_write_back(model text, fingerprint bytea, step bigint, keep_grad boolean, workers int) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.llm_written(model text, n_written bigint, command bigint) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.pg_llm_export_npz(path text, model text, gzip boolean) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.pg_llm_export_safetensors(path text, model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.pg_llm_import_npz(path text, model text, megatron_version double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.pg_llm_import_safetensors(path text, model text, megatron_version double precision) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.pg_llm_load_bpe_merges(path text, model text) TO llm_trainer;
    GRANT EXECUTE ON FUNCTION public.pg_llm_load_bpe_vocab(path text, model text) TO llm_trainer;
    GRANT EXECUTE ON PROCEDURE public.llm_train_loop(model text, n_steps int, commit_every int, n_layer int, n_head int, d int, vocab int, dropout_p double precision, beta1 double precision, beta2 double precision, eps double precision, wd double precision, lr_max double precision, warmup int, grad_clip double precision, grad_workers int, prune_workers int, batch_size int, grad_accum int, block_size int, schedule text, min_lr double precision, decay text, seed bigint, data_order text, start_step bigint, total_steps bigint, log_every int, keep_grad boolean) TO llm_trainer;
    GRANT EXECUTE ON PROCEDURE public.llm_train_resume(run_id bigint, commit_every int) TO llm_trainer;
    GRANT USAGE ON SEQUENCE public.llm_pass_seq TO llm_trainer;
    GRANT SELECT ON TABLE public.llm_arch TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_autograd_mode TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_bpe_merges TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_bpe_vocab TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_checkpoint TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_clip TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_dataset TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_dataset_load TO llm_trainer;
    GRANT SELECT ON TABLE public.llm_heldout TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_model_config TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_param TO llm_trainer;
    GRANT SELECT ON TABLE public.llm_param_er TO llm_trainer;
    GRANT SELECT ON TABLE public.llm_sql_version TO llm_trainer;
    GRANT SELECT ON TABLE public.llm_step TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tape TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tensor TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tensor_map TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tensor_rt TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_train_log TO llm_trainer;
    GRANT SELECT ON TABLE public.llm_train_progress TO llm_trainer;
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_train_run TO llm_trainer;
    GRANT SELECT ON TABLE public.llm_train_status TO llm_trainer;
END
$grants$;

DO $grants$
DECLARE
    routine pg_catalog.regprocedure;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'llm_trainer') THEN
        RETURN;
    END IF;
    FOR routine IN
        SELECT p.oid
        FROM pg_catalog.pg_depend AS d
        INNER JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pg_llm'
        INNER JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND d.deptype = 'e'
            AND p.proname !~ '^(pg_llm_read_file|pg_llm_checkpoint_(files|name|orphans))'
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO llm_trainer', routine);
    END LOOP;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role llm_trainer is not granted pg_llm''s functions: this takes the database''s owner';
END
$grants$;
