-- A model's inner states, and the embedding of a text made from them.

CREATE FUNCTION public.llm_hidden(model text, tokens int[], layer int DEFAULT NULL) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    n_blocks int := CASE WHEN layer < 0 THEN config.n_layer + 1 + layer ELSE COALESCE(layer, config.n_layer) END;
    function regprocedure;
    result public.tensor;
BEGIN
    PERFORM public.llm_require(
        n_blocks BETWEEN 0 AND config.n_layer,
        format('layer must be between %s and %s, got %s', -config.n_layer - 1, config.n_layer, layer)
    );
    PERFORM public.llm_check_tokens(config, tokens);
    CASE config.arch
        {{ architectures.hidden }}
        ELSE
            function := to_regprocedure(format('public.%I(text, int[], int)', 'llm_hidden_' || config.arch));
            IF function IS NULL THEN
                RAISE EXCEPTION 'architecture "%" has no function for its hidden states', config.arch
                    USING ERRCODE = 'feature_not_supported',
                    HINT = format('Register it with llm_sql.graph, or create public.llm_hidden_%s(text, int[], int).',
                        config.arch);
            END IF;
            PERFORM public.pg_llm_use_callers_search_path();
            EXECUTE pg_catalog.format('SELECT %s($1, $2, $3)', function::pg_catalog.regproc) INTO result
            USING model, tokens, n_blocks;
            RETURN result;
    END CASE;
END;
$function$;

COMMENT ON FUNCTION public.llm_hidden(text, int[], int) IS
'Hidden states [T, d_model] of tokens, or [B, T, d_model] for a batch. layer: 0 after the embeddings, k after the '
'k-th block; negative values count from the end; the last (the default) is after the final norm, where logits are '
'computed from. The same as transformers'' hidden_states. 22023: the model has no such layer.';


CREATE FUNCTION public.llm_embed_text(
    text text,
    model text DEFAULT NULL,
    layer int DEFAULT NULL,
    pooling text DEFAULT 'mean'
) RETURNS public.tensor
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    config public.llm_model_config;
    ids int[];
    span record;
    states public.tensor;
    result public.tensor;
BEGIN
    IF llm_embed_text.text IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM public.llm_require(
        pooling IN ('mean', 'last', 'none'),
        format('pooling must be mean, last or none, got %s', COALESCE(pooling, 'NULL'))
    );
    model := public.llm_default_model(model);
    config := public.llm_config(model);
    PERFORM public.llm_require_decoder(config, 'llm_embed_text');
    ids := public.llm_encode_sequence(llm_embed_text.text, model);
    IF cardinality(ids) = 0 THEN
        ids := ARRAY[public.llm_begin_token(model)];
        PERFORM public.llm_require(
            ids[1] IS NOT NULL, format('model "%s" has no token to represent an empty text', model)
        );
    END IF;
    PERFORM public.llm_pin_statement(model);
    PERFORM public.pg_llm_set_recording(false, true);
    FOR span IN
        SELECT s.first, s.last, s.fresh
        FROM public.llm_windows(cardinality(ids), config.n_positions, greatest(config.n_positions / 2, 1)) s
        ORDER BY s.first
    LOOP
        CONTINUE WHEN pooling = 'last' AND span.last < cardinality(ids);
        states := public.pg_llm_slice(
            public.llm_hidden(model, ids[span.first : span.last], layer),
            0, span.fresh - span.first, span.last - span.first + 1
        );
        result := CASE
            WHEN pooling = 'last' THEN public.pg_llm_reshape(public.pg_llm_last(states), ARRAY[-1])
            WHEN result IS NULL AND pooling = 'none' THEN states
            WHEN pooling = 'none' THEN public.pg_llm_concat(result, states, 0)
            WHEN result IS NULL THEN public.llm_sum_rows(states)
            ELSE public.pg_llm_add(result, public.llm_sum_rows(states))
        END;
    END LOOP;
    PERFORM public.pg_llm_set_recording(recording, true);
    IF pooling = 'mean' THEN
        RETURN result OPERATOR(public./) cardinality(ids)::double precision;
    END IF;
    RETURN result;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_text(text, text, int, text) IS
'Hidden states of the text in a layer of the model (as for llm_hidden; NULL: the last), pooled. pooling: mean '
'[d_model], last (the last token''s, [d_model]), or none [T, d_model]. A text longer than the context is read in '
'windows that overlap by half; each token''s state is from the window that gives it the most context. For an empty '
'text the state of the begin-of-text token is used (22023 if there is none). All calls in a statement use one version '
'of the weights. 22023: pooling or layer; 42704: unknown model.';


CREATE FUNCTION public.llm_sum_rows(x public.tensor) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE STRICT PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.pg_llm_reshape(
        public.pg_llm_matmul(public.pg_llm_full(ARRAY[1, (public.shape(x))[1]], 1.0), x), ARRAY[(public.shape(x))[2]]
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_sum_rows(public.tensor) IS
'The sum [D] of the rows of x [T, D].';
