-- Likelihood of held-out data and of a text.

CREATE FUNCTION public.llm_evaluate(
    model text,
    split text DEFAULT 'validation',
    OUT tokens bigint,
    OUT nll double precision,
    OUT perplexity double precision
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    recording boolean := public.pg_llm_recording();
    batch record;
    n_targets bigint;
BEGIN
    PERFORM public.llm_check_dataset(config, split, NULL);
    PERFORM public.llm_pin(model);
    PERFORM public.pg_llm_set_recording(false, true);
    tokens := 0;
    nll := 0;
    -- Rows of one length share a batch of about 4096 tokens; which, changes nothing in the result.
    FOR batch IN
        SELECT array_agg(b.id ORDER BY b.id) AS ids
        FROM (
            SELECT d.id, cardinality(d.tokens) AS length,
                (row_number() OVER (PARTITION BY cardinality(d.tokens) ORDER BY d.id) - 1)
                    / greatest(4096 / greatest(cardinality(d.tokens), 1), 1) AS number
            FROM public.llm_dataset d
            WHERE (d.model = llm_evaluate.model OR d.model IS NULL) AND d.split = llm_evaluate.split
        ) b
        GROUP BY b.length, b.number
        ORDER BY b.length, b.number
    LOOP
        SELECT s.n_targets, nll + s.n_targets * public.pg_llm_item(
            public.llm_forward(llm_evaluate.model, s.rows, false, s.targets, 0.0)
        )
        INTO n_targets, nll
        FROM (
            SELECT array_agg(d.tokens ORDER BY d.id) AS rows, array_agg(d.target ORDER BY d.id) AS targets,
                sum((SELECT count(*) FROM unnest(d.target) t WHERE t >= 0))::bigint AS n_targets
            FROM public.llm_dataset d
            WHERE d.id = ANY (batch.ids)
            OFFSET 0
        ) s;
        tokens := tokens + n_targets;
    END LOOP;
    PERFORM public.pg_llm_set_recording(recording, true);
    PERFORM public.pg_llm_arena_close(model);
    nll := nll / NULLIF(tokens, 0);
    perplexity := exp(nll);
END;
$function$;

COMMENT ON FUNCTION public.llm_evaluate(text, text) IS
'Over all rows of the split that are the model''s or any model''s: the number of tokens predicted, their mean negative '
'log-likelihood in nats, summed per token, and its exponential, the perplexity. Writes nothing. P0002: no rows; 22023: '
'a row longer than the context; 22003: a token outside the vocabulary.';


CREATE FUNCTION public.llm_perplexity(model text, text text) RETURNS double precision
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    recording boolean := public.pg_llm_recording();
    ids int[] := public.llm_encode(text, model);
    start_token int := public.llm_end_token(model);
    width int := config.n_positions;
    stride int := greatest(config.n_positions / 2, 1);
    n_scored int := 0;
    last_token int;
    targets int[];
    nll double precision := 0;
BEGIN
    IF start_token IS NOT NULL THEN
        ids := start_token || ids;
    END IF;
    PERFORM public.llm_require(cardinality(ids) >= 2, 'a text of no tokens has no perplexity');
    PERFORM public.llm_pin(model);
    PERFORM public.pg_llm_set_recording(false, true);
    FOR first_token IN 1 .. cardinality(ids) - 1 BY stride LOOP
        last_token := least(first_token + width - 1, cardinality(ids) - 1);
        CONTINUE WHEN last_token <= n_scored;
        -- Each token is scored once, by the window that gives it the most context.
        targets := array_fill(-1, ARRAY[greatest(n_scored - first_token + 1, 0)])
            || ids[greatest(n_scored + 1, first_token) + 1 : last_token + 1];
        nll := nll + (last_token - n_scored) * public.pg_llm_item(
            public.llm_forward(model, ids[first_token : last_token], false, targets, 0.0)
        );
        n_scored := last_token;
    END LOOP;
    PERFORM public.pg_llm_set_recording(recording, true);
    PERFORM public.pg_llm_arena_close(model);
    RETURN exp(nll / n_scored);
END;
$function$;

COMMENT ON FUNCTION public.llm_perplexity(text, text) IS
'Perplexity of the text under the model: the exponential of the mean negative log-likelihood of its tokens, the first '
'one given the start token. A text longer than the context is scored in windows that overlap by half.';
