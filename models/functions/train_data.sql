-- The rows that a run trains on, fixed as it begins, and the batches made of them.

CREATE FUNCTION public.llm_train_data(model text, only_row bigint DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'rows', range_agg({{ rows.as_range }} ORDER BY d.id)::text,
            'hash', encode(public.pg_llm_rows_hash(d.id, d.tokens, d.target), 'hex'),
            'version', encode(public.pg_llm_fingerprint('', d.id, d.tableoid, d.ctid, d.xmin), 'hex')
        )
        FROM public.llm_dataset d
        WHERE {{ rows.of_model }}
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_train_data(text, bigint) IS
'The llm_dataset rows that a run of the model beginning now trains on, in the form of llm_train_run.data: their ids as '
'ranges, a hash of their contents and, for this session, their row versions.';


CREATE FUNCTION public.llm_train_rows(run public.llm_train_run, OUT row_ids bigint[], OUT version bytea)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    expected int8multirange := (run.data ->> 'rows')::int8multirange;
    only_row bigint := (run.hyperparameters ->> 'row')::bigint;
    missing int8multirange;
    content bytea;
    changed bigint;
BEGIN
    SELECT array_agg(d.id ORDER BY d.id), public.pg_llm_fingerprint('', d.id, d.tableoid, d.ctid, d.xmin)
    INTO row_ids, version
    FROM public.llm_dataset d
    WHERE d.id <@ expected AND {{ rows.of_run }};
    missing := expected - COALESCE((
        SELECT range_agg({{ rows.as_range }} ORDER BY d.id)
        FROM unnest(row_ids) d (id)
    ), '{}');
    IF NOT isempty(missing) THEN
        PERFORM public.llm_raise_missing(run.run_id, missing);
    END IF;
    IF row_ids IS NULL THEN
        RAISE EXCEPTION 'run % of model "%" has no rows to train on', run.run_id, run.model
            USING ERRCODE = 'no_data_found', HINT = 'llm_fill_dataset creates rows from the result of a query.';
    END IF;
    IF encode(version, 'hex') = run.data ->> 'version' THEN
        RETURN;
    END IF;
    -- Other row versions, or another session's: do they hold the same?
    content := (
        SELECT public.pg_llm_rows_hash(d.id, d.tokens, d.target) FROM public.llm_dataset d
        WHERE d.id <@ expected AND (only_row IS NULL OR d.id = only_row)
    );
    IF encode(content, 'hex') IS DISTINCT FROM run.data ->> 'hash' THEN
        changed := public.pg_llm_rows_changed(decode(run.data ->> 'hash', 'hex'), content);
        RAISE EXCEPTION 'rows of llm_dataset that run % trains on have changed: %', run.run_id,
            CASE WHEN changed = ANY (row_ids) THEN 'id ' || changed ELSE 'more than one of them' END
            USING ERRCODE = 'serialization_failure',
            HINT = 'The run keeps what it committed. Put the rows back as they were, or start a new run.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_rows(public.llm_train_run) IS
'The ids of the llm_dataset rows that the run trains on, in order: exactly those that it began with. 40001, naming '
'them: rows are gone or their contents changed. version identifies their row versions in this session.';


CREATE FUNCTION public.llm_train_rows_version(run public.llm_train_run, known bytea) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    expected int8multirange := (run.data ->> 'rows')::int8multirange;
    only_row bigint := (run.hyperparameters ->> 'row')::bigint;
    version bytea := (
        SELECT public.pg_llm_fingerprint('', d.id, d.tableoid, d.ctid, d.xmin) FROM public.llm_dataset d
        WHERE d.id <@ expected AND {{ rows.of_run }}
    );
BEGIN
    IF version = known THEN
        RETURN known;
    END IF;
    RETURN (public.llm_train_rows(run)).version;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_rows_version(public.llm_train_run, bytea) IS
'The version that llm_train_rows would return, found without looking at contents while it is the known one. 40001: as '
'for llm_train_rows.';


CREATE FUNCTION public.llm_raise_missing(run_id bigint, missing int8multirange) RETURNS void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- Ranges as a person writes them; the first twenty will do.
    ids text := (
        SELECT string_agg(
            CASE WHEN r.low = r.high THEN r.low::text ELSE format('%s to %s', r.low, r.high) END, ', ' ORDER BY r.low
        )
        FROM (
            SELECT lower(m.r) AS low, COALESCE(upper(m.r) - 1, 9223372036854775807) AS high
            FROM unnest(missing) m (r)
            ORDER BY m.r
            LIMIT 20
        ) r
    );
BEGIN
    RAISE EXCEPTION 'rows of llm_dataset that run % trains on are gone: id %', run_id, ids
        USING ERRCODE = 'serialization_failure',
        HINT = 'The run keeps what it committed. Put the rows back under their ids, or start a new run on the others.';
END;
$function$;

COMMENT ON FUNCTION public.llm_raise_missing(bigint, int8multirange) IS
'Raises the error for dataset rows that were removed while a run trains on them.';


CREATE FUNCTION public.llm_train_picks(n_rows bigint, seed bigint, first_row bigint, n_picks int, data_order text)
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF data_order = 'by_id' THEN
        RETURN ARRAY(SELECT (first_row + i) % n_rows + 1 FROM generate_series(0, n_picks - 1) i ORDER BY i);
    END IF;
    RETURN public.pg_llm_batch(n_rows::int, seed, first_row, n_picks);
END;
$function$;

COMMENT ON FUNCTION public.llm_train_picks(bigint, bigint, bigint, int, text) IS
'Which of n_rows rows, counted from 1, are at the positions from first_row on, over all epochs one after another: '
'by_id in their order, shuffled in a permutation per epoch.';


CREATE FUNCTION public.llm_train_batch(
    row_ids bigint[],
    seed bigint,
    first_row bigint,
    n_rows int,
    block_size int,
    data_order text,
    OUT tokens int[],
    OUT targets int[],
    OUT n_targets bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    picks bigint[];
    chosen bigint[];
    missing bigint[];
    longest int := COALESCE(block_size, 2147483647);
BEGIN
    PERFORM public.llm_require_argument(a.name, a.given)
    FROM (
        VALUES
        ('row_ids', row_ids IS NOT NULL), ('seed', seed IS NOT NULL), ('first_row', first_row IS NOT NULL),
        ('n_rows', n_rows IS NOT NULL), ('data_order', data_order IS NOT NULL)
    ) a (name, given);
    PERFORM public.llm_require(
        cardinality(row_ids) > 0 AND first_row >= 0 AND n_rows >= 1,
        format('a batch needs at least 1 of the rows, got %s of %s from %s', n_rows, cardinality(row_ids), first_row)
    );
    picks := public.llm_train_picks(cardinality(row_ids), seed, first_row, n_rows, data_order);
    IF n_rows = 1 THEN
        SELECT d.tokens[:longest], d.target[:longest] INTO tokens, targets
        FROM public.llm_dataset d WHERE d.id = row_ids[picks[1]];
    ELSE
        FOR i IN 1 .. n_rows LOOP
            chosen[i] := row_ids[picks[i]];
        END LOOP;
        SELECT
            array_agg(public.llm_pad(b.tokens, least(b.width, longest), 0) ORDER BY b.position),
            array_agg(public.llm_pad(b.target, least(b.width, longest), -1) ORDER BY b.position)
        INTO tokens, targets
        FROM (
            SELECT c.position, d.tokens, d.target, max(cardinality(d.tokens)) OVER () AS width
            FROM unnest(chosen) WITH ORDINALITY c (id, position)
            CROSS JOIN LATERAL (
                SELECT s.tokens, s.target FROM public.llm_dataset s WHERE s.id = c.id OFFSET 0
            ) d
        ) b;
    END IF;
    IF array_length(tokens, 1) IS DISTINCT FROM n_rows AND (n_rows > 1 OR tokens IS NULL) THEN
        missing := ARRAY(
            SELECT row_ids[p.pick] FROM unnest(picks) p (pick)
            WHERE NOT EXISTS (SELECT FROM public.llm_dataset d WHERE d.id = row_ids[p.pick])
        );
        RAISE EXCEPTION 'rows of llm_dataset that are trained on are gone: id %', array_to_string(missing, ', ')
            USING ERRCODE = 'serialization_failure',
            HINT = 'The run keeps what it committed. Data must not change while a model trains on it.';
    END IF;
    n_targets := (SELECT count(*) FROM unnest(targets) t WHERE t >= 0);
END;
$function$;

COMMENT ON FUNCTION public.llm_train_batch(bigint[], bigint, bigint, int, int, text) IS
'The rows of row_ids at the positions from first_row on in data_order, epoch after epoch: tokens and targets [T] for '
'one row, otherwise [B, T] with shorter rows padded (token 0, target -1). n_targets is the number of targets to learn. '
'40001, naming them: rows are gone.';


CREATE FUNCTION public.llm_pad(ids int[], width int, filler int) RETURNS int[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
    SELECT CASE
        WHEN ids IS NULL OR width IS NULL OR filler IS NULL THEN NULL
        WHEN cardinality(ids) = width THEN ids
        WHEN cardinality(ids) > width THEN ids[:width]
        ELSE ids || array_fill(filler, ARRAY[width - cardinality(ids)])
    END;
$function$;

COMMENT ON FUNCTION public.llm_pad(int[], int, int) IS
'The first width ids, padded with filler; NULL if any argument is NULL.';
