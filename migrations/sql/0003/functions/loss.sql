-- Loss and logits of one sequence or of a batch.

CREATE FUNCTION public.llm_shape_text(value anyarray) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
    SELECT COALESCE(
        '[' || string_agg(array_length(value, axis)::text, ',' ORDER BY axis) || ']', '[0]'
    )
    FROM generate_series(1, array_ndims(value)) axis;
$function$;

COMMENT ON FUNCTION public.llm_shape_text(anyarray) IS
'An array''s shape, for messages: [2,3].';


CREATE FUNCTION public.llm_check_tokens(config public.llm_model_config, tokens int[], targets int[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    length int := array_length(tokens, array_ndims(tokens));
BEGIN
    IF tokens IS NULL THEN
        RAISE EXCEPTION 'tokens must not be NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM public.llm_require(
        array_ndims(tokens) BETWEEN 1 AND 2,
        format('tokens must be one sequence or a batch of them, got shape %s', public.llm_shape_text(tokens))
    );
    PERFORM public.llm_require(
        -- Pairs are several sequences; llm_contrastive_loss looks at each.
        length <= config.n_positions OR (targets IS NOT NULL AND public.llm_is_encoder(config)),
        format('a sequence of %s tokens exceeds the context of %s of model "%s"',
            length, config.n_positions, config.model)
    );
    IF targets IS NOT NULL AND array_dims(targets) IS DISTINCT FROM array_dims(tokens) THEN
        PERFORM public.llm_require(
            public.llm_shape_text(targets) = public.llm_shape_text(tokens),
            format('tokens have shape %s, targets %s',
                public.llm_shape_text(tokens), public.llm_shape_text(targets)),
            'Every token needs its target; one below 0 is not counted.'
        );
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_tokens(public.llm_model_config, int[], int[]) IS
'Raises 22023 unless tokens is [T] or [B, T] and fits in the context, and targets has the same shape.';


CREATE FUNCTION public.llm_recorded_loss(
    config public.llm_model_config,
    tokens int[],
    targets int[],
    dropout_p double precision,
    training boolean
) RETURNS double precision
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    loss double precision;
BEGIN
    PERFORM public.llm_check_tokens(config, tokens, targets);
    PERFORM public.llm_pin(config.model, recording);
    IF recording THEN
        PERFORM public.pg_llm_tape_clear();
    END IF;
    -- The pass of the model's next step, as llm_train_step would make it.
    PERFORM public.pg_llm_pass_begin(0, public.llm_model_step(config.model) + 1, 0);
    loss := public.pg_llm_item(
        public.llm_forward(config.model, tokens, training, targets, dropout_p)
    );
    IF recording THEN
        PERFORM public.llm_tape_flush();
    END IF;
    PERFORM public.pg_llm_arena_close(config.model);
    RETURN loss;
END;
$function$;

COMMENT ON FUNCTION public.llm_recorded_loss(
    public.llm_model_config, int[], int[], double precision, boolean
) IS
'Computes the loss for both forms of llm_loss. While llm_autograd_mode is on, the pass replaces the session''s tape '
'and is written to llm_tape.';


CREATE FUNCTION public.llm_loss(model text, tokens int[], targets int[]) RETURNS double precision
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_recorded_loss(public.llm_config(model), tokens, targets, 0.0, false);
END;
$function$;

COMMENT ON FUNCTION public.llm_loss(text, int[], int[]) IS
'Mean negative log-likelihood in nats of targets [T] or [B, T] given tokens of the same shape, without dropout; '
'targets below 0 are not counted. Of an encoder''s pairs: llm_contrastive_loss. 22023: shapes or length; 22003: a '
'token outside the vocabulary.';


CREATE FUNCTION public.llm_loss(
    model text,
    tokens int[],
    targets int[],
    n_layer int,
    n_head int,
    d int,
    vocab int,
    dropout_p double precision DEFAULT 0.1,
    training boolean DEFAULT false
) RETURNS double precision
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
BEGIN
    IF model IS NULL OR tokens IS NULL OR targets IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_check_config(model, n_layer, n_head, d, vocab);
    PERFORM public.llm_require(
        dropout_p >= 0 AND dropout_p < 1, format('dropout_p must be in [0, 1), got %s', dropout_p)
    );
    PERFORM public.llm_require(training IS NOT NULL, 'training must not be NULL');
    RETURN public.llm_recorded_loss(config, tokens, targets, dropout_p, training);
END;
$function$;

COMMENT ON FUNCTION public.llm_loss(
    text, int[], int[], int, int, int, int, double precision, boolean
) IS
'The loss with the model''s sizes as arguments, which are checked against its configuration (22023). training: with '
'dropout of probability dropout_p, with the random keys of the model''s next training step with seed 0.';


CREATE FUNCTION public.llm_logits(
    tokens int[],
    model text DEFAULT NULL,
    n_layer int DEFAULT NULL,
    n_head int DEFAULT NULL,
    d_model int DEFAULT NULL,
    vocab_size int DEFAULT NULL
) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    logits public.tensor;
BEGIN
    IF tokens IS NULL THEN
        RETURN NULL;
    END IF;
    model := public.llm_default_model(model);
    config := public.llm_check_config(model, n_layer, n_head, d_model, vocab_size);
    PERFORM public.llm_require_decoder(config, 'llm_logits');
    PERFORM public.llm_check_tokens(config, tokens);
    PERFORM public.llm_pin(model, public.pg_llm_recording());
    logits := public.llm_forward(model, tokens);
    PERFORM public.pg_llm_arena_close(model);
    RETURN logits;
END;
$function$;

COMMENT ON FUNCTION public.llm_logits(int[], text, int, int, int, int) IS
'Logits [T, vocab] after each of the tokens, or [B, T, vocab] for a batch. Without a model, the default model. Sizes '
'are checked against the configuration (22023).';
