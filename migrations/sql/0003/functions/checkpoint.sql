-- Checkpoints: a file with all there is to a model, and the row that tells what the file must be.

CREATE FUNCTION public.llm_checkpoint_sweep() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
BEGIN
    -- A file's name begins with the transaction that wrote it. When that is over for this snapshot and no row names the
    -- file, then the transaction was rolled back or crashed, or the row was deleted.
    PERFORM public.pg_llm_checkpoint_remove(f.file)
    FROM public.pg_llm_checkpoint_files() f (file)
    WHERE f.file ~ '/[0-9]+-'
        AND pg_visible_in_snapshot(substring(f.file FROM '/([0-9]+)-')::xid8, pg_current_snapshot())
        AND NOT EXISTS (SELECT FROM public.llm_checkpoint c WHERE c.file_path = f.file);
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_sweep() IS
'Removes, when the transaction commits, the files of this database in the checkpoint directory that no row of '
'llm_checkpoint names and no running transaction is writing.';


CREATE FUNCTION public.llm_checkpoint_save(model text, note text DEFAULT NULL, keep int DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    at_step bigint := public.llm_model_step(model);
    file text;
    written record;
    new_id bigint;
BEGIN
    PERFORM public.llm_require(keep IS NULL OR keep > 0, format('keep must be positive, got %s', keep));
    PERFORM public.llm_config(model);
    IF NOT EXISTS (SELECT FROM public.llm_param p WHERE p.model = llm_checkpoint_save.model) THEN
        RAISE EXCEPTION 'model "%" has no weights', model
            USING ERRCODE = 'no_data_found', HINT = 'Initialise it with llm_init_model or import its weights.';
    END IF;
    PERFORM public.llm_checkpoint_sweep();
    PERFORM public.pg_llm_set_recording(false, true);
    file := public.pg_llm_checkpoint_name(format(
        '%s-%s-%s-step%s.safetensors', pg_current_xact_id(),
        to_hex((extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
        left(regexp_replace(model, '[^A-Za-z0-9_-]+', '_', 'g'), 80), at_step
    ));
    -- One statement: file and metadata are of one snapshot.
    SELECT w.bytes, w.sha256, n.step, n.n_params INTO written
    FROM (
        SELECT max(p.step) AS step, sum(public.llm_elements(public.shape(p.data)))::bigint AS n_params,
            jsonb_object_agg(p.name, p.step) AS steps
        FROM public.llm_param p
        WHERE p.model = llm_checkpoint_save.model
    ) n
    CROSS JOIN LATERAL public.pg_llm_file_write(
        file,
        'safetensors',
        public.llm_checkpoint_tensors(),
        public.llm_checkpoint_data(),
        model,
        ARRAY[
            'format', 'pt',
            'llm_sql', 'checkpoint 1',
            'model', model,
            'step', n.step::text,
            'steps', n.steps::text,
            'config', (
                SELECT (to_jsonb(c) - 'created_at')::text
                FROM public.llm_model_config c WHERE c.model = llm_checkpoint_save.model
            )
        ],
        true
    ) w;
    INSERT INTO public.llm_checkpoint (model, step, note, n_params, format, file_path, bytes, sha256)
    VALUES (model, written.step, note, written.n_params, 'checkpoint 1', file, written.bytes, written.sha256)
    RETURNING id INTO new_id;
    PERFORM public.llm_checkpoint_retain(model, keep);
    PERFORM public.pg_llm_set_recording(recording, true);
    RETURN new_id;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_save(text, text, int) IS
'Saves the model''s parameters, optimizer state, step, configuration and tokenizer to a file in the checkpoint directory '
'(pg_llm.checkpoint_dir) and returns the checkpoint''s id. The file and its row appear together when the transaction '
'commits, or not at all. keep: so many checkpoints of the model stay, older ones are removed. Takes llm_trainer.';


CREATE FUNCTION public.llm_elements(shape int[]) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $function$
DECLARE
    n bigint := 1;
    size int;
BEGIN
    FOREACH size IN ARRAY shape LOOP
        n := n * size;
    END LOOP;
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_elements(int[]) IS
'Number of elements of a tensor of this shape.';


CREATE FUNCTION public.llm_checkpoint_tensors() RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $function$
BEGIN
    RETURN $query$
        SELECT s.name, s.dtype, s.shape FROM (
            SELECT k.kind, k.prefix || p.name AS name, 'F32' AS dtype,
                sum((public.shape(p.data))[1])::int || (min(public.shape(p.data)))[2:] AS shape
            FROM public.llm_param p
            CROSS JOIN (VALUES (1, ''), (2, 'optimizer.m.'), (3, 'optimizer.v.')) k (kind, prefix)
            WHERE p.model = $1
            GROUP BY k.kind, k.prefix, p.name
            HAVING CASE k.kind WHEN 2 THEN bool_or(p.m IS NOT NULL) WHEN 3 THEN bool_or(p.v IS NOT NULL) ELSE true END
            UNION ALL
            SELECT 4, t.name, 'U8', ARRAY[octet_length(t.bytes)] FROM public.llm_checkpoint_tokenizer($1) t
        ) s
        ORDER BY s.kind, s.name COLLATE "C"
    $query$;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_tensors() IS
'The query that lists the tensors of a checkpoint of model $1, for pg_llm_file_write.';


CREATE FUNCTION public.llm_checkpoint_data() RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $function$
BEGIN
    RETURN $query$
        SELECT s.data, s.bytes FROM (
            SELECT k.kind, p.name, p.token_id,
                CASE k.kind
                    WHEN 1 THEN p.data
                    WHEN 2 THEN COALESCE(p.m, public.pg_llm_full(public.shape(p.data), 0))
                    ELSE COALESCE(p.v, public.pg_llm_full(public.shape(p.data), 0))
                END AS data,
                NULL::bytea AS bytes
            FROM public.llm_param p
            CROSS JOIN (VALUES (1), (2), (3)) k (kind)
            WHERE p.model = $1 AND (
                k.kind = 1 OR EXISTS (
                    SELECT FROM public.llm_param q
                    WHERE q.model = p.model AND q.name = p.name
                        AND CASE k.kind WHEN 2 THEN q.m IS NOT NULL ELSE q.v IS NOT NULL END
                )
            )
            UNION ALL
            SELECT 4, t.name, 0, NULL, t.bytes FROM public.llm_checkpoint_tokenizer($1) t
        ) s
        ORDER BY s.kind, s.name COLLATE "C", s.token_id
    $query$;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_data() IS
'The query that gives the contents of what llm_checkpoint_tensors lists, in its order.';


CREATE FUNCTION public.llm_checkpoint_tokenizer(model text) RETURNS TABLE (name text, bytes bytea)
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT 'tokenizer.merges', convert_to(
        COALESCE((
            SELECT json_agg(json_build_array(m.rank, m.left_token, m.right_token, m.pair) ORDER BY m.rank)
            FROM public.llm_bpe_merges m WHERE m.model = llm_checkpoint_tokenizer.model
        ), '[]')::text, 'UTF8'
    )
    UNION ALL
    SELECT 'tokenizer.vocab', convert_to(
        COALESCE((
            SELECT json_agg(json_build_array(v.token_id, v.token, encode(v.bytes, 'hex'), v.score) ORDER BY v.token_id)
            FROM public.llm_bpe_vocab v WHERE v.model = llm_checkpoint_tokenizer.model
        ), '[]')::text, 'UTF8'
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_tokenizer(text) IS
'The model''s tokenizer as a checkpoint holds it: JSON of [rank, left, right, pair] and of [id, token, bytes, score].';


CREATE FUNCTION public.llm_checkpoint_retain(model text, keep int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $function$
DECLARE
    old record;
BEGIN
    FOR old IN
        DELETE FROM public.llm_checkpoint c
        WHERE c.model = llm_checkpoint_retain.model AND c.id IN (
            SELECT d.id FROM public.llm_checkpoint d
            WHERE d.model = llm_checkpoint_retain.model
            ORDER BY d.id DESC
            OFFSET keep
        ) AND keep IS NOT NULL
        RETURNING c.file_path
    LOOP
        -- A row from elsewhere may name a file that is not this database's to remove.
        IF old.file_path = public.pg_llm_checkpoint_name(substring(old.file_path FROM '[^/]+$')) THEN
            PERFORM public.pg_llm_checkpoint_remove(old.file_path);
        END IF;
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_retain(text, int) IS
'Removes all but the newest keep checkpoints of the model, files included; NULL keeps all.';
