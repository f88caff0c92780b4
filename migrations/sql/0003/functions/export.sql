-- Exporting weights to files on the server, under Hugging Face's names.

CREATE FUNCTION public.llm_export_tensors(model text) RETURNS TABLE (name text, dtype text, shape int[])
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    family CONSTANT text := public.llm_hub_family(llm_export_tensors.model);
BEGIN
    RETURN QUERY
    SELECT COALESCE(b.name, p.name),
        CASE WHEN public.llm_export_is_bf16(llm_export_tensors.model, p.name, b.how) THEN 'BF16' ELSE 'F32' END,
        public.llm_import_source_shape(p.shape, COALESCE(b.how, 'same'), 1)
    FROM (
        SELECT s.name, sum((public.shape(s.data))[1])::int || (min(public.shape(s.data)))[2:] AS shape
        FROM public.llm_param s
        WHERE s.model = llm_export_tensors.model
        GROUP BY s.name
    ) p
    CROSS JOIN LATERAL public.llm_hub_name(family, p.name) b
    WHERE public.llm_export_first(b.how)
    ORDER BY p.name COLLATE "C";
END;
$function$;

COMMENT ON FUNCTION public.llm_export_tensors(text) IS
'The tensors that make up an exported file, in its order, under Hugging Face''s names: parameters as they are, or as '
'llm_hub_name tells. dtype: BF16 where all rows of what a tensor holds are stored as bf16, else F32.';


CREATE FUNCTION public.llm_export_first(how text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN how IS NULL OR how !~ '^part [13]';
END;
$function$;

COMMENT ON FUNCTION public.llm_export_first(text) IS
'Whether a parameter (how: llm_hub_name) begins a tensor of an exported file. Of three that one tensor holds, keys '
'stand first in the order of names.';


CREATE FUNCTION public.llm_export_is_bf16(model text, name text, how text) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN (
        SELECT bool_and(public.dtype(p.data) = 'bf16')
        FROM public.llm_param p
        WHERE p.model = llm_export_is_bf16.model
            AND (
                p.name = llm_export_is_bf16.name
                OR how LIKE 'part %' AND p.name = ANY (
                    ARRAY(
                        SELECT regexp_replace(llm_export_is_bf16.name, '[.]k_proj[.]', format('.%s_proj.', part.letter))
                        FROM unnest('{q,v}'::text[]) part (letter)
                    )
                )
            )
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_export_is_bf16(text, text, text) IS
'Whether a tensor of an exported file has elements of bf16: all rows of the parameters that it holds do.';


-- Inlined, so that rows go to the file one by one; what is inlined cannot set a path, so that operators are qualified.
CREATE FUNCTION public.llm_export_data(model text) RETURNS TABLE (data public.tensor, bytes bytea)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $function$
    SELECT CASE WHEN p.how IS NULL THEN p.data
            ELSE public.llm_export_value(llm_export_data.model, p.name, p.how) END,
        NULL::pg_catalog.bytea
    FROM (
        SELECT s.name, s.token_id, s.data, NULLIF(
            (public.llm_hub_name(public.llm_hub_family(llm_export_data.model), s.name)).how, 'same'
        ) AS how
        FROM public.llm_param s
        WHERE s.model OPERATOR(pg_catalog.=) llm_export_data.model
        ORDER BY s.name COLLATE pg_catalog."C", s.token_id
        -- References to the values are sorted, not the values.
        OFFSET 0
    ) p
    WHERE p.how IS NULL OR p.token_id OPERATOR(pg_catalog.=) 0 AND public.llm_export_first(p.how)
$function$;

COMMENT ON FUNCTION public.llm_export_data(text) IS
'The contents of what llm_export_tensors lists, in its order; a large parameter is several rows.';


-- STABLE: it sees what the query that calls it sees, so that a file holds one version of the model.
CREATE FUNCTION public.llm_export_value(model text, name text, how text) RETURNS public.tensor
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    config CONSTANT public.llm_model_config := public.llm_config(model);
    third public.tensor;
    whole public.tensor;
    shape int[];
BEGIN
    PERFORM public.pg_llm_set_recording(false, true);
    IF how LIKE 'part %' THEN
        -- Head by head: queries, keys, values of the first, then of the second.
        FOR part IN 1 .. 3 LOOP
            third := public.llm_export_whole(model, regexp_replace(name, '[.]k_proj[.]', format('.%s_proj.',
                ('{q,k,v}'::text[])[part])));
            IF how LIKE '%transposed' THEN
                third := public.pg_llm_transpose(third);
            END IF;
            shape := public.shape(third);
            third := public.pg_llm_reshape(
                third, ARRAY[config.n_head, 1, shape[1] / config.n_head * COALESCE(shape[2], 1)]
            );
            whole := CASE WHEN part = 1 THEN third ELSE public.pg_llm_concat(whole, third, 1) END;
        END LOOP;
        whole := public.pg_llm_reshape(whole, 3 * shape[1] || shape[2:]);
    ELSE
        whole := public.llm_export_whole(model, name);
        IF how = 'transposed' THEN
            whole := public.pg_llm_transpose(whole);
        ELSIF how LIKE 'after %' THEN
            shape := public.shape(whole);
            shape[1] := split_part(how, ' ', 2)::int;
            whole := public.pg_llm_concat(public.pg_llm_full(shape, 0.0), whole, 0);
        END IF;
    END IF;
    PERFORM public.pg_llm_set_recording(recording, true);
    RETURN CASE
        WHEN public.llm_export_is_bf16(model, name, how) THEN public.pg_llm_to_bf16(whole)
        ELSE whole
    END;
END;
$function$;

COMMENT ON FUNCTION public.llm_export_value(text, text, text) IS
'A parameter of the model as Hugging Face''s files have it, where that is another way (how: llm_hub_name) than ours; '
'of queries, keys and values in one tensor that tensor.';


CREATE FUNCTION public.llm_export_whole(model text, name text) RETURNS public.tensor
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    part record;
    whole public.tensor;
BEGIN
    FOR part IN
        SELECT p.data FROM public.llm_param p
        WHERE p.model = llm_export_whole.model AND p.name = llm_export_whole.name
        ORDER BY p.token_id
    LOOP
        whole := CASE WHEN whole IS NULL THEN part.data ELSE public.pg_llm_concat(whole, part.data, 0) END;
    END LOOP;
    RETURN whole;
END;
$function$;

COMMENT ON FUNCTION public.llm_export_whole(text, text) IS
'A parameter of the model in one piece.';


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
