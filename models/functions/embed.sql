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
        RAISE EXCEPTION '% needs a model that predicts tokens, and "%" (%) is an encoder', task, config.model, config.arch
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
    config public.llm_model_config;
    function regprocedure;
    result public.tensor;
BEGIN
    IF tokens IS NULL OR lengths IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    IF NOT public.llm_is_encoder(config) THEN
        RAISE EXCEPTION 'model "%" (%) is no encoder', model, config.arch
            USING ERRCODE = 'feature_not_supported', HINT = 'llm_hidden(model, tokens) gives its states.';
    END IF;
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
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_sequences(text, int[], int[], boolean, double precision) IS
'An encoder''s embeddings [B, D] of B sequences of tokens that are laid end to end: lengths has the number of tokens of '
'each. 0A000: the model is no encoder; 22023: lengths that are not those of the tokens; 22003: a token outside the '
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
