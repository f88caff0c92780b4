-- Exporting weights to files on the server, under Hugging Face's names.

CREATE FUNCTION public.llm_export_tensors(model text) RETURNS TABLE (name text, dtype text, shape int[])
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    encoder CONSTANT boolean := public.llm_has_bert_names(llm_export_tensors.model);
BEGIN
    RETURN QUERY
    SELECT CASE WHEN encoder THEN COALESCE(b.name, p.name) ELSE p.name END,
        CASE WHEN p.as_bf16 THEN 'BF16' ELSE 'F32' END,
        CASE WHEN encoder AND b.transposed THEN ARRAY[p.shape[2], p.shape[1]] ELSE p.shape END
    FROM (
        SELECT s.name, sum((public.shape(s.data))[1])::int || (min(public.shape(s.data)))[2:] AS shape,
            bool_and(public.dtype(s.data) = 'bf16') AS as_bf16
        FROM public.llm_param s
        WHERE s.model = llm_export_tensors.model
        GROUP BY s.name
    ) p
    CROSS JOIN LATERAL public.llm_bert_name(p.name) b
    ORDER BY p.name COLLATE "C";
END;
$function$;

COMMENT ON FUNCTION public.llm_export_tensors(text) IS
'The tensors that make up an exported file, in its order, under Hugging Face''s names: a decoder''s parameters as they '
'are, an encoder''s as llm_bert_name tells. dtype: BF16 where all rows of a parameter are stored as bf16, else F32.';


-- Inlined, so that rows go to the file one by one; what is inlined cannot set a path, so that operators are qualified.
CREATE FUNCTION public.llm_export_data(model text) RETURNS TABLE (data public.tensor, bytes bytea)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $function$
    SELECT CASE WHEN p.transposed THEN public.llm_export_transposed(llm_export_data.model, p.name) ELSE p.data END,
        NULL::pg_catalog.bytea
    FROM (
        SELECT s.name, s.token_id, s.data,
            public.llm_has_bert_names(llm_export_data.model) AND (public.llm_bert_name(s.name)).transposed AS transposed
        FROM public.llm_param s
        WHERE s.model OPERATOR(pg_catalog.=) llm_export_data.model
        ORDER BY s.name COLLATE pg_catalog."C", s.token_id
        -- References to the values are sorted, not the values.
        OFFSET 0
    ) p
    WHERE NOT p.transposed OR p.token_id OPERATOR(pg_catalog.=) 0
$function$;

COMMENT ON FUNCTION public.llm_export_data(text) IS
'The contents of what llm_export_tensors lists, in its order; a large parameter is several rows.';


-- STABLE: it sees what the query that calls it sees, so that a file holds one version of the model.
CREATE FUNCTION public.llm_export_transposed(model text, name text) RETURNS public.tensor
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    part record;
    whole public.tensor;
    as_bf16 boolean := true;
BEGIN
    PERFORM public.pg_llm_set_recording(false, true);
    FOR part IN
        SELECT p.data FROM public.llm_param p
        WHERE p.model = llm_export_transposed.model AND p.name = llm_export_transposed.name
        ORDER BY p.token_id
    LOOP
        as_bf16 := as_bf16 AND public.dtype(part.data) = 'bf16';
        whole := CASE WHEN whole IS NULL THEN part.data ELSE public.pg_llm_concat(whole, part.data, 0) END;
    END LOOP;
    whole := public.pg_llm_transpose(whole);
    PERFORM public.pg_llm_set_recording(recording, true);
    RETURN CASE WHEN as_bf16 THEN public.pg_llm_to_bf16(whole) ELSE whole END;
END;
$function$;

COMMENT ON FUNCTION public.llm_export_transposed(text, text) IS
'A parameter of the model as a file of PyTorch''s has it, [out, in].';


CREATE FUNCTION public.llm_export_file(path text, model text, format text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_config(model);
    PERFORM public.llm_require(path IS NOT NULL, 'path must not be NULL');
    PERFORM public.llm_require(format IS NOT NULL, 'format must not be NULL');
    IF NOT EXISTS (SELECT FROM public.llm_param p WHERE p.model = llm_export_file.model) THEN
        RAISE EXCEPTION 'model "%" has no weights', model
            USING ERRCODE = 'no_data_found', HINT = 'Initialise it with llm_init_model or import its weights.';
    END IF;
    RETURN (
        SELECT w.bytes
        FROM public.pg_llm_file_write(
            path,
            format,
            CASE format
                WHEN 'safetensors' THEN 'SELECT t.name, t.dtype, t.shape FROM public.llm_export_tensors($1) t'
                -- NumPy has no bf16.
                ELSE 'SELECT t.name, ''F32''::pg_catalog.text, t.shape FROM public.llm_export_tensors($1) t'
            END,
            'SELECT d.data, d.bytes FROM public.llm_export_data($1) d',
            model,
            -- transformers asks for this key.
            '{format,pt}'
        ) w
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_export_file(text, text, text) IS
'Writes the model''s weights to a file on the server; returns its size in bytes.';


CREATE FUNCTION public.pg_llm_export_npz(path text, model text, gzip boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require(gzip IS NOT NULL, 'gzip must not be NULL');
    RETURN public.llm_export_file(path, model, CASE WHEN gzip THEN 'gzip' ELSE 'npz' END);
END;
$function$;

COMMENT ON FUNCTION public.pg_llm_export_npz(text, text, boolean) IS
'Writes the model''s weights to an .npz file on the server, or as a gzip stream of (name, .npy) records. Returns its '
'size in bytes. An existing file is replaced atomically. Requires pg_write_server_files.';


CREATE FUNCTION public.pg_llm_export_safetensors(path text, model text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_export_file(path, model, 'safetensors');
END;
$function$;

COMMENT ON FUNCTION public.pg_llm_export_safetensors(text, text) IS
'Writes the model''s weights to a .safetensors file on the server that transformers can load: parameters that are '
'stored as bf16 as BF16, others as F32; otherwise like pg_llm_export_npz.';
