-- Training data: filling llm_dataset from a query, and holding its rows against a model.

CREATE FUNCTION public.llm_fill_dataset(
    model text,
    query text,
    block_size int DEFAULT NULL,
    stride int DEFAULT NULL,
    validation double precision DEFAULT 0.1,
    seed bigint DEFAULT 0,
    OUT train_rows bigint,
    OUT validation_rows bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
#variable_conflict use_variable
DECLARE
    config public.llm_model_config := public.llm_config(model);
    documents text[];
    n_held_out int;
BEGIN
    PERFORM public.llm_require(query IS NOT NULL, 'query must not be NULL');
    PERFORM public.llm_require(seed IS NOT NULL, 'seed must not be NULL');
    PERFORM public.llm_require(
        COALESCE(block_size BETWEEN 1 AND config.n_positions, true),
        format('block_size must be between 1 and the context of %s, got %s', config.n_positions, block_size)
    );
    PERFORM public.llm_require(
        COALESCE(stride >= 1 AND stride <= block_size, stride IS NULL),
        format('stride must be between 1 and block_size, got %s', stride)
    );
    PERFORM public.llm_require(
        validation >= 0 AND validation < 1, format('validation must be in [0, 1), got %s', validation)
    );
    PERFORM public.llm_check_tokenizer(model);
    EXECUTE format(
        'SELECT array_agg(s.document ORDER BY convert_to(s.document, ''UTF8'')) FROM (
            SELECT DISTINCT q.document::text COLLATE "C" AS document FROM (%s) AS q (document)
        ) s
        WHERE s.document <> ''''',
        public.llm_subquery(query)
    ) INTO documents;
    IF documents IS NULL THEN
        RAISE EXCEPTION 'the query gave no text'
            USING ERRCODE = 'no_data_found', HINT = 'Its first column is read as the documents.';
    END IF;
    PERFORM public.llm_require_room_to_fill(model, documents, block_size, stride);
    documents := public.llm_split_documents(documents, validation, seed);
    n_held_out := CASE
        WHEN validation > 0 THEN least(greatest(round(cardinality(documents) * validation), 1), cardinality(documents) - 1)
        ELSE 0
    END;
    DELETE FROM public.llm_dataset d WHERE d.model = config.model;
    train_rows := public.llm_insert_blocks(
        config, 'train', documents[n_held_out + 1 :], block_size, COALESCE(stride, block_size)
    );
    validation_rows := public.llm_insert_blocks(
        config, 'validation', documents[: n_held_out], block_size, COALESCE(stride, block_size)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_fill_dataset(text, text, int, int, double precision, bigint) IS
'Replaces the model''s rows of llm_dataset by the documents in the query''s first column and returns the number of rows '
'of each split. Equal documents count once; the share validation of the documents, drawn by seed, is held out, of a '
'single document its end, and no held-out row equals a training row. Documents stand between BOS (end-of-text) tokens. '
'With block_size the documents of a split are joined and cut into rows of that many tokens, one every stride tokens '
'(default block_size); without it each document is a row, cut off at the context.';


CREATE FUNCTION public.llm_split_documents(documents text[], validation double precision, seed bigint)
RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
AS $function$
DECLARE
    n int := cardinality(documents);
    n_kept int;
BEGIN
    IF n = 1 AND validation > 0 AND length(documents[1]) >= 2 THEN
        n_kept := greatest(least(round(length(documents[1]) * (1 - validation))::int, length(documents[1]) - 1), 1);
        RETURN ARRAY[substr(documents[1], n_kept + 1), left(documents[1], n_kept)];
    END IF;
    RETURN ARRAY(
        SELECT documents[p.document + 1]
        FROM unnest(public.pg_llm_permutation(n, seed, 0)) WITH ORDINALITY p (document, position)
        ORDER BY p.position
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_split_documents(text[], double precision, bigint) IS
'The documents in the order drawn by seed, the first of which are to be held out; a single document is cut in two, '
'its end first.';


CREATE FUNCTION public.llm_insert_blocks(
    config public.llm_model_config,
    split text,
    documents text[],
    block_size int,
    stride int
) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
#variable_conflict use_column
DECLARE
    boundary int := public.llm_end_token(config.model);
    n_rows bigint;
BEGIN
    PERFORM public.llm_require_argument('split', llm_insert_blocks.split IS NOT NULL);
    INSERT INTO public.llm_dataset (model, split, tokens, target)
    SELECT config.model, llm_insert_blocks.split, b.tokens, b.target
    FROM (
        SELECT e.number,
            (boundary || e.ids)[: config.n_positions] AS tokens,
            (e.ids || boundary)[: config.n_positions] AS target
        FROM public.llm_encode_documents(documents, config.model) e
        WHERE block_size IS NULL
        UNION ALL
        SELECT s.start,
            stream.ids[s.start : least(s.start + block_size, cardinality(stream.ids)) - 1],
            stream.ids[s.start + 1 : least(s.start + block_size, cardinality(stream.ids))]
        FROM (
            SELECT array_agg(t.id ORDER BY e.number, t.position) || boundary AS ids
            FROM public.llm_encode_documents(documents, config.model) e
            CROSS JOIN LATERAL unnest(boundary || e.ids) WITH ORDINALITY t (id, position)
            WHERE block_size IS NOT NULL
            OFFSET 0
        ) stream
        CROSS JOIN LATERAL generate_series(1, cardinality(stream.ids) - 1, stride) s (start)
        -- A row whose tokens the one before it holds already would only repeat them.
        WHERE s.start = 1 OR s.start - stride + block_size < cardinality(stream.ids)
    ) b
    WHERE llm_insert_blocks.split = 'train' OR NOT EXISTS (
        SELECT FROM public.llm_dataset d
        WHERE d.model = config.model AND d.split = 'train' AND d.tokens = b.tokens
    )
    ORDER BY b.number;
    GET DIAGNOSTICS n_rows = ROW_COUNT;
    RETURN n_rows;
END;
$function$;

COMMENT ON FUNCTION public.llm_insert_blocks(public.llm_model_config, text, text[], int, int) IS
'Encodes the documents of a split and inserts their rows; of other splits than train only those that training does '
'not have.';


CREATE FUNCTION public.llm_dataset_problems(config public.llm_model_config, block_size int)
RETURNS TABLE (id bigint, model text, split text, problem text)
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    SELECT d.id, d.model, d.split, CASE
        WHEN cardinality(d.tokens) = 0 THEN 'has no tokens'
        WHEN block_size IS NULL AND cardinality(d.tokens) > (config).n_positions
            THEN format('has %s tokens, the context holds %s', cardinality(d.tokens), (config).n_positions)
        WHEN EXISTS (SELECT FROM unnest(d.tokens) t (id) WHERE t.id IS NULL OR t.id < 0 OR t.id >= (config).vocab)
            THEN format('has a token outside the vocabulary of %s', (config).vocab)
        WHEN EXISTS (SELECT FROM unnest(d.target) t (id) WHERE t.id IS NULL OR t.id >= (config).vocab)
            THEN format('has a target outside the vocabulary of %s', (config).vocab)
    END
    FROM public.llm_dataset d;
$function$;

COMMENT ON FUNCTION public.llm_dataset_problems(public.llm_model_config, int) IS
'Every row of llm_dataset with the reason why a model of this configuration cannot take it, NULL when it can.';


CREATE FUNCTION public.llm_check_dataset(config public.llm_model_config, split text, block_size int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
AS $function$
DECLARE
    bad record;
BEGIN
    SELECT p.id, p.problem INTO bad
    FROM public.llm_dataset_problems(config, block_size) p
    WHERE (p.model = config.model OR p.model IS NULL) AND p.split = llm_check_dataset.split
        AND p.problem IS NOT NULL
    ORDER BY p.id
    LIMIT 1;
    IF FOUND THEN
        PERFORM public.llm_refuse_row(config.model, bad.id, bad.problem);
    END IF;
    IF NOT EXISTS (
        SELECT FROM public.llm_dataset d
        WHERE (d.model = config.model OR d.model IS NULL) AND d.split = llm_check_dataset.split
    ) THEN
        RAISE EXCEPTION 'llm_dataset has no rows for model "%" with split %',
            config.model, COALESCE('"' || llm_check_dataset.split || '"', 'NULL')
            USING ERRCODE = 'no_data_found',
            HINT = 'llm_fill_dataset(model, query, block_size) makes rows from the result of a query.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_dataset(public.llm_model_config, text, int) IS
'Raises P0002 when the model has no rows of the split; 22003 or 22023, naming the row, when it cannot take one.';


CREATE FUNCTION public.llm_check_row(config public.llm_model_config, row_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
AS $function$
DECLARE
    problem text;
BEGIN
    SELECT p.problem INTO problem FROM public.llm_dataset_problems(config, NULL) p WHERE p.id = row_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'llm_dataset has no row %', COALESCE(row_id::text, 'NULL') USING ERRCODE = 'no_data_found';
    END IF;
    IF problem IS NOT NULL THEN
        PERFORM public.llm_refuse_row(config.model, row_id, problem);
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_row(public.llm_model_config, bigint) IS
'As llm_check_dataset, for one row.';


CREATE FUNCTION public.llm_refuse_row(model text, row_id bigint, problem text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
AS $function$
BEGIN
    RAISE EXCEPTION 'row % of llm_dataset %', row_id, problem
        USING ERRCODE = CASE WHEN problem LIKE '%vocabulary%' THEN '22003' ELSE '22023' END,
        HINT = format('Model "%s" cannot take it: correct or delete the row.', model);
END;
$function$;

COMMENT ON FUNCTION public.llm_refuse_row(text, bigint, text) IS
'The error for a row of data that a model cannot take.';
