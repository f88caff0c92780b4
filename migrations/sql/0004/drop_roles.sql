DO $grants$
DECLARE
    declared CONSTANT text[] := ARRAY[
        'llm_create_adapter(text, text, int, double precision, text[], bigint)', 'llm_base_identity(text)',
        'llm_recognise_base(text)', 'llm_adapter_target(text)', 'llm_adapter_targets(text, text[])',
        'llm_hub_target(text)', 'llm_is_target(text, text)', 'llm_adapter_parameters(text, int[], int, text[])',
        'llm_pin_base(text)', 'llm_add_tokens(text, jsonb)', 'llm_parameters(text)',
        'llm_beam_search(text, int, int, text, double precision, boolean)',
        'llm_beam_candidates(int[], double precision[], text, int, int)',
        'llm_beam_advance(int[], int[], int[], double precision[], int[], int)', 'llm_bpe_version(text)',
        'llm_token_flags(text, text[])', 'llm_bpe_handle(text)', 'llm_bpe_settings(jsonb)',
        'llm_bpe_feed(text, bytea)', 'llm_replace_bpe_vocab(text, bytea, text[])',
        'llm_replace_bpe_merges(text, bytea)', 'llm_load_bpe(text, bytea, bytea, jsonb, jsonb)',
        'llm_load_bpe(text, text, text)', 'pg_llm_load_bpe_vocab(text, text)', 'pg_llm_load_bpe_merges(text, text)',
        'llm_train_bpe(text, text, int)', 'llm_set_chat_template(text, text)', 'llm_chat_template(text)',
        'llm_chat_check(jsonb)', 'llm_chat_given_parts(jsonb)', 'llm_chat_special_tokens(text[], text)',
        'llm_chat_encode(text[], boolean[], text)', 'llm_chat_parts(jsonb, text)', 'llm_chat_prompt(jsonb, text)',
        'llm_chat_fit(jsonb, text, int, text, int)', 'llm_chat_from(jsonb, int)', 'llm_chat_end_tokens(jsonb, text)',
        'llm_chat_normalized(text)', 'llm_chat_format(text)', 'llm_chat_stripped(text)',
        'llm_chat_render(jsonb, text, text, text, text)', 'llm_chat_render_inst(jsonb, text, text, text)',
        'llm_checkpoint_sweep()', 'llm_checkpoint_permitted(text)', 'llm_checkpoint_save(text, text, int)',
        'llm_elements(int[])', 'llm_checkpoint_incomplete(text)', 'llm_checkpoint_metadata(text)',
        'llm_checkpoint_tensors(text)', 'llm_checkpoint_data(text)', 'llm_checkpoint_encoding()',
        'llm_checkpoint_tokenizer(text)', 'llm_checkpoint_retain(text, int)', 'llm_checkpoint_orphans(boolean)',
        'llm_checkpoint_verify(text, bigint)', 'llm_checkpoint_config(text, bigint)',
        'llm_checkpoint_restore_config(public.llm_model_config)', 'llm_checkpoint_restore_adapter(text, bigint)',
        'llm_checkpoint_check(text, bigint)', 'llm_checkpoint_restore_tokenizer(text, bigint)',
        'llm_checkpoint_load(text, bigint)', 'llm_require(boolean, text, text)', 'llm_require_argument(text, boolean)',
        'llm_raise(text, text, text, text)', 'llm_exact_number(double precision)', 'llm_config(text)',
        'llm_stored_config(text)', 'llm_registered_arch(text)', 'llm_check_config(text, int, int, int, int)',
        'llm_default_model(text)', 'llm_lock_model(text, text)', 'llm_model_step(text)',
        'llm_max_tokens(public.llm_model_config)', 'llm_require_encoder(public.llm_model_config, text, text)',
        'llm_contrastive_loss(text, int[], int[], boolean, double precision)',
        'llm_check_contrast(public.llm_model_config, int, int, bigint)',
        'llm_recall_rows(public.llm_model_config, text)', 'llm_recall(text, text, int)', 'llm_first_places(int[])',
        'llm_fill_dataset(text, text, int, int, double precision, bigint, boolean)',
        'llm_split_documents(text[], double precision, bigint, boolean)',
        'llm_insert_blocks(public.llm_model_config, text, text[], int, int)', 'llm_boundaries(text)',
        'llm_insert_documents(public.llm_model_config, text, text[])',
        'llm_dataset_problems(public.llm_model_config, int)', 'llm_check_dataset(public.llm_model_config, text, int)',
        'llm_check_row(public.llm_model_config, bigint)', 'llm_refuse_row(text, bigint, text)',
        'llm_is_encoder(public.llm_model_config)', 'llm_require_decoder(public.llm_model_config, text, text)',
        'llm_embed_sequences(text, int[], int[], boolean, double precision)',
        'llm_embed_prefix(public.llm_model_config, text)', 'llm_rows(public.tensor)',
        'llm_embed_texts(text[], text, text)', 'llm_embed(text, text, text)', 'llm_embed(text[], text, text)',
        'llm_tell_cut(text, bigint, bigint)', 'llm_embedding_cast(regclass, text)',
        'llm_check_embedding(regclass, text, text)', 'llm_embed_missing(regclass, text, text, text, text, int)',
        'llm_embed_advance(regclass, text, text, text, text, int, oid[], tid[], int, bigint, bigint, bigint, timestamptz)',
        'llm_embed_find(regclass, text, text)', 'llm_embed_batch(regclass, text, text, text, text, oid[], tid[])',
        'llm_embedding_assignment(regclass, text)', 'llm_embed_column()', 'llm_embed_later()',
        'llm_check_embed_trigger(text, text, text, text, text[], int)', 'llm_windows(int, int, int)',
        'llm_pin_statement(text)', 'llm_evaluate(text, text, int, text)', 'llm_log_evaluation(text, text, int)',
        'llm_evaluation_batches(public.llm_model_config, text, int, text)', 'llm_perplexity(text, text, int)',
        'llm_export_tensors(text)', 'llm_export_first(text)', 'llm_export_is_bf16(text, text, text)',
        'llm_export_data(text)', 'llm_export_value(text, text, text)', 'llm_export_whole(text, text)',
        'llm_export_file(text, text, text)', 'pg_llm_export_npz(text, text, boolean)',
        'pg_llm_export_safetensors(text, text)', 'llm_copy_model(text, text, boolean)', 'llm_claim_name(text)',
        'llm_copy_tokenizer(text, text)', 'llm_finetune_name(text)',
        'llm_finetune(text, text, int, text, int, int, double precision, int, int, double precision, int, text, double precision, double precision, double precision, double precision, text, bigint, int, double precision, double precision, double precision, int, int, text, bigint, bigint, boolean, text)',
        'llm_forward(text, int[], boolean, int[], double precision, boolean)',
        'llm_embed_bert(text, int[], int[], boolean, double precision)',
        'llm_forward_bert(text, int[], boolean, int[], double precision, boolean)',
        'llm_hidden_bert(text, int[], int)', 'llm_parameters_bert(text)',
        'llm_forward_gpt2(text, int[], boolean, int[], double precision, boolean)',
        'llm_hidden_gpt2(text, int[], int)', 'llm_parameters_gpt2(text)',
        'llm_forward_gpt3(text, int[], boolean, int[], double precision, boolean)',
        'llm_hidden_gpt3(text, int[], int)', 'llm_parameters_gpt3(text)',
        'llm_forward_llama(text, int[], boolean, int[], double precision, boolean)',
        'llm_hidden_llama(text, int[], int)', 'llm_parameters_llama(text)',
        'llm_forward_microgpt(text, int[], boolean, int[], double precision, boolean)',
        'llm_hidden_microgpt(text, int[], int)', 'llm_parameters_microgpt(text)',
        'llm_forward_neox(text, int[], boolean, int[], double precision, boolean)',
        'llm_hidden_neox(text, int[], int)', 'llm_parameters_neox(text)',
        'llm_forward_opt(text, int[], boolean, int[], double precision, boolean)', 'llm_hidden_opt(text, int[], int)',
        'llm_parameters_opt(text)', 'llm_generation_open(text, text)',
        'llm_generation_begin(text, text, int, double precision, int, double precision, bigint, text[], double precision, double precision, double precision)',
        'llm_generation_pass(int[], text, int[])', 'llm_generation_logits(int, text, int)',
        'llm_generations_logits(int[], text, int)', 'llm_generation_next(int, public.tensor, text)',
        'llm_generate_stream(text, int, double precision, int, double precision, text, bigint, text[], boolean, double precision, double precision, double precision)',
        'llm_generate(text, int, double precision, int, double precision, text, bigint, text[], boolean, double precision, double precision, double precision)',
        'llm_generate_together(text[], int, double precision, int, double precision, text, bigint, text[], boolean, double precision, double precision, double precision)',
        'llm_generate(text[], int, double precision, int, double precision, text, bigint, text[], boolean, double precision, double precision, double precision)',
        'llm_chat_key(public.llm_model_config)',
        'llm_chat_begin(jsonb, text, int, double precision, int, double precision, bigint, text[], boolean, double precision, double precision, double precision, text)',
        'llm_chat_stream(jsonb, text, int, double precision, int, double precision, bigint, text[], boolean, double precision, double precision, double precision, text)',
        'llm_chat(jsonb, text, int, double precision, int, double precision, bigint, text[], boolean, double precision, double precision, double precision, text)',
        'llm_hidden(text, int[], int)', 'llm_embed_text(text, text, int, text)', 'llm_sum_rows(public.tensor)',
        'llm_bert_name(text)', 'llm_llama_name(text)', 'llm_neox_name(text)', 'llm_opt_name(text)',
        'llm_hub_family(text)', 'llm_hub_name(text, text)', 'llm_import_tie(text, boolean)',
        'llm_import_begin(text, jsonb, boolean, double precision)', 'llm_parts(int[])',
        'llm_import_part(text, text, int, public.tensor)', 'llm_import_end(text)', 'llm_file_limit(text)',
        'llm_import_value(text, text[], text, int)', 'llm_import_heads_equal(text, jsonb, int)',
        'llm_import_is_bf16(jsonb, text[])', 'llm_import_file(text, text, text[], double precision)',
        'pg_llm_import_npz(text, text, double precision)', 'pg_llm_import_safetensors(text, text, double precision)',
        'llm_file_name(text)', 'llm_require_tensors(jsonb)', 'llm_import_plan(text, jsonb, double precision)',
        'llm_import_source_shape(int[], text, int)', 'llm_import_check(text, jsonb, double precision)',
        'llm_shape_text(anyarray)', 'llm_check_tokens(public.llm_model_config, int[], int[])',
        'llm_recorded_loss(public.llm_model_config, int[], int[], double precision, boolean)',
        'llm_loss(text, int[], int[])', 'llm_loss(text, int[], int[], int, int, int, int, double precision, boolean)',
        'llm_logits(int[], text, int, int, int, int)',
        'llm_create_model(text, text, int, int, int, int, int, bigint, jsonb)', 'llm_init_model(text, bigint)',
        'llm_check_size(public.llm_model_config)',
        'llm_initial_tensor(int[], text, double precision, bigint, text, int)', 'llm_drop_model(text)',
        'llm_rename_model(text, text)', 'llm_prune_runs(text, int)', 'llm_prune_passes(bigint)',
        'llm_query_pairs(text)', 'llm_encode_pair(text[], text, int, text, text)',
        'llm_fill_pairs(text, text, text, double precision, bigint, text, text, int)', 'llm_publication(text)',
        'llm_publication_mark(text)', 'llm_publication_tables(text)', 'llm_publish(text)', 'llm_unpublish(text)',
        'llm_check_publication(text)', 'llm_is_filtered(text)', 'llm_check_copied(text)', 'llm_count(int[])',
        'llm_require_disk(text, numeric, numeric, numeric, numeric)', 'llm_require_memory(text, numeric, int)',
        'llm_require_room_to_fill(text, text[], int, int)',
        'llm_require_room_for(text, text, int, text, boolean, text)', 'llm_sentencepiece_settings(jsonb)',
        'llm_sentencepiece_feed(text, bytea)', 'llm_load_sentencepiece(text, jsonb, jsonb, jsonb, jsonb)',
        'llm_settings(public.llm_model_config, jsonb)', 'llm_setting_fits(jsonb, jsonb, public.llm_model_config)',
        'llm_size(text, public.llm_model_config)', 'llm_refuse_setting(text, jsonb, jsonb, public.llm_model_config)',
        'llm_tape_flush(bigint, text, bigint)', 'llm_tape_forget(text, bigint)', 'llm_forget_tensors(bigint[])',
        'llm_tape_backward(bigint, double precision)', 'llm_backprop(bigint, text)', 'llm_materialize_params(text)',
        'llm_accumulate_grads(text, int)', 'llm_prune_autograd_state(int)', 'llm_tokenizer_kind(text)',
        'llm_check_tokenizer(text)', 'llm_end_tokens(text)', 'llm_end_token(text)', 'llm_begin_token(text)',
        'llm_json_ids(jsonb)', 'llm_prefix_tokens(text)', 'llm_build_char_tokenizer(text, text)', 'llm_subquery(text)',
        'llm_query_documents(text)', 'llm_encode_characters(text[], text)',
        'llm_encode_documents(text[], text, boolean)', 'llm_encode(text, text, boolean, boolean)',
        'llm_encode_sequences(text[], text, int)', 'llm_encode_sequence(text, text, int)',
        'llm_token_bytes(int[], text)', 'llm_known_tokens(int[], text)', 'llm_decode(int[], text)',
        'llm_train(text, int, int, int, int, int, double precision, double precision, double precision, double precision, double precision, double precision, int, double precision, int, int, int, int, int, text, double precision, text, bigint, text, bigint, bigint, int, boolean, text)',
        'llm_train_begin(text, jsonb)', 'llm_train_supersede(text, bigint, bigint)', 'llm_train_give_up(bigint)',
        'llm_hyperparameters(jsonb)', 'llm_check_hyperparameters(public.llm_model_config, jsonb)', 'llm_run(bigint)',
        'llm_train_chunk(bigint, bigint, bytea)', 'llm_raise_other_weights(public.llm_train_run)',
        'llm_train_clear(text, int)', 'llm_train_data(text, bigint)', 'llm_train_rows(public.llm_train_run)',
        'llm_train_rows_version(public.llm_train_run, bytea)', 'llm_raise_missing(bigint, int8multirange)',
        'llm_train_picks(bigint, bigint, bigint, int, text)',
        'llm_train_batch(bigint[], bigint, bigint, int, int, text)', 'llm_pad(int[], int, int)',
        'llm_train_loop(text, int, int, int, int, int, int, int, double precision, double precision, double precision, double precision, double precision, double precision, int, double precision, int, int, int, int, int, text, double precision, text, bigint, text, bigint, bigint, int, boolean, text)',
        'llm_check_intervals(int, int)', 'llm_train_resume(bigint, int, int, text)',
        'llm_train_take_up(bigint, int, int, text)', 'llm_train_other_library(public.llm_train_run)',
        'llm_train_rewind(bigint, bigint, text)', 'llm_train_stop(bigint)',
        'llm_train_advance(bigint, int, int, bytea, bigint[], bytea, bigint, timestamptz, double precision, timestamptz)',
        'llm_train_log_id(bigint, bigint)', 'llm_train_load(public.llm_train_run)', 'llm_write_seconds(text)',
        'llm_replay(bigint, bigint, bigint)', 'llm_replay_steps(public.llm_train_run, bigint, bigint)',
        'llm_replay_bases(public.llm_train_run)', 'llm_replay_usable(public.llm_train_run, public.llm_checkpoint)',
        'llm_replay_base(public.llm_train_run, bigint)', 'llm_replay_load(text, bigint, bigint)',
        'llm_train_step(text, bigint, int, int, int, int, double precision, double precision, double precision, double precision, double precision, double precision, int, bigint, double precision, int, int)',
        'llm_train_steps(public.llm_train_run, bigint[], bigint, bigint, double precision, boolean)',
        'llm_train_step_rows(public.llm_train_run, bigint[], bigint)', 'llm_train_logged(bigint, bigint)',
        'llm_raise_mismatch(bigint, bigint, text, text)', 'llm_fingerprint(text)', 'llm_pin(text, boolean)',
        'llm_check_weights(text)', 'llm_weight(text, text)', 'llm_lock_rows(text, bytea)',
        'llm_stored_as_written(text, bigint, bigint)', 'llm_written(text, bigint, bigint)',
        'llm_recognise(text, bytea)', 'llm_write_back(text, bytea, bigint, boolean, int, boolean)',
        'llm_release(boolean)', 'llm_wordpiece_settings(jsonb)', 'llm_wordpiece_feed(text, bytea)',
        'llm_load_wordpiece(text, bytea, jsonb, jsonb)', 'llm_load_wordpiece(text, text, jsonb, jsonb)',
        'llm_row_layout(int, int, bigint, int)', 'llm_version_layout(text, int, int)', 'llm_tokenizer_cost(text)',
        'llm_write_cost(text, text, int, bigint, text, boolean, text)', 'llm_autograd_mode_write()'
    ];
    routine text;
    role name;
BEGIN
    FOREACH routine IN ARRAY declared LOOP
        FOR role IN SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.rolname IN ('llm_reader', 'llm_trainer') LOOP
            BEGIN
                EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE public.%s FROM %I', routine, role);
            EXCEPTION
                WHEN undefined_function OR undefined_object THEN
                    NULL;
            END;
        END LOOP;
    END LOOP;
END
$grants$;

DO $grants$
DECLARE
    statement text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'llm_reader') THEN
        RETURN;
    END IF;
    FOREACH statement IN ARRAY ARRAY[
        'REVOKE USAGE ON SEQUENCE public.llm_pass_seq FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_adapter FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_arch FROM llm_reader',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_autograd_mode FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_bpe_merges FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_bpe_vocab FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_checkpoint FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_clip FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_dataset FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_dataset_load FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_eval_log FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_heldout FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_model_config FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_param FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_param_er FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_shared_version FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_sql_version FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_step FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_tape FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_tensor FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_tensor_map FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_tensor_rt FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_tokenizer FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_train_log FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_train_progress FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_train_run FROM llm_reader',
        'REVOKE SELECT ON TABLE public.llm_train_status FROM llm_reader'
    ] LOOP
        BEGIN
            EXECUTE statement;
        EXCEPTION
            WHEN undefined_function OR undefined_table OR undefined_object THEN
                NULL;
        END;
    END LOOP;
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
            AND p.proname !~ '^(pg_llm_read_file|pg_llm_file_(tensor|bytes|metadata|sha256)|pg_llm_checkpoint_|pg_llm_progress|pg_llm_(try|hold)_lock|pg_llm_arena_adamw|pg_llm_arena_(saved|keep))'
    LOOP
        EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM llm_reader', routine);
    END LOOP;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role llm_reader is not granted pg_llm''s functions: this takes the database''s owner';
END
$grants$;

DO $role$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_auth_members AS m
        INNER JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
        WHERE r.rolname = 'llm_reader' AND m.member <> current_user::regrole
    ) THEN
        RAISE NOTICE 'role llm_reader is left in place: it has members';
        RETURN;
    END IF;
    DROP ROLE IF EXISTS llm_reader;
EXCEPTION
    WHEN dependent_objects_still_exist THEN
        RAISE NOTICE 'role llm_reader is left in place: another database or object uses it';
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role llm_reader is left in place: dropping it takes CREATEROLE';
END
$role$;

DO $grants$
DECLARE
    statement text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'llm_trainer') THEN
        RETURN;
    END IF;
    FOREACH statement IN ARRAY ARRAY[
        'REVOKE USAGE ON SEQUENCE public.llm_pass_seq FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_adapter FROM llm_trainer',
        'REVOKE SELECT ON TABLE public.llm_arch FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_autograd_mode FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_bpe_merges FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_bpe_vocab FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_checkpoint FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_clip FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_dataset FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_dataset_load FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_eval_log FROM llm_trainer',
        'REVOKE SELECT ON TABLE public.llm_heldout FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_model_config FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_param FROM llm_trainer',
        'REVOKE SELECT ON TABLE public.llm_param_er FROM llm_trainer',
        'REVOKE SELECT ON TABLE public.llm_shared_version FROM llm_trainer',
        'REVOKE SELECT ON TABLE public.llm_sql_version FROM llm_trainer',
        'REVOKE SELECT ON TABLE public.llm_step FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tape FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tensor FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tensor_map FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tensor_rt FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_tokenizer FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_train_log FROM llm_trainer',
        'REVOKE SELECT ON TABLE public.llm_train_progress FROM llm_trainer',
        'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLE public.llm_train_run FROM llm_trainer',
        'REVOKE SELECT ON TABLE public.llm_train_status FROM llm_trainer'
    ] LOOP
        BEGIN
            EXECUTE statement;
        EXCEPTION
            WHEN undefined_function OR undefined_table OR undefined_object THEN
                NULL;
        END;
    END LOOP;
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
        EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM llm_trainer', routine);
    END LOOP;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role llm_trainer is not granted pg_llm''s functions: this takes the database''s owner';
END
$grants$;

DO $role$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_auth_members AS m
        INNER JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
        WHERE r.rolname = 'llm_trainer' AND m.member <> current_user::regrole
    ) THEN
        RAISE NOTICE 'role llm_trainer is left in place: it has members';
        RETURN;
    END IF;
    DROP ROLE IF EXISTS llm_trainer;
EXCEPTION
    WHEN dependent_objects_still_exist THEN
        RAISE NOTICE 'role llm_trainer is left in place: another database or object uses it';
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role llm_trainer is left in place: dropping it takes CREATEROLE';
END
$role$;
