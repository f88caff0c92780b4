-- Embeddings: one vector of each text, as the model's own files say.

CREATE FUNCTION public.llm_is_encoder(config public.llm_model_config) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN EXISTS (SELECT FROM public.llm_arch a WHERE a.arch = config.arch AND a.kind = 'encoder');
END;
$function$;

COMMENT ON FUNCTION public.llm_is_encoder(public.llm_model_config) IS
'Whether a model with that configuration makes one vector of a text (llm_arch.kind encoder) instead of logits.';


CREATE FUNCTION public.llm_require_decoder(config public.llm_model_config, task text, hint text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF public.llm_is_encoder(config) THEN
        RAISE EXCEPTION '% needs a model that predicts tokens, and "%" (%) is an encoder',
            task, config.model, config.arch
            USING ERRCODE = 'feature_not_supported',
            HINT = COALESCE(hint, 'llm_embed(text, model) gives its embedding of a text.');
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_require_decoder(public.llm_model_config, text, text) IS
'Raises 0A000, with the name of the function that was called, if the model is an encoder.';


CREATE FUNCTION public.llm_embed_sequences(
    model text,
    tokens int[],
    lengths int[],
    training boolean DEFAULT false,
    dropout_p double precision DEFAULT 0.1
) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- Its function looks at the rest of the configuration.
    arch text := (SELECT c.arch FROM public.llm_model_config c WHERE c.model = llm_embed_sequences.model);
    config public.llm_model_config;
    function regprocedure;
    result public.tensor;
BEGIN
    IF tokens IS NULL OR lengths IS NULL THEN
        RETURN NULL;
    END IF;
    CASE arch
        WHEN 'bert' THEN
            RETURN public.llm_embed_bert(model, tokens, lengths, training, dropout_p);
        ELSE
            config := public.llm_config(model);
            PERFORM public.llm_require_encoder(
                config, 'llm_embed_sequences', 'llm_hidden(model, tokens) gives its states.'
            );
            function := to_regprocedure(
                format('public.%I(text, int[], int[], boolean, double precision)', 'llm_embed_' || config.arch)
            );
            IF function IS NULL THEN
                RAISE EXCEPTION 'architecture "%" has no function for its embeddings', config.arch
                    USING ERRCODE = 'feature_not_supported',
                    HINT = format('Register it with llm_sql.graph, or create public.llm_embed_%s(text, int[], int[], '
                        'boolean, double precision).', config.arch);
            END IF;
            PERFORM public.pg_llm_use_callers_search_path();
            EXECUTE pg_catalog.format('SELECT %s($1, $2, $3, $4, $5)', function::pg_catalog.regproc) INTO result
            USING model, tokens, lengths, training, dropout_p;
            RETURN result;
    END CASE;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_sequences(text, int[], int[], boolean, double precision) IS
'An encoder''s embeddings [B, D] of B sequences of tokens that are laid end to end: lengths has the number of tokens '
'of each. 0A000: the model is no encoder; 22023: lengths that are not those of the tokens; 22003: a token outside the '
'vocabulary, or a sequence longer than the context.';


CREATE FUNCTION public.llm_embed_prefix(config public.llm_model_config, prompt text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    prompts CONSTANT jsonb := config.settings -> 'prompts';
    prefix text;
BEGIN
    prompt := COALESCE(prompt, config.settings ->> 'default_prompt', '');
    prefix := prompts ->> prompt;
    IF prefix IS NULL AND prompt <> '' THEN
        RAISE EXCEPTION 'model "%" has no prompt "%"', config.model, prompt
            USING ERRCODE = 'invalid_parameter_value',
            HINT = COALESCE(
                'It has ' || (SELECT string_agg(k.key, ', ' ORDER BY k.key) FROM jsonb_object_keys(prompts) k (key))
                    || '.',
                'It has no prompts: settings of llm_model_config hold them.'
            );
    END IF;
    RETURN COALESCE(prefix, '');
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_prefix(public.llm_model_config, text) IS
'What stands before a text that is embedded: the text of the prompt with that name in the model''s settings; NULL: of '
'their default_prompt; '''': nothing. 22023, with their names: there is no such prompt.';


CREATE FUNCTION public.llm_rows(x public.tensor) RETURNS public.tensor[]
LANGUAGE plpgsql VOLATILE STRICT PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    width CONSTANT int := (public.shape(x))[2];
BEGIN
    RETURN (
        SELECT array_agg(public.pg_llm_reshape(public.pg_llm_slice(x, 0, r.i, r.i + 1), ARRAY[width]) ORDER BY r.i)
        FROM generate_series(0, (public.shape(x))[1] - 1) r (i)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_rows(public.tensor) IS
'The rows [D] of x [N, D].';


CREATE FUNCTION public.llm_embed_texts(
    texts text[], model text, prompt text, OUT embeddings public.tensor[], OUT n_cut bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    config public.llm_model_config := public.llm_config(model);
    prefix CONSTANT text := public.llm_embed_prefix(config, prompt);
    max_tokens CONSTANT int := public.llm_max_tokens(config);
    -- A pass holds some eight states and twice the MLP's for each of its tokens: about 40 MB, which caches still help.
    room CONSTANT bigint := greatest(
        41943040 / (4 * (8 * config.d_model::bigint + 2 * COALESCE(config.d_ff, 4 * config.d_model::bigint))), 1
    );
    given CONSTANT int[] := ARRAY(
        SELECT t.place FROM unnest(texts) WITH ORDINALITY t (text, place) WHERE t.text IS NOT NULL ORDER BY t.place
    );
    item record;
    tokens int[] := '{}';
    lengths int[] := '{}';
    places int[] := '{}';
    results public.tensor[];
BEGIN
    embeddings := array_fill(NULL::public.tensor, ARRAY[COALESCE(cardinality(texts), 0)]);
    n_cut := 0;
    PERFORM public.llm_pin_statement(model);
    PERFORM public.pg_llm_set_recording(false, true);
    IF NOT public.llm_is_encoder(config) THEN
        FOR item IN SELECT t.place, t.text FROM unnest(texts) WITH ORDINALITY t (text, place) LOOP
            embeddings[item.place] := public.llm_embed_text(prefix || item.text, model);
        END LOOP;
    ELSE
        FOR item IN
            SELECT given[e.number] AS place, e.ids, e.length
            FROM public.llm_encode_sequences(
                ARRAY(SELECT prefix || t.text FROM unnest(texts) WITH ORDINALITY t (text, place)
                    WHERE t.text IS NOT NULL ORDER BY t.place),
                model, max_tokens
            ) e
            UNION ALL
            -- The end, where what is left is computed.
            SELECT NULL, NULL, NULL
        LOOP
            IF cardinality(item.ids) = 0 THEN
                item.ids := ARRAY[public.llm_begin_token(model)];
                PERFORM public.llm_require(
                    item.ids[1] IS NOT NULL, format('model "%s" has no token to represent an empty text', model)
                );
            END IF;
            IF cardinality(lengths) > 0
                AND (item.ids IS NULL OR cardinality(tokens) + cardinality(item.ids) > room)
            THEN
                results := public.llm_rows(public.llm_embed_sequences(model, tokens, lengths, false, 0.0));
                FOR i IN 1 .. cardinality(places) LOOP
                    embeddings[places[i]] := results[i];
                END LOOP;
                tokens := '{}';
                lengths := '{}';
                places := '{}';
            END IF;
            tokens := tokens || item.ids;
            lengths := lengths || cardinality(item.ids);
            places := places || item.place;
            n_cut := n_cut + COALESCE(item.length > max_tokens, false)::int;
        END LOOP;
    END IF;
    PERFORM public.pg_llm_set_recording(recording, true);
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_texts(text[], text, text) IS
'What llm_embed returns, and how many of the texts were cut because they are longer than the model reads. Texts are '
'computed together, as many at a time as take about 40 MB.';


CREATE FUNCTION public.llm_embed(text text, model text DEFAULT NULL, prompt text DEFAULT NULL) RETURNS public.tensor
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    chosen text;
    key text;
    embedding public.tensor;
BEGIN
    IF llm_embed.text IS NULL THEN
        RETURN NULL;
    END IF;
    chosen := public.llm_default_model(model);
    PERFORM public.llm_pin_statement(chosen);
    -- An ORDER BY asks for it again with each row that an index returns.
    key := format('%s %s:%s%s',
        current_setting('pg_llm.weights'), COALESCE(octet_length(prompt), -1), prompt, llm_embed.text);
    embedding := public.pg_llm_memo(chosen, key);
    IF embedding IS NULL THEN
        embedding := (public.llm_embed(ARRAY[llm_embed.text], chosen, prompt))[1];
        PERFORM public.pg_llm_memo_put(chosen, key, embedding);
    END IF;
    RETURN embedding;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed(text, text, text) IS
'The embedding of the text, as the model''s settings say: pooled, of length 1 if normalize says so, cut to max_tokens '
'tokens with a NOTICE. prompt: the name of one of its prompts, which is put before the text (NULL: its default_prompt, '
''''': none). Of a decoder: what llm_embed_text returns. NULL for NULL. Writes nothing. All calls in a statement use '
'one version of the weights. 22023: no such prompt; 42704: unknown model, or one without a tokenizer.';


CREATE FUNCTION public.llm_embed(texts text[], model text DEFAULT NULL, prompt text DEFAULT NULL)
RETURNS public.tensor[]
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    chosen text;
    result record;
BEGIN
    IF texts IS NULL THEN
        RETURN NULL;
    END IF;
    chosen := public.llm_default_model(model);
    result := public.llm_embed_texts(texts, chosen, prompt);
    IF result.n_cut > 0 THEN
        PERFORM public.llm_tell_cut(chosen, result.n_cut, cardinality(texts));
    END IF;
    RETURN result.embeddings;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed(text[], text, text) IS
'The embedding of each of the texts, in their order, each identical to what a separate call returns, NULL for NULL. '
'Several dimensions become one.';


CREATE FUNCTION public.llm_tell_cut(model text, n_cut bigint, n_texts bigint) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config CONSTANT public.llm_model_config := public.llm_config(model);
BEGIN
    RAISE NOTICE '% of % texts are longer than the % tokens that model "%" reads, and were cut',
        n_cut, n_texts, public.llm_max_tokens(config), model
        USING HINT = 'Embed long texts in pieces.';
END;
$function$;

COMMENT ON FUNCTION public.llm_tell_cut(text, bigint, bigint) IS
'The NOTICE of llm_embed on texts that the model does not read to their end.';
