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


CREATE FUNCTION public.llm_require_disk(
    task text, heap_bytes numeric, toast_bytes numeric, index_bytes numeric, wal_bytes numeric
) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    disk_free CONSTANT numeric := public.pg_llm_disk_free('public.llm_param'::regclass);
    wal CONSTANT record := public.pg_llm_wal_free('public.llm_param'::regclass);
    -- Checkpoints make the oldest WAL go before there is much more than max_wal_size of it; and files may be ready.
    wal_needed CONSTANT numeric := greatest(
        least(wal_bytes, pg_size_bytes(current_setting('max_wal_size'))) - wal.ahead, 0
    );
    wal_here CONSTANT numeric := CASE WHEN wal.shared THEN wal_needed ELSE 0 END;
    tables numeric := heap_bytes + toast_bytes + index_bytes;
BEGIN
    IF tables + wal_here > disk_free THEN
        -- What llm_param occupies beyond its rows is taken first, once vacuumed.
        tables := greatest(tables - pg_total_relation_size('public.llm_param'::regclass) + COALESCE((
            SELECT sum(
                pg_column_size(p.data)::numeric + COALESCE(pg_column_size(p.grad), 0)
                + COALESCE(pg_column_size(p.m), 0) + COALESCE(pg_column_size(p.v), 0)
            )
            FROM public.llm_param p
        ), 0), 0);
    END IF;
    IF tables + wal_here > disk_free THEN
        RAISE EXCEPTION '% does not fit on the disk', task
            USING ERRCODE = 'disk_full',
            DETAIL = format('It writes %s of heap, %s of TOAST, %s of indexes and up to %s of WAL. %s need %s more '
                'than is there to be used again; %s are free.',
                pg_size_pretty(heap_bytes), pg_size_pretty(toast_bytes), pg_size_pretty(index_bytes),
                pg_size_pretty(wal_bytes), CASE WHEN wal.shared THEN 'Tables and WAL, on one disk,' ELSE 'Tables' END,
                pg_size_pretty(tables + wal_here), pg_size_pretty(disk_free)),
            HINT = 'llm_write_cost shows the calculation. VACUUM (TRUNCATE) llm_param frees the space of dropped and '
                'replaced weights. Or use a smaller model or another tablespace.';
    END IF;
    IF NOT wal.shared AND wal_needed > wal.free THEN
        RAISE EXCEPTION '%: its WAL does not fit on the disk', task
            USING ERRCODE = 'disk_full',
            DETAIL = format(
                'It writes up to %s of WAL, which needs %s more than the files that are ready; %s are free.',
                pg_size_pretty(wal_bytes), pg_size_pretty(wal_needed), pg_size_pretty(wal.free)),
            HINT = 'Give pg_wal more room, or lower max_wal_size so that checkpoints remove WAL earlier.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_require_disk(text, numeric, numeric, numeric, numeric) IS
'Raises 53100, with the calculation, unless so many bytes fit on the disk of llm_param, and so much WAL on its own or, '
'where that is the same, beside them. Where the system does not report what is free, everything fits.';


CREATE FUNCTION public.llm_require_memory(task text, n_weights numeric, copies int) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    memory CONSTANT numeric := n_weights * 4 * copies;
    memory_free CONSTANT numeric := public.pg_llm_memory_free();
BEGIN
    IF memory > memory_free THEN
        RAISE EXCEPTION '% does not fit in memory', task
            USING ERRCODE = 'out_of_memory',
            DETAIL = format('%s weights x 4 bytes x %s are %s; %s are available.',
                n_weights, copies, pg_size_pretty(memory), pg_size_pretty(memory_free)),
            HINT = 'llm_release() frees what a session keeps of other models. Or use a smaller model.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_require_memory(text, numeric, int) IS
'Raises 53200, with the calculation, unless the given number of copies of float32 weights fit in the memory available '
'to sessions. Where the system does not report what is free, everything fits.';


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


CREATE FUNCTION public.llm_require_room_for(
    model text,
    task text,
    memory_copies int DEFAULT 0,
    optimizer text DEFAULT 'keep',
    keep_grad boolean DEFAULT false,
    dtype text DEFAULT 'float32'
) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    what CONSTANT text := format('%s model "%s"',
        CASE task WHEN 'loading' THEN 'loading a checkpoint of' ELSE task END, model);
    n_weights numeric;
    plenty numeric;
    cost record;
BEGIN
    -- More than any task writes: four values for a weight, each with its WAL and the image of what it replaces, twice.
    SELECT sum(public.llm_count(e.shape)), sum(public.llm_count(e.shape)) * 4 * 4 * 6 + count(*) * 65536 + 268435456
    INTO n_weights, plenty
    FROM public.llm_parameters(model) e;
    IF plenty > public.pg_llm_disk_free('public.llm_param'::regclass)
        OR plenty > (public.pg_llm_wal_free('public.llm_param'::regclass)).free
    THEN
        SELECT c.heap_bytes, c.toast_bytes, c.index_bytes, c.wal_bytes_max INTO cost
        FROM public.llm_write_cost(model, task, optimizer => optimizer, keep_grad => keep_grad, dtype => dtype) c
        WHERE c.part = 'total';
        PERFORM public.llm_require_disk(
            what, cost.heap_bytes, cost.toast_bytes, cost.index_bytes, cost.wal_bytes_max
        );
    END IF;
    PERFORM public.llm_require_memory(what, n_weights, memory_copies);
END;
$function$;

COMMENT ON FUNCTION public.llm_require_room_for(text, text, int, text, boolean, text) IS
'Raises 53100 unless what a task of llm_write_cost writes for the model fits on the disk, and 53200 unless so many '
'copies of its float32 weights fit in memory.';
