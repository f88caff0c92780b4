-- Likelihood of held-out data, of documents and of a text.

CREATE FUNCTION public.llm_windows(n int, width int, stride int)
RETURNS TABLE (first int, last int, fresh int)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
    SELECT w.first, least(w.first + width - 1, n), CASE WHEN w.first = 1 THEN 1 ELSE w.first - stride + width END
    FROM generate_series(1, n, stride) w (first)
    WHERE w.first = 1 OR w.first - stride + width <= n;
$function$;

COMMENT ON FUNCTION public.llm_windows(int, int, int) IS
'Windows of width positions over the positions 1 to n, starting stride (at most width) positions apart: first and '
'last position, and the first position that no earlier window covers.';


CREATE FUNCTION public.llm_pin_statement(model text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF NOT public.pg_llm_arena_pinned(model) THEN
        PERFORM public.llm_pin(model);
        PERFORM public.pg_llm_arena_pin_statement(model);
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_pin_statement(text) IS
'Pins the model''s weights in memory until the running statement ends, so that all its rows are computed with one '
'version, which is looked up once.';


CREATE FUNCTION public.llm_evaluate(
    model text,
    split text DEFAULT 'validation',
    stride int DEFAULT NULL,
    query text DEFAULT NULL,
    OUT tokens bigint,
    OUT nll double precision,
    OUT perplexity double precision
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config := public.llm_config(model);
    recording boolean := public.pg_llm_recording();
    batch record;
BEGIN
    PERFORM public.llm_require_decoder(
        config, 'llm_evaluate', 'llm_recall(model, split, k) evaluates an encoder on its pairs.'
    );
    PERFORM public.llm_require(
        COALESCE(stride BETWEEN 1 AND config.n_positions, true),
        format('stride must be between 1 and the context of %s, got %s', config.n_positions, stride)
    );
    IF query IS NULL THEN
        PERFORM public.llm_check_dataset(
            config, split, CASE WHEN stride IS NOT NULL THEN config.n_positions END
        );
    END IF;
    PERFORM public.llm_pin(model);
    PERFORM public.pg_llm_set_recording(false, true);
    tokens := 0;
    nll := 0;
    FOR batch IN
        SELECT b.rows, b.targets, b.n_targets FROM public.llm_evaluation_batches(config, split, stride, query) b
    LOOP
        tokens := tokens + batch.n_targets;
        nll := nll + batch.n_targets * public.pg_llm_item(
            public.llm_forward(model, batch.rows, false, batch.targets, 0.0)
        );
    END LOOP;
    PERFORM public.pg_llm_set_recording(recording, true);
    PERFORM public.pg_llm_arena_close(model);
    IF query IS NOT NULL AND tokens = 0 THEN
        RAISE EXCEPTION 'the query returned no text' USING ERRCODE = 'no_data_found',
            HINT = 'The documents are read from its first column.';
    END IF;
    nll := nll / NULLIF(tokens, 0);
    perplexity := exp(nll);
END;
$function$;

COMMENT ON FUNCTION public.llm_evaluate(text, text, int, text) IS
'Returns the number of tokens predicted, their mean negative log-likelihood in nats, and its exponential, the '
'perplexity. Evaluates the rows of the split that belong to the model or to any model, or instead the documents in '
'the query''s first column, each after the begin-of-text token if there is one. With a stride, and for documents, a '
'text longer than the context is read in windows of the context''s length that start stride tokens apart (for '
'documents by default half the context); each token counts once, in the window that gives it the most context. Writes '
'nothing. P0002: no rows; 22023: a row longer than the context without a stride; 22003: a token outside the '
'vocabulary.';


CREATE FUNCTION public.llm_log_evaluation(
    model text,
    split text DEFAULT 'validation',
    stride int DEFAULT NULL,
    OUT step bigint,
    OUT tokens bigint,
    OUT nll double precision,
    OUT perplexity double precision
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_config(model);
    -- Before the work and not after it.
    IF NOT has_table_privilege('public.llm_eval_log', 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for table llm_eval_log'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'This requires the role llm_trainer. llm_evaluate measures the same and stores nothing.';
    END IF;
    step := public.llm_model_step(model);
    SELECT e.tokens, e.nll, e.perplexity INTO tokens, nll, perplexity
    FROM public.llm_evaluate(model, split, stride) e;
    IF public.llm_model_step(model) <> step THEN
        RAISE EXCEPTION 'model "%" was trained while it was evaluated', model
            USING ERRCODE = 'serialization_failure',
            HINT = 'Evaluate it again, or in a transaction with isolation level REPEATABLE READ.';
    END IF;
    -- Rows without a single target to count have no loss.
    INSERT INTO public.llm_eval_log (model, step, tape_id, split, tokens, loss)
    SELECT llm_log_evaluation.model, llm_log_evaluation.step, (
        SELECT l.tape_id FROM public.llm_train_log l
        WHERE l.model = llm_log_evaluation.model AND l.step = llm_log_evaluation.step AND NOT l.superseded
    ), llm_log_evaluation.split, llm_log_evaluation.tokens, nll
    WHERE llm_log_evaluation.tokens > 0;
END;
$function$;

COMMENT ON FUNCTION public.llm_log_evaluation(text, text, int) IS
'llm_evaluate(model, split, stride), whose result it also stores in llm_eval_log with the number of steps that the '
'weights have taken: called between two calls of training, it measures held-out loss over time. 40001: the model was '
'trained meanwhile; otherwise as for llm_evaluate.';


CREATE FUNCTION public.llm_evaluation_batches(
    config public.llm_model_config,
    split text,
    stride int,
    query text
) RETURNS TABLE (rows int[], targets int[], n_targets bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    source text := 'SELECT d.id, d.tokens, d.target FROM public.llm_dataset d
        WHERE (d.model = $1 OR d.model IS NULL) AND d.split = $2';
BEGIN
    IF query IS NOT NULL THEN
        source := 'SELECT e.id, e.ids[: cardinality(e.ids) - 1] AS tokens, e.ids[2 :] AS target
            FROM (
                SELECT q.id,
                    array_remove(ARRAY[public.llm_begin_token($1)], NULL) || public.llm_encode(q.document, $1) AS ids
                FROM public.llm_query_documents($5) WITH ORDINALITY q (document, id)
                WHERE q.document <> ''''
                OFFSET 0
            ) e';
    END IF;
    -- Windows of one length share a batch of about 4096 tokens; which, changes nothing in the result.
    RETURN QUERY EXECUTE format(
        'SELECT array_agg(b.tokens ORDER BY b.id, b.first), array_agg(b.target ORDER BY b.id, b.first),
            sum(b.n_targets)::bigint
        FROM (
            SELECT w.*, cardinality(w.tokens) AS length,
                (SELECT count(*) FROM unnest(w.target) t WHERE t >= 0) AS n_targets,
                (row_number() OVER (PARTITION BY cardinality(w.tokens) ORDER BY w.id, w.first) - 1)
                    / greatest(4096 / cardinality(w.tokens), 1) AS number
            FROM (
                SELECT d.id, s.first, d.tokens[s.first : s.last] AS tokens,
                    array_fill(-1, ARRAY[s.fresh - s.first]) || d.target[s.fresh : s.last] AS target
                FROM (%s) d
                CROSS JOIN LATERAL public.llm_windows(cardinality(d.tokens), $3, $4) s
            ) w
        ) b
        GROUP BY b.length, b.number
        ORDER BY b.length, b.number',
        source
    )
    USING config.model, split, config.n_positions, COALESCE(stride, greatest(config.n_positions / 2, 1)), query;
END;
$function$;

COMMENT ON FUNCTION public.llm_evaluation_batches(public.llm_model_config, text, int, text) IS
'The batches that llm_evaluate computes: windows of equal length, with targets that another window counts set to -1, '
'and the number of targets.';


CREATE FUNCTION public.llm_perplexity(model text, text text, stride int DEFAULT NULL) RETURNS double precision
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    recording boolean := public.pg_llm_recording();
    ids int[];
    n int;
    span record;
    nll double precision := 0;
BEGIN
    IF model IS NULL OR llm_perplexity.text IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    PERFORM public.llm_require_decoder(config, 'llm_perplexity');
    PERFORM public.llm_require(
        COALESCE(stride BETWEEN 1 AND config.n_positions, true),
        format('stride must be between 1 and the context of %s, got %s', config.n_positions, stride)
    );
    ids := array_remove(ARRAY[public.llm_begin_token(model)], NULL) || public.llm_encode(llm_perplexity.text, model);
    n := cardinality(ids) - 1;
    PERFORM public.llm_require(
        n >= 1,
        format('a text of %s has no perplexity', CASE
            WHEN public.llm_begin_token(model) IS NULL AND n = 0 THEN 'one token that nothing precedes' ELSE 'no tokens'
        END)
    );
    PERFORM public.llm_pin_statement(model);
    PERFORM public.pg_llm_set_recording(false, true);
    FOR span IN
        SELECT s.first, s.last, s.fresh
        FROM public.llm_windows(n, config.n_positions, COALESCE(stride, greatest(config.n_positions / 2, 1))) s
    LOOP
        nll := nll + (span.last - span.fresh + 1) * public.pg_llm_item(public.llm_forward(
            model, ids[span.first : span.last], false,
            array_fill(-1, ARRAY[span.fresh - span.first]) || ids[span.fresh + 1 : span.last + 1], 0.0
        ));
    END LOOP;
    PERFORM public.pg_llm_set_recording(recording, true);
    RETURN exp(nll / n);
END;
$function$;

COMMENT ON FUNCTION public.llm_perplexity(text, text, int) IS
'Perplexity of the text under the model: the exponential of the mean negative log-likelihood of its tokens. The first '
'token is predicted from the begin-of-text token if the tokenizer has one. A text longer than the context is read in '
'windows that start stride tokens apart (default: half the context); each token counts once. All calls in a statement '
'use one version of the weights.';
