-- Checkpoints: a file with all there is to a model, and the row that tells what the file must be.

CREATE FUNCTION public.llm_checkpoint_sweep() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- A file's name begins with the transaction that wrote it. When that is over and no row names the file, then the
    -- transaction was rolled back or crashed, or the row was deleted.
    PERFORM public.pg_llm_checkpoint_sweep();
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_sweep() IS
'When the transaction commits, removes this database''s files in the checkpoint directories that no row of '
'llm_checkpoint names and that no running transaction is writing. Rows that policies hide from the caller count, too. '
'Requires llm_trainer.';


CREATE FUNCTION public.llm_checkpoint_permitted(action text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF current_setting('transaction_read_only')::boolean THEN
        RAISE EXCEPTION 'cannot % a checkpoint in a read-only transaction', action
            USING ERRCODE = 'read_only_sql_transaction',
            HINT = CASE WHEN pg_is_in_recovery()
                THEN 'This server is a replica; checkpoints are saved and loaded on the primary, where their files are.'
                ELSE 'SET TRANSACTION READ WRITE, or default_transaction_read_only = off.'
            END;
    END IF;
    IF NOT has_function_privilege('public.pg_llm_checkpoint_write(text)', 'EXECUTE') THEN
        RAISE EXCEPTION 'permission denied to % checkpoints', action
            USING ERRCODE = 'insufficient_privilege', HINT = 'This requires the role llm_trainer.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_permitted(text) IS
'Raises 25006 where nothing can be written, and 42501 if the caller lacks the privileges that saving and loading '
'need.';


CREATE FUNCTION public.llm_checkpoint_save(model text, note text DEFAULT NULL, keep int DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
SET extra_float_digits = 1
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    wrong text;
    written record;
    new_id bigint;
BEGIN
    PERFORM public.llm_require(model IS NOT NULL, 'model must not be NULL');
    PERFORM public.llm_require(keep IS NULL OR keep > 0, format('keep must be positive, got %s', keep));
    PERFORM public.llm_config(model);
    PERFORM public.llm_checkpoint_permitted('save');
    IF NOT EXISTS (SELECT FROM public.llm_param p WHERE p.model = llm_checkpoint_save.model) THEN
        RAISE EXCEPTION 'model "%" has no weights', model
            USING ERRCODE = 'no_data_found', HINT = 'Initialise it with llm_init_model or import its weights.';
    END IF;
    wrong := public.llm_checkpoint_incomplete(model);
    PERFORM public.llm_require(
        wrong IS NULL, format('the weights of model "%s" do not match its architecture: parameter "%s"', model, wrong),
        'llm_parameters lists what llm_param must hold; a row-level security policy may hide rows.'
    );
    PERFORM public.pg_llm_set_recording(false, true);
    -- One statement: file and row are of one snapshot.
    INSERT INTO public.llm_checkpoint (model, step, note, n_params, format, file_path, bytes, sha256)
    SELECT llm_checkpoint_save.model, n.step, llm_checkpoint_save.note, n.n_params, 'checkpoint 1', w.file, w.bytes,
        w.sha256
    FROM (
        SELECT max(p.step) AS step, sum(public.llm_elements(public.shape(p.data)))::bigint AS n_params
        FROM public.llm_param p
        WHERE p.model = llm_checkpoint_save.model
    ) n
    CROSS JOIN LATERAL public.pg_llm_checkpoint_write(llm_checkpoint_save.model) w
    RETURNING id INTO new_id;
    PERFORM public.llm_checkpoint_retain(model, keep);
    PERFORM public.pg_llm_set_recording(recording, true);
    RETURN new_id;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_save(text, text, int) IS
'Saves the model''s parameters, optimizer state, step, configuration and tokenizer to a file in the checkpoint '
'directory (pg_llm.checkpoint_dir) and returns the checkpoint''s id. The file and its row appear together when the '
'transaction commits, or not at all. keep: keep only this many of the model''s newest checkpoints, and remove the '
'older ones that the caller can see and delete. Requires llm_trainer. 25006: on a replica or in a read-only '
'transaction; 53100: the disk is full.';


CREATE FUNCTION public.llm_elements(shape int[]) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n numeric := 1;
    size int;
BEGIN
    IF shape IS NULL THEN
        RETURN NULL;
    END IF;
    FOREACH size IN ARRAY shape LOOP
        n := n * size;
        IF abs(n) > 9223372036854775807 THEN
            RAISE EXCEPTION 'a tensor of shape % would have more elements than a bigint counts', shape
                USING ERRCODE = 'numeric_value_out_of_range';
        END IF;
    END LOOP;
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_elements(int[]) IS
'Number of elements of a tensor of this shape. 22003: more than a bigint can count.';


CREATE FUNCTION public.llm_checkpoint_incomplete(model text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN (
        SELECT min(COALESCE(e.name, s.name))
        FROM public.llm_parameters(llm_checkpoint_incomplete.model) e
        FULL JOIN (
            SELECT p.name, sum((public.shape(p.data))[1])::int || (min(public.shape(p.data)))[2:] AS shape
            FROM public.llm_param p
            WHERE p.model = llm_checkpoint_incomplete.model
            GROUP BY p.name
        ) s USING (name)
        WHERE e.shape IS DISTINCT FROM s.shape
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_incomplete(text) IS
'Name of a parameter that the model''s architecture lists and llm_param does not hold completely, or that llm_param '
'holds and the architecture does not list; NULL if there is none.';


CREATE FUNCTION public.llm_checkpoint_metadata(model text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
-- Numbers as text that give the same number.
SET extra_float_digits = 1
AS $function$
BEGIN
    RETURN (
        SELECT ARRAY[
            'format', 'pt',
            'llm_sql', 'checkpoint 1',
            'model', llm_checkpoint_metadata.model,
            'step', max(p.step)::text,
            'steps', jsonb_object_agg(p.name, p.step)::text,
            'config', (
                SELECT (to_jsonb(c) - 'created_at')::text
                FROM public.llm_model_config c WHERE c.model = llm_checkpoint_metadata.model
            )
        ] || COALESCE((
            SELECT ARRAY['adapter', (to_jsonb(a) - 'model' - 'base_version')::text]
            FROM public.llm_adapter a WHERE a.model = llm_checkpoint_metadata.model
        ), '{}')
        FROM public.llm_param p
        WHERE p.model = llm_checkpoint_metadata.model
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_metadata(text) IS
'The header fields of a checkpoint of the model: key, value, key, value, ...';


CREATE FUNCTION public.llm_checkpoint_tensors(model text) RETURNS TABLE (name text, dtype text, shape int[])
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.name, s.dtype, s.shape FROM (
        SELECT k.kind, k.prefix || p.name AS name,
            CASE
                WHEN bool_and(
                    public.dtype(CASE k.kind WHEN 1 THEN p.data WHEN 2 THEN p.m ELSE p.v END)
                    IS NOT DISTINCT FROM 'bf16'
                ) THEN 'BF16' ELSE 'F32'
            END AS dtype,
            sum((public.shape(p.data))[1])::int || (min(public.shape(p.data)))[2:] AS shape
        FROM public.llm_param p
        CROSS JOIN (VALUES (1, ''), (2, 'optimizer.m.'), (3, 'optimizer.v.')) k (kind, prefix)
        WHERE p.model = llm_checkpoint_tensors.model
        GROUP BY k.kind, k.prefix, p.name
        HAVING CASE k.kind WHEN 2 THEN bool_or(p.m IS NOT NULL) WHEN 3 THEN bool_or(p.v IS NOT NULL) ELSE true END
        UNION ALL
        SELECT 4, t.name, 'U8', ARRAY[octet_length(t.bytes)]
        FROM public.llm_checkpoint_tokenizer(llm_checkpoint_tensors.model) t
    ) s
    ORDER BY s.kind, s.name COLLATE "C";
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_tensors(text) IS
'The tensors that make up a checkpoint of the model, in the order of the file.';


-- Inlined, so that rows go to the file one by one; what is inlined cannot set a path, so that operators are qualified.
CREATE FUNCTION public.llm_checkpoint_data(model text) RETURNS TABLE (data public.tensor, bytes bytea)
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    SELECT s.data, s.bytes FROM (
        SELECT k.kind, p.name, p.token_id,
            CASE
                WHEN k.kind OPERATOR(pg_catalog.=) 1 THEN p.data
                WHEN k.kind OPERATOR(pg_catalog.=) 2 THEN COALESCE(p.m, public.pg_llm_full(public.shape(p.data), 0))
                ELSE COALESCE(p.v, public.pg_llm_full(public.shape(p.data), 0))
            END AS data,
            NULL::pg_catalog.bytea AS bytes
        FROM public.llm_param p
        CROSS JOIN (VALUES (1), (2), (3)) k (kind)
        WHERE p.model OPERATOR(pg_catalog.=) llm_checkpoint_data.model AND (
            k.kind OPERATOR(pg_catalog.=) 1 OR EXISTS (
                SELECT FROM public.llm_param q
                WHERE q.model OPERATOR(pg_catalog.=) p.model AND q.name OPERATOR(pg_catalog.=) p.name
                    AND CASE WHEN k.kind OPERATOR(pg_catalog.=) 2 THEN q.m IS NOT NULL ELSE q.v IS NOT NULL END
            )
        )
        UNION ALL
        SELECT 4, t.name, 0, NULL, t.bytes FROM public.llm_checkpoint_tokenizer(llm_checkpoint_data.model) t
    ) s
    ORDER BY s.kind, s.name COLLATE pg_catalog."C", s.token_id
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_data(text) IS
'The contents of what llm_checkpoint_tensors lists, in its order; a large tensor is several rows.';


CREATE FUNCTION public.llm_checkpoint_encoding() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- What the bytes of a SQL_ASCII database mean is not known: they are kept as they are.
    RETURN CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_encoding() IS
'The encoding of the tokenizer''s JSON in this database''s checkpoints.';


CREATE FUNCTION public.llm_checkpoint_tokenizer(model text) RETURNS TABLE (name text, bytes bytea)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
SET extra_float_digits = 1
AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT 'tokenizer.merges', convert_to(
        COALESCE((
            SELECT json_agg(json_build_array(m.rank, m.left_token, m.right_token, m.pair) ORDER BY m.rank)
            FROM public.llm_bpe_merges m WHERE m.model = llm_checkpoint_tokenizer.model
        ), '[]')::text, public.llm_checkpoint_encoding()
    )
    UNION ALL
    SELECT 'tokenizer.vocab', convert_to(
        COALESCE((
            SELECT json_agg(
                json_build_array(v.token_id, v.token, encode(v.bytes, 'hex'), v.score, v.flags) ORDER BY v.token_id)
            FROM public.llm_bpe_vocab v WHERE v.model = llm_checkpoint_tokenizer.model
        ), '[]')::text, public.llm_checkpoint_encoding()
    )
    UNION ALL
    SELECT 'tokenizer.settings', convert_to(
        json_build_array(t.kind, t.settings, t.chat_template)::text, public.llm_checkpoint_encoding()
    )
    FROM public.llm_tokenizer t WHERE t.model = llm_checkpoint_tokenizer.model;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_tokenizer(text) IS
'The model''s tokenizer in the form that a checkpoint stores: JSON of [rank, left, right, pair] and of [id, token, '
'bytes, score, flags]; of llm_tokenizer''s row, if there is one, [kind, settings, chat template].';


CREATE FUNCTION public.llm_checkpoint_retain(model text, keep int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require(model IS NOT NULL, 'model must not be NULL');
    PERFORM public.llm_require(keep IS NULL OR keep > 0, format('keep must be positive, got %s', keep));
    DELETE FROM public.llm_checkpoint c
    WHERE keep IS NOT NULL AND c.model = llm_checkpoint_retain.model AND c.id IN (
        SELECT d.id FROM public.llm_checkpoint d
        WHERE d.model = llm_checkpoint_retain.model
        ORDER BY d.id DESC
        OFFSET keep
    );
    -- Files go with their rows, and so do those that a crash or a deleted row has left.
    PERFORM public.llm_checkpoint_sweep();
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_retain(text, int) IS
'Removes all but the newest keep checkpoints of the model, files included; NULL keeps all. Checkpoints that a policy '
'hides from the caller are neither counted nor removed.';


CREATE FUNCTION public.llm_checkpoint_orphans(remove boolean DEFAULT false)
RETURNS TABLE (folder text, files bigint, bytes bigint)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT o.folder, o.files, o.bytes FROM public.pg_llm_checkpoint_orphans(remove) o ORDER BY o.folder;
END;
$function$;

COMMENT ON FUNCTION public.llm_checkpoint_orphans(boolean) IS
'Folders that dropped databases left in the checkpoint directories, with the number and size of their files. remove: '
'also deletes them, immediately and permanently. Superusers only.';
