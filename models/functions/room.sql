-- Disk and memory, asked for before something large begins.

CREATE FUNCTION public.llm_count(shape int[]) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n numeric := 1;
BEGIN
    FOR axis IN 1 .. cardinality(shape) LOOP
        n := n * shape[axis];
    END LOOP;
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_count(int[]) IS
'The number of elements of a tensor of that shape.';


CREATE FUNCTION public.llm_require_room(task text, n_weights numeric, disk_copies int, memory_copies int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- Numbers lie in TOAST chunks of 1996 bytes, four to a page of 8192.
    disk CONSTANT numeric := trunc(n_weights * 4 * disk_copies * 1.03);
    memory CONSTANT numeric := n_weights * 4 * memory_copies;
    disk_free numeric := public.pg_llm_disk_free('public.llm_param'::regclass);
    memory_free CONSTANT numeric := public.pg_llm_memory_free();
BEGIN
    IF disk > disk_free THEN
        -- What llm_param occupies beyond its rows is taken first, once vacuumed.
        disk_free := disk_free + pg_total_relation_size('public.llm_param'::regclass) - COALESCE((
            SELECT sum(
                pg_column_size(p.data)::numeric + COALESCE(pg_column_size(p.grad), 0)
                + COALESCE(pg_column_size(p.m), 0) + COALESCE(pg_column_size(p.v), 0)
            )
            FROM public.llm_param p
        ), 0);
    END IF;
    IF disk > disk_free THEN
        RAISE EXCEPTION '% does not fit on the disk', task
            USING ERRCODE = 'disk_full',
            DETAIL = format('%s weights x 4 bytes x %s, and 3%% for pages, are %s; %s are free.',
                n_weights, disk_copies, pg_size_pretty(disk), pg_size_pretty(trunc(disk_free))),
            HINT = 'VACUUM (TRUNCATE) llm_param frees the space of dropped and replaced weights. Or use a smaller '
                'model or another tablespace.';
    END IF;
    IF memory > memory_free THEN
        RAISE EXCEPTION '% does not fit in memory', task
            USING ERRCODE = 'out_of_memory',
            DETAIL = format('%s weights x 4 bytes x %s are %s; %s are available.',
                n_weights, memory_copies, pg_size_pretty(memory), pg_size_pretty(memory_free)),
            HINT = 'llm_release() frees what a session keeps of other models. Or use a smaller model.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_require_room(text, numeric, int, int) IS
'Raises 53100 or 53200, with the calculation, unless the given number of copies of float32 weights fit on the disk of '
'llm_param and in the memory available to sessions. Where the system does not report what is free, everything fits.';


CREATE FUNCTION public.llm_require_room_to_fill(model text, documents text[], block_size int, stride int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n_bytes CONSTANT numeric := (SELECT sum(octet_length(d.document)) FROM unnest(documents) d (document));
    -- At least: a character is one token, and one of BPE rarely stands for more than eight bytes.
    n_tokens CONSTANT numeric := CASE public.llm_tokenizer_kind(model)
        WHEN 'char' THEN trunc(n_bytes / 4) ELSE trunc(n_bytes / 8)
    END;
    rows_per_token CONSTANT numeric := COALESCE(block_size::numeric / COALESCE(stride, block_size), 1);
    disk CONSTANT numeric := trunc(n_tokens * rows_per_token * 8 / 4);
    disk_free CONSTANT numeric := public.pg_llm_disk_free('public.llm_dataset'::regclass);
BEGIN
    -- What the rows take once compressed may be a quarter; that much must be there.
    IF disk > disk_free + pg_total_relation_size('public.llm_dataset'::regclass) THEN
        RAISE EXCEPTION 'filling the data of model "%" does not fit on the disk', model
            USING ERRCODE = 'disk_full',
            DETAIL = format('%s bytes of text, at least %s tokens, each in %s rows, 8 bytes in each, are %s even if '
                'they compress to a quarter; %s are free.',
                n_bytes, n_tokens, round(rows_per_token, 1), pg_size_pretty(disk),
                pg_size_pretty(disk_free)),
            HINT = 'Raise stride, or fill from less text.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_require_room_to_fill(text, text[], int, int) IS
'Raises 53100, with the calculation, if the rows that llm_fill_dataset would create cannot fit on the disk.';


CREATE FUNCTION public.llm_require_room_for(model text, task text, disk_copies int, memory_copies int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_room(
        format('%s model "%s"', task, model), COALESCE(sum(public.llm_count(e.shape)), 0), disk_copies, memory_copies
    )
    FROM public.llm_parameters(model) e;
END;
$function$;

COMMENT ON FUNCTION public.llm_require_room_for(text, text, int, int) IS
'Calls llm_require_room for all weights of a model, according to its configuration.';
