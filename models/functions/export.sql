-- Exporting weights to files on the server, under Hugging Face's names.

CREATE FUNCTION public.llm_export_tensors(model text) RETURNS TABLE (name text, dtype text, shape int[])
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT p.name, 'F32'::text, sum((public.shape(p.data))[1])::int || (min(public.shape(p.data)))[2:]
    FROM public.llm_param p
    WHERE p.model = llm_export_tensors.model
    GROUP BY p.name
    ORDER BY p.name COLLATE "C";
END;
$function$;

COMMENT ON FUNCTION public.llm_export_tensors(text) IS
'The parameters that make up an exported file, in its order.';


-- Inlined, so that rows go to the file one by one; what is inlined cannot set a path, so that operators are qualified.
CREATE FUNCTION public.llm_export_data(model text) RETURNS TABLE (data public.tensor, bytes bytea)
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    SELECT p.data, NULL::pg_catalog.bytea
    FROM public.llm_param p
    WHERE p.model OPERATOR(pg_catalog.=) llm_export_data.model
    ORDER BY p.name COLLATE pg_catalog."C", p.token_id
$function$;

COMMENT ON FUNCTION public.llm_export_data(text) IS
'The contents of what llm_export_tensors lists, in its order; a large parameter is several rows.';


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
            'SELECT t.name, t.dtype, t.shape FROM public.llm_export_tensors($1) t',
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
'Writes the model''s weights to a .safetensors file on the server that transformers can load; otherwise like '
'pg_llm_export_npz.';
