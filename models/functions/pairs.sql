-- Data of contrastive training: filling llm_dataset with the pairs of a query.

CREATE FUNCTION public.llm_query_pairs(query text) RETURNS TABLE (texts text[])
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    source text := public.llm_subquery(query);
BEGIN
    PERFORM public.llm_require(query IS NOT NULL, 'query must not be NULL');
    PERFORM public.pg_llm_use_callers_search_path();
    BEGIN
        EXECUTE pg_catalog.format('SELECT FROM (%s) AS q (llm_anchor, llm_positive) LIMIT 0', source);
    EXCEPTION
        WHEN invalid_column_reference THEN
            RAISE EXCEPTION 'the query of pairs has fewer than two columns' USING ERRCODE = 'datatype_mismatch',
                HINT = 'Its first column is the anchor, its second the positive, further ones hard negatives.';
    END;
    -- Of further columns neither number nor names are known: as JSON, whose members keep their order.
    RETURN QUERY EXECUTE pg_catalog.format(
        'SELECT ARRAY[q.llm_anchor::pg_catalog.text, q.llm_positive::pg_catalog.text] OPERATOR(pg_catalog.||) ARRAY(
            SELECT j.value
            FROM pg_catalog.json_each_text(pg_catalog.row_to_json(q)) WITH ORDINALITY AS j (key, value, place)
            WHERE j.place OPERATOR(pg_catalog.>) 2 AND j.value OPERATOR(pg_catalog.<>) ''''
            ORDER BY j.place
        )
        FROM (%s) AS q (llm_anchor, llm_positive)', source
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_query_pairs(text) IS
'The rows of a user''s query as text: the first column (anchor), the second (positive), and what is not NULL or empty '
'of further ones (hard negatives). Names in the query are resolved with the search path of the caller of llm-sql. '
'42804: it has fewer than two columns.';


CREATE FUNCTION public.llm_encode_pair(
    texts text[],
    model text,
    max_tokens int,
    anchor_prompt text,
    positive_prompt text,
    OUT tokens int[],
    OUT target int[],
    OUT n_cut int
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    encoded record;
BEGIN
    tokens := '{}';
    target := '{}';
    n_cut := 0;
    FOR encoded IN
        SELECT e.number, e.ids, e.length
        FROM public.llm_encode_sequences(
            ARRAY(
                SELECT CASE WHEN t.place = 1 THEN anchor_prompt ELSE positive_prompt END || t.text
                FROM unnest(texts) WITH ORDINALITY t (text, place)
                ORDER BY t.place
            ), model, max_tokens
        ) e
        ORDER BY e.number
    LOOP
        n_cut := n_cut + (encoded.length > max_tokens)::int;
        IF cardinality(encoded.ids) > 0 THEN
            tokens := tokens || encoded.ids;
            target := target || array_fill(
                CASE WHEN encoded.number <= 2 THEN encoded.number::int - 1 ELSE target[cardinality(target)] + 1 END,
                ARRAY[cardinality(encoded.ids)]
            );
        ELSIF encoded.number <= 2 THEN
            -- A tokenizer that adds nothing makes nothing of blanks.
            tokens := NULL;
            RETURN;
        END IF;
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_encode_pair(text[], text, int, text, text) IS
'Anchor, positive and negatives as a row of llm_dataset: their sequences one after another, and for each token the '
'number of its own. n_cut: how many texts were cut to max_tokens. tokens is NULL where anchor or positive have none.';


CREATE FUNCTION public.llm_fill_pairs(
    model text,
    query text,
    split text DEFAULT 'train',
    validation double precision DEFAULT 0,
    seed bigint DEFAULT 0,
    anchor_prompt text DEFAULT NULL,
    positive_prompt text DEFAULT NULL,
    max_tokens int DEFAULT NULL,
    OUT pairs bigint,
    OUT validation_pairs bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    config public.llm_model_config := public.llm_config(model);
    longest CONSTANT int := public.llm_max_tokens(config);
    anchor_prefix text;
    positive_prefix text;
    told record;
    n_same bigint;
BEGIN
    PERFORM public.llm_require_encoder(config, 'llm_fill_pairs', 'llm_fill_dataset makes rows of text.');
    PERFORM public.llm_require(split <> '', 'split must be a name');
    PERFORM public.llm_require(seed IS NOT NULL, 'seed must not be NULL');
    PERFORM public.llm_require(
        validation >= 0 AND validation < 1, format('validation must be in [0, 1), got %s', validation)
    );
    PERFORM public.llm_require(
        validation = 0 OR split <> 'validation', 'held-out pairs are not split once more',
        'Omit validation, or fill split train.'
    );
    PERFORM public.llm_require(
        COALESCE(max_tokens BETWEEN 1 AND longest, true),
        format('max_tokens must be between 1 and the %s that the model takes, got %s', longest, max_tokens)
    );
    PERFORM public.llm_check_tokenizer(model);
    anchor_prefix := public.llm_embed_prefix(config, anchor_prompt);
    positive_prefix := public.llm_embed_prefix(config, positive_prompt);
    DELETE FROM public.llm_dataset d
    WHERE d.model = config.model AND (d.split = split OR (validation > 0 AND d.split = 'validation'));
    WITH given AS MATERIALIZED (
        SELECT q.texts, count(*) AS copies, COALESCE(q.texts[1] <> '' AND q.texts[2] <> '', false) AS usable
        FROM (SELECT p.texts COLLATE "C" AS texts FROM public.llm_query_pairs(query) p) q
        GROUP BY q.texts
    ),
    encoded AS MATERIALIZED (
        SELECT g.texts, g.copies, e.*
        FROM given g
        CROSS JOIN LATERAL public.llm_encode_pair(
            g.texts, config.model, COALESCE(max_tokens, longest), anchor_prefix, positive_prefix
        ) e
        WHERE g.usable
    ),
    numbered AS MATERIALIZED (
        -- Texts that the tokenizer does not tell apart are one.
        SELECT d.tokens, d.target, row_number() OVER (ORDER BY d.texts) - 1 AS number
        FROM (
            SELECT DISTINCT ON (e.tokens, e.target) e.texts, e.tokens, e.target
            FROM encoded e
            WHERE e.tokens IS NOT NULL
            ORDER BY e.tokens, e.target, e.texts
        ) d
    ),
    drawn AS (
        SELECT p.number, p.place
        FROM unnest(public.pg_llm_permutation((SELECT NULLIF(count(*), 0) FROM numbered), seed, 0))
            WITH ORDINALITY p (number, place)
    ),
    inserted AS (
        INSERT INTO public.llm_dataset (model, split, tokens, target)
        SELECT config.model, CASE WHEN n.is_out THEN 'validation' ELSE split END, n.tokens, n.target
        FROM (
            SELECT n.*, validation > 0 AND d.place <= least(
                greatest(round(count(*) OVER () * validation), 1), count(*) OVER () - 1
            ) AS is_out
            FROM numbered n
            INNER JOIN drawn d ON d.number = n.number
        ) n
        ORDER BY n.is_out, n.number
        RETURNING llm_dataset.split = split AS is_in
    )
    SELECT i.n_in, i.n_out, s.n_empty, e.n_blank, e.n_texts, e.n_cut INTO told
    FROM (SELECT count(*) FILTER (WHERE j.is_in), count(*) FILTER (WHERE NOT j.is_in) FROM inserted j) i (n_in, n_out)
    CROSS JOIN (SELECT COALESCE(sum(g.copies) FILTER (WHERE NOT g.usable), 0) FROM given g) s (n_empty)
    CROSS JOIN (
        SELECT COALESCE(sum(c.copies) FILTER (WHERE c.tokens IS NULL), 0), COALESCE(sum(cardinality(c.texts)), 0),
            COALESCE(sum(c.n_cut), 0)
        FROM encoded c
    ) e (n_blank, n_texts, n_cut);
    pairs := told.n_in;
    validation_pairs := told.n_out;
    IF pairs + validation_pairs = 0 THEN
        RAISE EXCEPTION 'the query returned no pair of texts' USING ERRCODE = 'no_data_found',
            DETAIL = format('Of its rows, %s have a NULL or an empty text for an anchor or a positive.',
                told.n_empty + told.n_blank),
            HINT = 'Its first column is the anchor, its second the positive, further ones hard negatives.';
    END IF;
    IF told.n_empty + told.n_blank > 0 THEN
        RAISE NOTICE '% rows of the query were left out: the anchor or the positive is NULL or has no text',
            told.n_empty + told.n_blank;
    END IF;
    IF told.n_cut > 0 THEN
        RAISE NOTICE '% of % texts are longer than the % tokens of a sequence, and were cut',
            told.n_cut, told.n_texts, COALESCE(max_tokens, longest);
    END IF;
    IF split <> 'train' THEN
        WITH gone AS (
            DELETE FROM public.llm_dataset h
            USING public.llm_dataset t
            WHERE h.model = config.model AND h.split = split AND t.model = config.model AND t.split = 'train'
                AND t.tokens = h.tokens AND t.target = h.target
            RETURNING 1
        )
        SELECT count(*) INTO n_same FROM gone;
        pairs := pairs - n_same;
        IF n_same > 0 THEN
            RAISE NOTICE '% pairs for % were left out: training has them', n_same, split;
        END IF;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_fill_pairs(
    text, text, text, double precision, bigint, text, text, int
) IS
'Replaces an encoder''s rows of a split of llm_dataset with the pairs of a query: its first column is the anchor, its '
'second the positive, further ones are hard negatives, of which NULL and empty ones are left out. Equal pairs count '
'once; rows without an anchor or a positive are left out, which a NOTICE counts. The fraction validation of the '
'pairs, drawn by seed, goes into split validation instead, whose rows are replaced then. A split other than train '
'leaves out pairs that train has: fill train first. anchor_prompt, positive_prompt (which negatives have, too): names '
'of prompts among the model''s settings, put before the texts (NULL: its default_prompt, '''': none). Texts are cut to '
'max_tokens with the special tokens (default: what the model takes), which a NOTICE counts. Returns the numbers of '
'pairs. P0002: there is none; 42804: the query has fewer than two columns; 0A000: the model is no encoder; 22023: it '
'has no such prompt; 42704: it has no tokenizer.';
