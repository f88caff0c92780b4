-- Copying a model, and fitting the copy to the texts of a query.

CREATE FUNCTION public.llm_copy_model(model text, new_name text, optimizer boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    n_rows bigint;
BEGIN
    PERFORM public.llm_config(model);
    PERFORM public.llm_require(new_name <> '', 'a model needs a name');
    PERFORM public.llm_require(optimizer IS NOT NULL, 'optimizer must be true or false');
    PERFORM public.llm_claim_name(new_name);
    PERFORM public.llm_require_room_for(
        model, 'copying', optimizer => CASE WHEN optimizer THEN 'keep' ELSE 'drop' END
    );
    INSERT INTO public.llm_model_config
    SELECT (jsonb_populate_record(c, jsonb_build_object(
        'model', new_name, 'created_at', clock_timestamp(), 'init_seed', NULL
    ))).*
    FROM public.llm_model_config c
    WHERE c.model = llm_copy_model.model;
    INSERT INTO public.llm_adapter
    SELECT (jsonb_populate_record(a, jsonb_build_object('model', new_name))).*
    FROM public.llm_adapter a
    WHERE a.model = llm_copy_model.model;
    PERFORM public.llm_copy_tokenizer(model, new_name);
    INSERT INTO public.llm_param (model, name, token_id, data, m, v, step)
    SELECT new_name, p.name, p.token_id, p.data, CASE WHEN optimizer THEN p.m END, CASE WHEN optimizer THEN p.v END,
        CASE WHEN optimizer THEN p.step ELSE 0 END
    FROM public.llm_param p
    WHERE p.model = llm_copy_model.model
    ORDER BY p.name, p.token_id;
    GET DIAGNOSTICS n_rows = ROW_COUNT;
    RETURN n_rows;
END;
$function$;

COMMENT ON FUNCTION public.llm_copy_model(text, text, boolean) IS
'Creates the model new_name with the configuration, tokenizer, weights, optimizer state and step of another, but '
'without its data, runs and checkpoints. optimizer false: without optimizer state, at step 0. Returns the number of '
'llm_param rows. 42710: new_name exists; 42704: unknown model.';


CREATE FUNCTION public.llm_claim_name(new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument('new_name', new_name IS NOT NULL);
    IF EXISTS (SELECT FROM public.llm_model_config c WHERE c.model = new_name) THEN
        RAISE EXCEPTION 'model "%" already exists', new_name
            USING ERRCODE = 'duplicate_object', HINT = 'Choose another name, or drop that model with llm_drop_model.';
    END IF;
    IF EXISTS (SELECT FROM public.llm_bpe_vocab v WHERE v.model = new_name)
        OR EXISTS (SELECT FROM public.llm_tokenizer t WHERE t.model = new_name)
    THEN
        RAISE EXCEPTION 'model "%" already has a tokenizer', new_name
            USING ERRCODE = 'duplicate_object',
            HINT = 'Choose another name, or delete its rows of llm_bpe_vocab and llm_tokenizer.';
    END IF;
    PERFORM public.llm_lock_model(new_name);
END;
$function$;

COMMENT ON FUNCTION public.llm_claim_name(text) IS
'Locks the name of a model that is to be made with another''s tokenizer. 42710: a model, or a tokenizer, has it.';


CREATE FUNCTION public.llm_copy_tokenizer(model text, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument('model', model IS NOT NULL);
    PERFORM public.llm_require_argument('new_name', new_name IS NOT NULL);
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, score, flags)
    SELECT new_name, v.token_id, v.token, v.bytes, v.score, v.flags
    FROM public.llm_bpe_vocab v
    WHERE v.model = llm_copy_tokenizer.model;
    INSERT INTO public.llm_bpe_merges (model, rank, left_token, right_token, pair)
    SELECT new_name, m.rank, m.left_token, m.right_token, m.pair
    FROM public.llm_bpe_merges m
    WHERE m.model = llm_copy_tokenizer.model;
    INSERT INTO public.llm_tokenizer (model, kind, settings, chat_template)
    SELECT new_name, t.kind, t.settings, t.chat_template
    FROM public.llm_tokenizer t
    WHERE t.model = llm_copy_tokenizer.model;
END;
$function$;

COMMENT ON FUNCTION public.llm_copy_tokenizer(text, text) IS
'Gives new_name, which has none, the tokenizer of a model.';


CREATE FUNCTION public.llm_finetune_name(model text) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    name text := model || '-finetuned';
    n int := 1;
BEGIN
    WHILE EXISTS (SELECT FROM public.llm_model_config c WHERE c.model = name)
        OR EXISTS (SELECT FROM public.llm_bpe_vocab v WHERE v.model = name)
        OR EXISTS (SELECT FROM public.llm_tokenizer t WHERE t.model = name)
    LOOP
        n := n + 1;
        name := format('%s-finetuned-%s', model, n);
    END LOOP;
    RETURN name;
END;
$function$;

COMMENT ON FUNCTION public.llm_finetune_name(text) IS
'The first of the names model-finetuned, model-finetuned-2, ... that no model has.';


CREATE FUNCTION public.llm_finetune(
    model text,
    query text,
    steps int,
    new_name text DEFAULT NULL,
    block_size int DEFAULT NULL,
    stride int DEFAULT NULL,
    validation double precision DEFAULT 0.1,
    {{ finetuning.parameters }},
    OUT name text,
    OUT perplexity_before double precision,
    OUT perplexity_after double precision
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
BEGIN
    PERFORM public.llm_require_decoder(
        config, 'llm_finetune', 'llm_fill_pairs and llm_train fit an encoder to pairs of texts.'
    );
    PERFORM public.llm_require(
        validation > 0 AND validation < 1,
        format('validation must be in (0, 1), got %s', COALESCE(validation::text, 'NULL')),
        'Perplexity before and after is measured on held-out text.'
    );
    PERFORM public.llm_check_tokenizer(model);
    PERFORM public.llm_require_room_for(model, 'finetuning', 4, optimizer, keep_grad);
    name := COALESCE(new_name, public.llm_finetune_name(model));
    PERFORM public.llm_copy_model(model, name, false);
    PERFORM public.llm_fill_dataset(name, query, COALESCE(block_size, config.n_positions), stride, validation, seed);
    perplexity_before := (public.llm_evaluate(name, 'validation')).perplexity;
    PERFORM public.llm_train(
        name, steps,
        {{ finetuning.named }}
    );
    perplexity_after := (public.llm_evaluate(name, 'validation')).perplexity;
END;
$function$;

COMMENT ON FUNCTION public.llm_finetune(
    text, text, int, text, int, int, double precision,
    {{ finetuning.types }}
) IS
'Copies the model as new_name (default: model-finetuned), tokenizes the documents in the query''s first column into '
'rows of block_size tokens (default: the context), holds out the fraction validation of them, and trains the copy for '
'steps steps with fresh optimizer state. Returns its name and its perplexity on the held-out rows before and after. '
'The original model does not change. The other arguments are those of llm_fill_dataset and llm_train. Runs in one '
'transaction.';
