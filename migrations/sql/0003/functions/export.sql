-- Exporting weights to files on the server, under Hugging Face's names.

CREATE FUNCTION public.llm_export_file(path text, model text, format text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_config(model);
    IF NOT EXISTS (SELECT FROM public.llm_param p WHERE p.model = llm_export_file.model) THEN
        RAISE EXCEPTION 'model "%" has no weights', model
            USING ERRCODE = 'no_data_found', HINT = 'Initialise it with llm_init_model or import its weights.';
    END IF;
    RETURN (
        SELECT w.bytes
        FROM public.pg_llm_file_write(
            path,
            format,
            'SELECT p.name, ''F32'', sum((public.shape(p.data))[1])::int || (min(public.shape(p.data)))[2:]
            FROM public.llm_param p WHERE p.model = $1 GROUP BY p.name ORDER BY p.name COLLATE "C"',
            'SELECT p.data, NULL::bytea
            FROM public.llm_param p WHERE p.model = $1 ORDER BY p.name COLLATE "C", p.token_id',
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
    RETURN public.llm_export_file(path, model, CASE WHEN gzip THEN 'gzip' ELSE 'npz' END);
END;
$function$;

COMMENT ON FUNCTION public.pg_llm_export_npz(text, text, boolean) IS
'Writes the model''s weights to an .npz file on the server, or as a gzip stream of (name, .npy) records; returns its size '
'in bytes. A file of that name is replaced at once, or not at all. Takes the role pg_write_server_files.';


CREATE FUNCTION public.pg_llm_export_safetensors(path text, model text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_export_file(path, model, 'safetensors');
END;
$function$;

COMMENT ON FUNCTION public.pg_llm_export_safetensors(text, text) IS
'Writes the model''s weights to a .safetensors file on the server that transformers loads; all else as '
'pg_llm_export_npz.';
