-- Contrastive training of encoders: the loss over a batch of pairs, what it asks of data, and recall.

CREATE FUNCTION public.llm_max_tokens(config public.llm_model_config) RETURNS int
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN COALESCE((config.settings ->> 'max_tokens')::int, config.n_positions);
END;
$function$;

COMMENT ON FUNCTION public.llm_max_tokens(public.llm_model_config) IS
'The longest sequence that an encoder takes: its setting max_tokens, else n_positions.';


CREATE FUNCTION public.llm_require_encoder(config public.llm_model_config, task text, hint text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF NOT public.llm_is_encoder(config) THEN
        RAISE EXCEPTION '% needs an encoder, and "%" (%) is none', task, config.model, config.arch
            USING ERRCODE = 'feature_not_supported', HINT = COALESCE(hint, 'llm_arch tells which are encoders.');
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_require_encoder(public.llm_model_config, text, text) IS
'Raises 0A000, with the name of the function that was called and the hint, unless the model is an encoder.';


CREATE FUNCTION public.llm_contrastive_loss(
    model text,
    tokens int[],
    targets int[],
    training boolean DEFAULT false,
    dropout_p double precision DEFAULT 0.1
) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    batch record;
    n_sequences int;
    embeddings public.tensor;
    logits public.tensor;
BEGIN
    IF model IS NULL OR tokens IS NULL OR targets IS NULL THEN
        RETURN NULL;
    END IF;
    config := public.llm_config(model);
    batch := public.pg_llm_pairs(tokens, targets, public.llm_max_tokens(config));
    n_sequences := cardinality(batch.lengths);
    PERFORM public.llm_require(
        n_sequences > 2, 'a batch of one pair has nothing to contrast it with',
        'The other pairs of a batch are the negatives: raise batch_size, or give hard negatives.'
    );
    -- All in one pass, so that every sequence has dropout of its own.
    embeddings := public.llm_embed_sequences(model, batch.sequences, batch.lengths, training, dropout_p);
    logits := public.pg_llm_matmul(
        public.pg_llm_slice(embeddings, 0, 0, batch.n_rows),
        public.pg_llm_transpose(public.pg_llm_slice(embeddings, 0, batch.n_rows, n_sequences))
    ) OPERATOR(public./) COALESCE((config.settings ->> 'temperature')::double precision, 0.05);
    IF batch.exclusions IS NOT NULL THEN
        logits := public.pg_llm_add(logits, batch.exclusions);
    END IF;
    -- A row's own positive is the candidate of the row's number.
    RETURN public.pg_llm_cross_entropy(
        logits, ARRAY(SELECT i.i FROM generate_series(0, batch.n_rows - 1) i (i) ORDER BY i.i)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_contrastive_loss(text, int[], int[], boolean, double precision) IS
'The contrastive loss of a batch of pairs, 0-d: tokens [T] or [B, T] hold in each row an anchor, its positive and any '
'hard negatives, and targets number these sequences: 0, 1, 2 and on, below 0 for padding. The mean over the rows of '
'-log softmax of (anchor . candidate) / temperature at the row''s own positive; the candidates are the positives and '
'negatives of all rows (multiple negatives ranking, Henderson et al. 2017; InfoNCE, van den Oord et al. 2018), without '
'those that are the same text as the own positive or another positive of the same anchor. temperature is the model''s '
'setting, 0.05 where it has none. 22023, naming the row: no anchor or positive, a gap in the numbers, a sequence '
'longer than the model takes; a single pair without negatives.';


CREATE FUNCTION public.llm_check_contrast(
    config public.llm_model_config, batch_size int, block_size int, only_row bigint DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    alone bigint;
    n_rows bigint;
BEGIN
    PERFORM public.llm_require(
        block_size IS NULL, format('block_size cuts running text, and the rows of model "%s" are pairs', config.model),
        'Omit it. llm_fill_pairs has max_tokens for its texts.'
    );
    SELECT min(d.id) FILTER (WHERE NOT 2 = ANY (d.target)), count(*) INTO alone, n_rows
    FROM public.llm_dataset d
    WHERE CASE
        WHEN only_row IS NULL THEN (d.model = config.model OR d.model IS NULL) AND d.split = 'train'
        ELSE d.id = only_row
    END;
    PERFORM public.llm_require(
        alone IS NULL OR (batch_size > 1 AND n_rows > 1),
        format('row %s of llm_dataset has no negatives, and nothing to contrast it with in %s', alone, CASE
            WHEN batch_size > 1 THEN 'a data set of one pair' ELSE 'a batch of one pair' END),
        'The other pairs of a batch are the negatives: raise batch_size, or give hard negatives, which are further '
        'columns of llm_fill_pairs'' query.'
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_check_contrast(public.llm_model_config, int, int, bigint) IS
'Raises 22023 if an encoder cannot be trained on its pairs so: a batch of one pair without negatives, or a block_size. '
'only_row: the one llm_dataset row to be trained on.';


CREATE FUNCTION public.llm_recall_rows(
    config public.llm_model_config, split text, OUT row_ids bigint[], OUT anchors int[], OUT positives int[]
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    SELECT array_agg(r.id ORDER BY r.id), array_agg(r.anchor ORDER BY r.id), array_agg(r.positive ORDER BY r.id)
    INTO row_ids, anchors, positives
    FROM (
        SELECT min(t.id) AS id, (dense_rank() OVER (ORDER BY t.anchor))::int - 1 AS anchor,
            (dense_rank() OVER (ORDER BY t.positive))::int - 1 AS positive
        FROM (
            SELECT d.id, d.tokens[: n.anchor] AS anchor, d.tokens[n.anchor + 1 : n.anchor + n.positive] AS positive
            FROM public.llm_dataset d
            CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE s.segment = 0), count(*) FILTER (WHERE s.segment = 1)
                FROM unnest(d.target) s (segment)
            ) n (anchor, positive)
            WHERE (d.model = config.model OR d.model IS NULL) AND d.split = llm_recall_rows.split
        ) t
        GROUP BY t.anchor, t.positive
    ) r;
END;
$function$;

COMMENT ON FUNCTION public.llm_recall_rows(public.llm_model_config, text) IS
'A split''s different pairs, by the ids of rows that hold them, and for each the numbers, from 0, of its anchor and of '
'its positive among the different ones.';


CREATE FUNCTION public.llm_recall(
    model text,
    split text DEFAULT 'validation',
    k int DEFAULT 10,
    OUT pairs bigint,
    OUT candidates bigint,
    OUT recall double precision
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- Rows of a pass, and about how many scores are held at a time.
    rows_at_once CONSTANT int := 32;
    scores_at_once CONSTANT int := 4194304;
    config public.llm_model_config := public.llm_config(model);
    recording boolean := public.pg_llm_recording();
    data record;
    batch record;
    embeddings public.tensor;
    anchors public.tensor;
    positives public.tensor;
    n_rows int;
    n_anchors int;
    block int;
    found bigint := 0;
BEGIN
    PERFORM public.llm_require_encoder(config, 'llm_recall', 'llm_evaluate measures the loss of a language model.');
    PERFORM public.llm_require(k >= 1, format('k must be at least 1, got %s', COALESCE(k::text, 'NULL')));
    PERFORM public.llm_check_dataset(config, split, NULL);
    data := public.llm_recall_rows(config, split);
    pairs := cardinality(data.row_ids);
    candidates := (SELECT max(p.p) + 1 FROM unnest(data.positives) p (p));
    n_anchors := (SELECT max(a.a) + 1 FROM unnest(data.anchors) a (a));
    PERFORM public.llm_require(
        k < candidates,
        format('k must be below %s, the number of different positives in split "%s", got %s', candidates, split, k),
        'Among the k nearest of so few every positive is found, whatever the model.'
    );
    PERFORM public.llm_pin(model);
    PERFORM public.pg_llm_set_recording(false, true);
    FOR first_row IN 0 .. pairs - 1 BY rows_at_once LOOP
        n_rows := least(rows_at_once, pairs - first_row);
        batch := public.llm_train_batch(data.row_ids, 0, first_row, n_rows, NULL, 'by_id');
        batch := public.pg_llm_pairs(batch.tokens, batch.targets, public.llm_max_tokens(config));
        -- Without the negatives, which come last.
        embeddings := public.llm_embed_sequences(
            model,
            batch.sequences[: (SELECT sum(l.l) FROM unnest(batch.lengths[: 2 * n_rows]) l (l))],
            batch.lengths[: 2 * n_rows], false, 0.0
        );
        IF first_row = 0 THEN
            anchors := public.pg_llm_slice(embeddings, 0, 0, n_rows);
            positives := public.pg_llm_slice(embeddings, 0, n_rows, 2 * n_rows);
        ELSE
            anchors := public.pg_llm_concat(anchors, public.pg_llm_slice(embeddings, 0, 0, n_rows), 0);
            positives := public.pg_llm_concat(
                positives, public.pg_llm_slice(embeddings, 0, n_rows, 2 * n_rows), 0
            );
        END IF;
    END LOOP;
    -- One row for each different text, by any pair that has it.
    anchors := public.pg_llm_embedding(anchors, public.llm_first_places(data.anchors));
    positives := public.pg_llm_transpose(
        public.pg_llm_embedding(positives, public.llm_first_places(data.positives))
    );
    block := greatest(scores_at_once / candidates, 1);
    FOR first_anchor IN 0 .. n_anchors - 1 BY block LOOP
        found := found + (
            SELECT count(*) FILTER (WHERE r.rank <= k)
            FROM (
                SELECT array_agg(p.anchor - first_anchor ORDER BY p.place), array_agg(p.positive ORDER BY p.place)
                FROM unnest(data.anchors, data.positives) WITH ORDINALITY p (anchor, positive, place)
                WHERE p.anchor >= first_anchor AND p.anchor < first_anchor + block
            ) s (rows, columns)
            CROSS JOIN LATERAL unnest(public.pg_llm_ranks(
                public.pg_llm_matmul(
                    public.pg_llm_slice(anchors, 0, first_anchor, least(first_anchor + block, n_anchors)), positives
                ),
                s.rows, s.columns
            )) r (rank)
        );
    END LOOP;
    PERFORM public.pg_llm_set_recording(recording, true);
    PERFORM public.pg_llm_arena_close(model);
    recall := found / pairs::double precision;
END;
$function$;

COMMENT ON FUNCTION public.llm_recall(text, text, int) IS
'Of the split''s different pairs, the share whose positive is among the k of all the split''s positives (candidates) '
'that are nearest to the anchor, by dot product (the cosine, where the model normalises). A text that occurs several '
'times is one candidate, other positives of the same anchor do not count against a pair, and equal similarity does: a '
'model that makes one vector of everything has recall 0. Writes nothing. P0002: no rows; 0A000: the model is no '
'encoder; 22023: k is below 1 or not below the number of candidates, or a row is no pair.';


CREATE FUNCTION public.llm_first_places(numbers int[]) RETURNS int[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN ARRAY(
        SELECT min(n.place)::int - 1 FROM unnest(numbers) WITH ORDINALITY n (number, place)
        GROUP BY n.number ORDER BY n.number
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_first_places(int[]) IS
'For each different number, in ascending order, the place from 0 where it occurs first.';
