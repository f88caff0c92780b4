-- Beam search: the likeliest continuations that a search over several candidates at a time finds.

CREATE FUNCTION public.llm_beam_search(
    prompt text,
    beam_width int DEFAULT 3,
    max_tokens int DEFAULT 64,
    model text DEFAULT NULL,
    length_penalty double precision DEFAULT 1,
    early_stopping boolean DEFAULT false
) RETURNS TABLE (rank int, score double precision, text text, token_ids int[])
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    generation record;
    beams int[];
    totals double precision[] := '{0}';
    best record;
    finished text[] := '{}';
    scores double precision[] := '{}';
BEGIN
    IF prompt IS NULL THEN
        RETURN;
    END IF;
    PERFORM public.llm_require(c.holds, format('%s must %s, got %s', c.name, c.rule, COALESCE(c.value, 'NULL')))
    FROM (
        VALUES
        ('beam_width', beam_width BETWEEN 1 AND 1024, 'be between 1 and 1024', beam_width::text),
        ('length_penalty', abs(length_penalty) < 'Infinity', 'be finite', length_penalty::text),
        ('early_stopping', early_stopping IS NOT NULL, 'be true or false', NULL),
        ('max_tokens', max_tokens >= 1, 'be at least 1', max_tokens::text)
    ) c (name, holds, rule, value);
    generation := public.llm_generation_open(prompt, model);
    beams := ARRAY[generation.handle];
    FOR step IN 1 .. max_tokens LOOP
        best := public.llm_beam_candidates(
            beams, totals, generation.chosen, generation.context,
            (1 + greatest(cardinality(generation.end_tokens), 1)) * beam_width
        );
        -- Of so many candidates at least beam_width go on, as only one per end token and beam ends; only the first
        -- beam_width may end.
        SELECT array_agg(f.score ORDER BY f.score DESC, f.ids), array_agg(f.ids::text ORDER BY f.score DESC, f.ids)
        INTO scores, finished
        FROM (
            SELECT a.score, a.ids
            FROM (
                SELECT o.score, o.ids::int[] AS ids FROM unnest(scores, finished) o (score, ids)
                UNION ALL
                SELECT c.total / step ^ length_penalty,
                    (public.pg_llm_gen_tokens(beams[c.beam]) || c.token)[generation.n_prompt + 1 :]
                FROM unnest(best.beams, best.tokens, best.totals) WITH ORDINALITY c (beam, token, total, place)
                WHERE c.place <= beam_width AND (c.token = ANY (generation.end_tokens) OR step = max_tokens)
            ) a
            ORDER BY a.score DESC, a.ids
            LIMIT beam_width
        ) f;
        EXIT WHEN step = max_tokens;
        best := public.llm_beam_advance(beams, best.beams, best.tokens, best.totals, generation.end_tokens, beam_width);
        beams := best.handles;
        totals := best.totals;
        -- The best beam, were it to end here, would no longer be among the finished ones.
        EXIT WHEN cardinality(beams) = 0 OR cardinality(finished) = beam_width AND (
            early_stopping OR totals[1] / step ^ length_penalty <= scores[beam_width]
        );
    END LOOP;
    PERFORM public.pg_llm_gen_close(b.handle) FROM unnest(beams) b (handle);
    FOR rank, score, token_ids IN
        SELECT f.place::int, f.score, f.ids::int[]
        FROM unnest(scores, finished) WITH ORDINALITY f (score, ids, place)
        ORDER BY f.place
    LOOP
        text := public.pg_llm_utf8_text(public.llm_token_bytes(
            public.llm_known_tokens(
                trim_array(token_ids, CASE
                    WHEN token_ids[cardinality(token_ids)] = ANY (generation.end_tokens) THEN 1 ELSE 0
                END),
                generation.chosen
            ),
            generation.chosen
        ));
        RETURN NEXT;
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_beam_search(text, int, int, text, double precision, boolean) IS
'Returns the beam_width best continuations of at most max_tokens tokens, best first, as transformers'' beam search '
'without sampling finds them. score: the sum of the tokens'' log probabilities divided by (number of tokens) ^ '
'length_penalty (0: the sum itself); ties are broken by token ids. token_ids include a final end-of-text token; score '
'counts it, text leaves it out. The search stops when no beam can improve on the finished continuations; with '
'early_stopping, as soon as beam_width continuations are finished. Writes nothing. 22023: an argument is out of '
'range.';


CREATE FUNCTION public.llm_beam_candidates(
    handles int[],
    scores double precision[],
    model text,
    context int,
    n int,
    OUT beams int[],
    OUT tokens int[],
    OUT totals double precision[]
)
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    top record;
BEGIN
    FOR top IN
        SELECT array_position(handles, l.handle) AS beam, (t.t).token_ids, (t.t).log_probs
        FROM public.llm_generations_logits(handles, model, context) l
        CROSS JOIN LATERAL (SELECT public.pg_llm_top_tokens(l.logits, n) AS t OFFSET 0) t
    LOOP
        beams := beams || array_fill(top.beam, ARRAY[cardinality(top.token_ids)]);
        tokens := tokens || top.token_ids;
        totals := totals || ARRAY(SELECT scores[top.beam] + l.log_prob FROM unnest(top.log_probs) l (log_prob));
    END LOOP;
    SELECT array_agg(c.beam ORDER BY c.place), array_agg(c.token ORDER BY c.place),
        array_agg(c.total ORDER BY c.place)
    INTO beams, tokens, totals
    FROM (
        SELECT a.beam, a.token, a.total, row_number() OVER (
            ORDER BY a.total DESC, public.pg_llm_gen_tokens(handles[a.beam]) || a.token
        ) AS place
        FROM unnest(beams, tokens, totals) a (beam, token, total)
        ORDER BY place
        LIMIT n
    ) c;
END;
$function$;

COMMENT ON FUNCTION public.llm_beam_candidates(int[], double precision[], text, int, int) IS
'The n best extensions of the beams by one token, best first: number of the beam (from 1), token, and the beam''s '
'score plus the token''s log probability.';


CREATE FUNCTION public.llm_beam_advance(
    parents int[],
    beams int[],
    tokens int[],
    scores double precision[],
    end_tokens int[],
    beam_width int,
    OUT handles int[],
    OUT totals double precision[]
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    child record;
    handle int;
BEGIN
    handles := '{}';
    totals := '{}';
    FOR child IN
        SELECT c.beam, c.token, c.score, row_number() OVER (PARTITION BY c.beam ORDER BY c.place DESC) = 1 AS is_last
        FROM (
            SELECT a.beam, a.token, a.score, a.place
            FROM unnest(beams, tokens, scores) WITH ORDINALITY a (beam, token, score, place)
            WHERE a.token <> ALL (end_tokens)
            ORDER BY a.place
            LIMIT beam_width
        ) c
        ORDER BY c.place
    LOOP
        -- A beam's last child takes over its cache, those before it get copies.
        handle := parents[child.beam];
        IF NOT child.is_last THEN
            handle := public.pg_llm_gen_fork(handle);
        END IF;
        PERFORM public.pg_llm_gen_push(handle, child.token);
        handles := handles || handle;
        totals := totals || child.score;
    END LOOP;
    PERFORM public.pg_llm_gen_close(p.handle) FROM unnest(parents) p (handle) WHERE p.handle <> ALL (handles);
END;
$function$;

COMMENT ON FUNCTION public.llm_beam_advance(int[], int[], int[], double precision[], int[], int) IS
'The generations of the next step: the best beam_width candidates that do not end, each with its token. Beams without '
'a successor are closed.';
