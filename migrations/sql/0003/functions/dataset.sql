-- Training data: filling llm_dataset from a query, and holding its rows against a model.

CREATE FUNCTION public.llm_fill_dataset(
    model text,
    query text,
    block_size int DEFAULT NULL,
    stride int DEFAULT NULL,
    validation double precision DEFAULT 0.1,
    seed bigint DEFAULT 0,
    keep_order boolean DEFAULT false,
    OUT train_rows bigint,
    OUT validation_rows bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    config public.llm_model_config := public.llm_config(model);
    documents text[];
    -- Which of the documents are held out, as many as there are documents.
    held_out boolean[];
BEGIN
    PERFORM public.llm_require_decoder(
        config, 'llm_fill_dataset', 'llm_fill_pairs(model, query) fills the data of an encoder.'
    );
    PERFORM public.llm_require(query IS NOT NULL, 'query must not be NULL');
    PERFORM public.llm_require(seed IS NOT NULL, 'seed must not be NULL');
    PERFORM public.llm_require(keep_order IS NOT NULL, 'keep_order must not be NULL');
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
    IF keep_order THEN
        SELECT array_agg(q.document ORDER BY q.n) INTO documents
        FROM public.llm_query_documents(query) WITH ORDINALITY q (document, n)
        WHERE q.document <> '';
    ELSE
        SELECT array_agg(s.document ORDER BY convert_to(s.document, 'UTF8')) INTO documents
        FROM (SELECT DISTINCT q.document COLLATE "C" AS document FROM public.llm_query_documents(query) q (document)) s
        WHERE s.document <> '';
    END IF;
    IF documents IS NULL THEN
        RAISE EXCEPTION 'the query returned no text'
            USING ERRCODE = 'no_data_found', HINT = 'The documents are read from its first column.';
    END IF;
    PERFORM public.llm_require_room_to_fill(model, documents, block_size, stride);
    SELECT s.documents, s.held_out INTO documents, held_out
    FROM public.llm_split_documents(documents, validation, seed, keep_order) s;
    DELETE FROM public.llm_dataset d WHERE d.model = config.model;
    train_rows := public.llm_insert_blocks(
        config, 'train',
        ARRAY(
            SELECT d.d FROM unnest(documents, held_out) WITH ORDINALITY d (d, is_out, n)
            WHERE NOT d.is_out ORDER BY d.n),
        block_size, COALESCE(stride, block_size)
    );
    validation_rows := public.llm_insert_blocks(
        config, 'validation',
        ARRAY(SELECT d.d FROM unnest(documents, held_out) WITH ORDINALITY d (d, is_out, n) WHERE d.is_out ORDER BY d.n),
        block_size, COALESCE(stride, block_size)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_fill_dataset(text, text, int, int, double precision, bigint, boolean) IS
'Replaces the model''s rows of llm_dataset with the documents in the query''s first column and returns the number of '
'rows per split. Duplicate documents count once. The fraction validation of the documents, drawn by seed, is held '
'out; of a single document, its end. No held-out row equals a training row. keep_order: rows are in the query''s '
'order and duplicates are kept; validation is then a fraction of the distinct documents, and all copies of a document '
'are held out or none. The tokenizer''s begin and end tokens, if any, are put around documents. block_size: the '
'documents of a split are joined and cut into rows of that many tokens that start stride tokens apart (default: '
'block_size). Without it each document is a row, truncated to the context, and a NOTICE reports what was cut off.';


CREATE FUNCTION public.llm_split_documents(
    given text[],
    validation double precision,
    seed bigint,
    keep_order boolean,
    OUT documents text[],
    OUT held_out boolean[]
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n_different int;
    n_held_out int;
    cut int;
BEGIN
    SELECT count(DISTINCT g.d COLLATE "C") INTO n_different FROM unnest(given) g (d);
    IF n_different = 1 AND validation > 0 AND length(given[1]) >= 2 THEN
        cut := greatest(least(round(length(given[1]) * (1 - validation))::int, length(given[1]) - 1), 1);
        -- Where the database knows bytes only, no character of UTF-8 is cut.
        WHILE cut > 1 AND getdatabaseencoding() = 'SQL_ASCII'
            AND get_byte(convert_to(substr(given[1], cut + 1, 1), 'SQL_ASCII'), 0) BETWEEN 128 AND 191
        LOOP
            cut := cut - 1;
        END LOOP;
        SELECT array_agg(left(g.d, cut) ORDER BY g.n) || substr(given[1], cut + 1),
            array_agg(false ORDER BY g.n) || true
        INTO documents, held_out
        FROM unnest(given) WITH ORDINALITY g (d, n);
        RETURN;
    END IF;
    n_held_out := CASE
        WHEN validation > 0 THEN least(greatest(round(n_different * validation), 1), n_different - 1) ELSE 0
    END;
    -- Without keep_order the documents are different, and stand in the order that was drawn.
    SELECT array_agg(g.d ORDER BY CASE WHEN keep_order THEN g.n ELSE o.place END),
        array_agg(o.place <= n_held_out ORDER BY CASE WHEN keep_order THEN g.n ELSE o.place END)
    INTO documents, held_out
    FROM unnest(given) WITH ORDINALITY g (d, n)
    INNER JOIN (
        SELECT s.d, p.place
        FROM (
            SELECT u.d, row_number() OVER (ORDER BY convert_to(u.d, 'UTF8')) - 1 AS number
            FROM (SELECT DISTINCT g.d COLLATE "C" AS d FROM unnest(given) g (d)) u
        ) s
        INNER JOIN unnest(public.pg_llm_permutation(n_different, seed, 0)) WITH ORDINALITY p (number, place)
            ON p.number = s.number
    ) o ON o.d = g.d COLLATE "C";
END;
$function$;

COMMENT ON FUNCTION public.llm_split_documents(text[], double precision, bigint, boolean) IS
'The documents, in their order or in the order drawn by seed, and which of them are held out: the first distinct ones '
'of the drawn order with all their copies; of a single document, its end.';


CREATE FUNCTION public.llm_insert_blocks(
    config public.llm_model_config,
    split text,
    documents text[],
    block_size int,
    stride int
) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    n_rows bigint;
BEGIN
    PERFORM public.llm_require_argument('split', llm_insert_blocks.split IS NOT NULL);
    IF block_size IS NULL THEN
        RETURN public.llm_insert_documents(config, split, documents);
    END IF;
    INSERT INTO public.llm_dataset (model, split, tokens, target)
    SELECT config.model, llm_insert_blocks.split, b.tokens, b.target
    FROM (
        SELECT s.start,
            stream.ids[s.start : least(s.start + block_size, cardinality(stream.ids)) - 1] AS tokens,
            stream.ids[s.start + 1 : least(s.start + block_size, cardinality(stream.ids))] AS target
        FROM (
            SELECT array_agg(t.id ORDER BY e.number, t.position) || e_end.ids AS ids
            FROM public.llm_encode_documents(documents, config.model) e
            CROSS JOIN public.llm_boundaries(config.model) AS b (first_ids, between_ids, last_ids)
            CROSS JOIN LATERAL (SELECT b.last_ids AS ids) e_end
            CROSS JOIN LATERAL unnest(CASE e.number WHEN 1 THEN b.first_ids ELSE b.between_ids END || e.ids)
                WITH ORDINALITY t (id, position)
            GROUP BY e_end.ids
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
    ORDER BY b.start;
    GET DIAGNOSTICS n_rows = ROW_COUNT;
    RETURN n_rows;
END;
$function$;

COMMENT ON FUNCTION public.llm_insert_blocks(public.llm_model_config, text, text[], int, int) IS
'Encodes the documents of a split, joins them and inserts their rows. For splits other than train, rows that training '
'also has are left out.';


CREATE FUNCTION public.llm_boundaries(model text, OUT first_ids int[], OUT between_ids int[], OUT last_ids int[])
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    first_ids := array_remove(ARRAY[public.llm_begin_token(model)], NULL);
    last_ids := array_remove(ARRAY[public.llm_end_token(model)], NULL);
    between_ids := CASE WHEN first_ids = last_ids THEN last_ids ELSE last_ids || first_ids END;
END;
$function$;

COMMENT ON FUNCTION public.llm_boundaries(text) IS
'The tokens before the first of joined documents, between two of them, and after the last: the tokens that end and '
'begin a document, only one where they are the same, none where the tokenizer has none.';


CREATE FUNCTION public.llm_insert_documents(config public.llm_model_config, split text, documents text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    edges record := public.llm_boundaries(config.model);
    n_rows bigint;
    n_short bigint;
    n_long bigint;
    n_dropped bigint;
BEGIN
    PERFORM public.llm_require_argument('split', llm_insert_documents.split IS NOT NULL);
    WITH encoded AS MATERIALIZED (
        SELECT e.number, edges.first_ids || e.ids || edges.last_ids AS ids
        FROM public.llm_encode_documents(documents, config.model) e
    ),
    inserted AS (
        INSERT INTO public.llm_dataset (model, split, tokens, target)
        SELECT config.model, llm_insert_documents.split, b.tokens, b.target
        FROM (
            SELECT e.number, e.ids[: least(cardinality(e.ids) - 1, config.n_positions)] AS tokens,
                e.ids[2 : least(cardinality(e.ids), config.n_positions + 1)] AS target
            FROM encoded e
            WHERE cardinality(e.ids) > 1
        ) b
        WHERE llm_insert_documents.split = 'train' OR NOT EXISTS (
            SELECT FROM public.llm_dataset d
            WHERE d.model = config.model AND d.split = 'train' AND d.tokens = b.tokens
        )
        ORDER BY b.number
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM inserted), count(*) FILTER (WHERE cardinality(e.ids) <= 1),
        count(*) FILTER (WHERE cardinality(e.ids) > config.n_positions + 1),
        sum(cardinality(e.ids) - 1 - config.n_positions) FILTER (WHERE cardinality(e.ids) > config.n_positions + 1)
    INTO n_rows, n_short, n_long, n_dropped
    FROM encoded e;
    IF n_long > 0 THEN
        RAISE NOTICE '% of % tokens of % documents for % are beyond the context of % and were left out',
            n_dropped, n_dropped + n_long * config.n_positions, n_long, split, config.n_positions
            USING HINT = 'With block_size, documents are joined and cut into rows, and nothing is left out.';
    END IF;
    IF n_short > 0 THEN
        RAISE NOTICE '% documents for % were left out: a single token leaves nothing to predict', n_short, split
            USING HINT = 'A tokenizer with an end-of-text token, or block_size, would keep them.';
    END IF;
    RETURN n_rows;
END;
$function$;

COMMENT ON FUNCTION public.llm_insert_documents(public.llm_model_config, text, text[]) IS
'Encodes the documents of a split and inserts each as a row, truncated to the context. For splits other than train, '
'rows that training also has are left out.';


CREATE FUNCTION public.llm_dataset_problems(config public.llm_model_config, block_size int)
RETURNS TABLE (id bigint, model text, split text, problem text)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    -- A body that is parsed once can be inlined, so that conditions reach the index, and needs no search_path.
    SELECT d.id, d.model, d.split, CASE
        WHEN cardinality(d.tokens) = 0 THEN 'has no tokens'
        -- Those of an encoder are pairs. Of a batch of them each is looked at again.
        WHEN (SELECT a.kind FROM public.llm_arch a WHERE a.arch = (config).arch) = 'encoder' THEN CASE
            WHEN NOT public.pg_llm_ids_within(d.tokens, 0, (config).vocab)
                THEN format('has a token outside the vocabulary of %s', (config).vocab)
            ELSE public.pg_llm_pair_problem(d.tokens, d.target, public.llm_max_tokens(config))
        END
        WHEN block_size IS NULL AND cardinality(d.tokens) > (config).n_positions
            THEN format('has %s tokens, the context holds %s', cardinality(d.tokens), (config).n_positions)
        WHEN NOT public.pg_llm_ids_within(d.tokens, 0, (config).vocab)
            THEN format('has a token outside the vocabulary of %s', (config).vocab)
        WHEN NOT public.pg_llm_ids_within(d.target, -2147483648, (config).vocab)
            THEN format('has a target outside the vocabulary of %s', (config).vocab)
    END
    FROM public.llm_dataset d;
END;

COMMENT ON FUNCTION public.llm_dataset_problems(public.llm_model_config, int) IS
'Every row of llm_dataset with the reason why a model of this configuration cannot use it; NULL if it can.';


CREATE FUNCTION public.llm_check_dataset(config public.llm_model_config, split text, block_size int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
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
            HINT = CASE
                WHEN public.llm_is_encoder(config)
                    THEN 'llm_fill_pairs(model, query, split) creates rows from the result of a query.'
                ELSE 'llm_fill_dataset(model, query, block_size) creates rows from the result of a query.'
            END;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_dataset(public.llm_model_config, text, int) IS
'Raises P0002 if the model has no rows of the split, and 22003 or 22023, naming the row, if it cannot use one.';


CREATE FUNCTION public.llm_check_row(config public.llm_model_config, row_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
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
'Like llm_check_dataset, for one row.';


CREATE FUNCTION public.llm_refuse_row(model text, row_id bigint, problem text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RAISE EXCEPTION 'row % of llm_dataset %', row_id, problem
        USING ERRCODE = CASE WHEN problem LIKE '%vocabulary%' THEN '22003' ELSE '22023' END,
        HINT = format('Model "%s" cannot use it: correct or delete the row.', model);
END;
$function$;

COMMENT ON FUNCTION public.llm_refuse_row(text, bigint, text) IS
'Raises the error for a dataset row that a model cannot use.';
