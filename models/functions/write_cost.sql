-- What storing a model's weights writes: heap, TOAST, indexes, WAL, from the layout of PostgreSQL's pages and records.
--
-- Sizes are those of PostgreSQL 15 to 18: src/include/access/heaptoast.h (TOAST_MAX_CHUNK_SIZE, TOAST_TUPLE_TARGET),
-- storage/bufpage.h (24 bytes of a page's header, 4 of a line pointer), access/htup_details.h (23 bytes of a row's
-- header, and its bitmap of NULLs), access/itup.h and nbtree.h (entries of 8 bytes and their key, pages left 90% full),
-- access/xlogrecord.h and heapam_xlog.h (24 bytes of a record's header, 20 for the page it is about, 24 of each WAL
-- page's).

CREATE FUNCTION public.llm_row_layout(
    model_bytes int, name_bytes int, tensor_bytes bigint, n_tensors int, OUT row_bytes bigint, OUT out_of_line int
)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- TOAST_TUPLE_TARGET: a quarter of a page, without its header and four line pointers.
    target CONSTANT int := (current_setting('block_size')::int - 40) / 32 * 8;
    -- Row header with the bitmap of ten columns, the texts with their lengths, token_id.
    before CONSTANT bigint := (32 + model_bytes + CASE WHEN model_bytes > 126 THEN 4 ELSE 1 END
        + name_bytes + CASE WHEN name_bytes > 126 THEN 4 ELSE 1 END + 3) / 4 * 4 + 4;
    inline_bytes CONSTANT bigint := CASE
        WHEN tensor_bytes <= 130 THEN tensor_bytes - 3 ELSE (tensor_bytes + 7) / 8 * 8
    END;
BEGIN
    -- Values are moved out of line, each leaving a pointer of 18 bytes, until the row is no larger than the target.
    FOR n IN 0 .. n_tensors LOOP
        out_of_line := n;
        row_bytes := (before + 18 * n + (n_tensors - n) * inline_bytes + 14) / 8 * 8 + 24;
        EXIT WHEN row_bytes <= target OR tensor_bytes <= 24;
    END LOOP;
    -- Its line pointer.
    row_bytes := row_bytes + 4;
END;
$function$;

COMMENT ON FUNCTION public.llm_row_layout(int, int, bigint, int) IS
'Of a row of llm_param whose model and name have so many bytes and which holds n_tensors values of tensor_bytes bytes '
'(their header included): the bytes that it takes on a page, and how many of its values stand out of line in TOAST.';


CREATE FUNCTION public.llm_version_layout(
    model text,
    n_tensors int,
    element_bytes int DEFAULT 4,
    OUT n_rows bigint,
    OUT row_bytes bigint,
    OUT row_pages numeric,
    OUT chunks bigint,
    OUT full_chunks bigint,
    OUT rest_bytes bigint
)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- TOAST_MAX_CHUNK_SIZE, 1996 bytes of a page of 8192: a quarter of it, less a chunk's header and its number.
    chunk_bytes CONSTANT int := (current_setting('block_size')::int - 40) / 32 * 8 - 36;
    -- The part of a page of rows that inserting fills.
    filled CONSTANT int := (current_setting('block_size')::int - 24) * COALESCE((
        SELECT o.option_value::int
        FROM pg_class c CROSS JOIN LATERAL pg_options_to_table(c.reloptions) o
        WHERE c.oid = 'public.llm_param'::regclass AND o.option_name = 'fillfactor'
    ), 100) / 100;
BEGIN
    SELECT sum(r.n), sum(r.n * l.row_bytes), sum(r.n::numeric / greatest(filled / l.row_bytes, 1)),
        sum(r.n * l.out_of_line * ((r.tensor_bytes + chunk_bytes - 5) / chunk_bytes)),
        sum(r.n * l.out_of_line * ((r.tensor_bytes - 4) / chunk_bytes)),
        -- On a page: header, number and line pointer, rounded to 8.
        sum(r.n * l.out_of_line * CASE
            WHEN (r.tensor_bytes - 4) % chunk_bytes > 0
                THEN ((r.tensor_bytes - 4) % chunk_bytes + 43) / 8 * 8 + 4
            ELSE 0 END)
    INTO n_rows, row_bytes, row_pages, chunks, full_chunks, rest_bytes
    FROM (
        -- As the configuration says, in the parts that llm_init_model makes. Layers are alike.
        SELECT s.name_bytes, s.n_tensors, s.tensor_bytes, sum(s.n)::bigint
        FROM (
            SELECT p.name_bytes, llm_version_layout.n_tensors, p.n,
                (20 + 4 * cardinality(p.shape) + 7) / 8 * 8
                    + element_bytes * i.n_rows * p.width AS tensor_bytes
            FROM (
                SELECT octet_length(e.name) AS name_bytes, e.shape, count(*) AS n,
                    public.llm_count(e.shape[2:])::bigint AS width
                FROM public.llm_parameters(model) e
                WHERE llm_version_layout.n_tensors > 0
                GROUP BY octet_length(e.name), e.shape
            ) p
            CROSS JOIN LATERAL public.llm_parts(p.shape) i
        ) s
        GROUP BY s.name_bytes, s.n_tensors, s.tensor_bytes
        UNION ALL
        -- As the rows are, the largest value standing for all of a row's: moments of bf16 weights are float32. An
        -- out-of-line value's size is that of its contents, without the varlena header.
        SELECT s.name_bytes, s.n_tensors, s.bytes + CASE WHEN s.bytes <= 127 THEN 3 ELSE 4 END, count(*)
        FROM (
            SELECT octet_length(p.name) AS name_bytes, 1 + num_nonnulls(p.m, p.v, p.grad) AS n_tensors,
                greatest(pg_column_size(p.data), pg_column_size(p.m), pg_column_size(p.v), pg_column_size(p.grad))
                    AS bytes
            FROM public.llm_param p
            WHERE llm_version_layout.n_tensors IS NULL AND p.model = llm_version_layout.model
        ) s
        GROUP BY s.name_bytes, s.n_tensors, s.bytes
    ) r (name_bytes, n_tensors, tensor_bytes, n)
    CROSS JOIN LATERAL public.llm_row_layout(octet_length(model), r.name_bytes, r.tensor_bytes, r.n_tensors) l;
END;
$function$;

COMMENT ON FUNCTION public.llm_version_layout(text, int, int) IS
'What a version of the model is made of when each row holds n_tensors values (data, m, v, grad) of elements of so many '
'bytes, from its configuration; NULL: as its rows are stored now. Rows, their bytes, and the pages of the heap '
'that inserting them fills; chunks in TOAST, those that are full among them, and the bytes that the others take on '
'a page. NULLs: there are no rows.';


CREATE FUNCTION public.llm_tokenizer_cost(
    model text, OUT heap_bytes bigint, OUT index_bytes bigint, OUT wal_bytes bigint
)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- Of an index entry: header, the model's name, and the rest of the key.
    entry CONSTANT int := 12 + octet_length(model);
BEGIN
    -- Tokens are inserted in no order: that leaves pages of their index two thirds full, and each is split on the way.
    SELECT sum(r.heap), sum(r.by_number / 0.9 + r.by_text / 0.65),
        sum(r.heap + 36 + r.by_number + 52 + CASE WHEN r.by_text > 0 THEN 1.5 * r.by_text + 52 ELSE 0 END)
    INTO heap_bytes, index_bytes, wal_bytes
    FROM (
        SELECT pg_column_size(v) + 8, entry + 12, entry + 12 + octet_length(v.token)
        FROM public.llm_bpe_vocab v WHERE v.model = llm_tokenizer_cost.model
        UNION ALL
        SELECT pg_column_size(g) + 8, entry + 12, 0
        FROM public.llm_bpe_merges g WHERE g.model = llm_tokenizer_cost.model
        UNION ALL
        SELECT pg_column_size(t) + 8, entry, 0
        FROM public.llm_tokenizer t WHERE t.model = llm_tokenizer_cost.model
    ) r (heap, by_number, by_text);
END;
$function$;

COMMENT ON FUNCTION public.llm_tokenizer_cost(text) IS
'What a copy of the model''s tokenizer takes in heap, indexes and WAL; NULLs: it has none.';


CREATE FUNCTION public.llm_write_cost(
    model text,
    task text DEFAULT 'training',
    write_backs int DEFAULT 1,
    n_steps bigint DEFAULT NULL,
    optimizer text DEFAULT 'keep',
    keep_grad boolean DEFAULT false,
    dtype text DEFAULT 'float32'
) RETURNS TABLE (
    part text,
    times bigint,
    heap_bytes bigint,
    toast_bytes bigint,
    index_bytes bigint,
    wal_bytes bigint,
    wal_bytes_max bigint,
    dead_bytes bigint
)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    page CONSTANT int := current_setting('block_size');
    usable CONSTANT numeric := page - 24;
    -- The record of a full chunk, and what the headers of WAL's pages add.
    chunk_record CONSTANT int := (page - 40) / 32 * 8 + 32;
    wal_factor CONSTANT numeric := current_setting('wal_block_size')::numeric
        / (current_setting('wal_block_size')::int - 24);
    most CONSTANT numeric := 9223372036854775807;
    image CONSTANT int := CASE WHEN current_setting('full_page_writes')::boolean THEN page + 16 ELSE 0 END;
    trains CONSTANT boolean := task IN ('training', 'finetuning');
    kept CONSTANT int := 3 + keep_grad::int;
    last CONSTANT int := CASE optimizer WHEN 'drop' THEN 1 ELSE 3 END + keep_grad::int;
    copies CONSTANT int := CASE WHEN task = 'copying' AND optimizer = 'keep' THEN (
        SELECT 1 + max(num_nonnulls(p.m, p.v)) FROM public.llm_param p WHERE p.model = llm_write_cost.model
    ) END;
    is_stored CONSTANT boolean := EXISTS (SELECT FROM public.llm_param p WHERE p.model = llm_write_cost.model);
    -- What is copied is as large as it is stored.
    is_bare CONSTANT boolean := is_stored AND NOT EXISTS (
        SELECT FROM public.llm_param p
        WHERE p.model = llm_write_cost.model AND num_nonnulls(p.m, p.v, p.grad) > 0
    );
BEGIN
    PERFORM public.llm_config(llm_write_cost.model);
    PERFORM public.llm_require(
        c.holds, format('%s must %s, got %s', c.name, c.rule, COALESCE(left(c.value, 100), 'NULL'))
    )
    FROM (
        VALUES
        ('task', task IN ('training', 'finetuning', 'initialising', 'importing', 'loading', 'copying'),
            'be training, finetuning, initialising, importing, loading or copying', task),
        ('write_backs', write_backs >= 1, 'be at least 1', write_backs::text),
        ('n_steps', COALESCE(n_steps BETWEEN 1 AND 1000000000000, true), 'be between 1 and 10^12', n_steps::text),
        ('optimizer', optimizer IN ('keep', 'drop'), 'be keep or drop', optimizer),
        ('keep_grad', keep_grad IS NOT NULL, 'be true or false', keep_grad::text),
        ('dtype', dtype IN ('float32', 'bf16'), 'be float32 or bf16', dtype)
    ) c (name, holds, rule, value);
    RETURN QUERY
    WITH writes AS (
        -- How many values a row gets, and how many it had: NULL is as it is stored now, 0 no row. Bytes of an element.
        SELECT w.*, CASE WHEN w.place = 2 AND llm_write_cost.dtype = 'bf16' THEN 2 ELSE 4 END AS width
        FROM (
            VALUES
            (1, 'copy', task IN ('copying', 'finetuning'), 1::bigint,
                CASE WHEN NOT is_bare THEN COALESCE(copies, 1) END, 0),
            (2, 'weights', task IN ('initialising', 'importing', 'loading'), 1,
                CASE WHEN task = 'loading' THEN last ELSE 1 END, CASE WHEN NOT is_stored THEN 0 END),
            (4, 'first write-back', trains, 1, CASE WHEN write_backs = 1 THEN last ELSE kept END,
                CASE WHEN NOT is_bare AND (task = 'finetuning' OR NOT is_stored) THEN 1 END),
            (5, 'further write-back', trains,
                write_backs - CASE WHEN last < kept AND write_backs > 1 THEN 2 ELSE 1 END, kept, kept),
            (6, 'last write-back', trains AND last < kept AND write_backs > 1, 1, last, kept)
        ) w (place, part, applies, times, new_values, old_values)
        WHERE w.applies AND w.times > 0
    ),
    layouts AS (
        SELECT v.n_values, v.width, COALESCE(l.n_rows, 0) AS n_rows, COALESCE(l.row_bytes, 0) AS row_bytes,
            COALESCE(l.row_pages, 0) AS row_pages, COALESCE(l.chunks, 0) AS chunks,
            COALESCE(l.full_chunks, 0) AS full_chunks, COALESCE(l.rest_bytes, 0) AS rest_bytes,
            -- Four full chunks are a page. The others leave holes that only shorter ones fill.
            COALESCE(
                ceil(l.full_chunks / 4.0) + ceil(l.rest_bytes / usable) + ceil((l.chunks - l.full_chunks) / 8.0), 0
            ) AS toast_pages
        FROM (
            SELECT w.new_values, w.width FROM writes w UNION SELECT w.old_values, 4 FROM writes w
        ) v (n_values, width)
        CROSS JOIN LATERAL public.llm_version_layout(llm_write_cost.model, v.n_values, v.width) l
    ),
    costs AS (
        SELECT w.place, w.part, w.times,
            -- An update finds room in the part of the old rows' pages that inserting leaves. New files have maps of
            -- their free space, and of what is visible to all.
            CASE
                WHEN w.place < 4 THEN ceil(n.row_pages) + 6 ELSE ceil(n.row_bytes / usable * 1.1) + 3
            END * page AS heap,
            (n.toast_pages + ceil(n.toast_pages / 2000) + CASE WHEN w.place < 4 THEN 4 ELSE 0 END) * page AS toast,
            -- Chunks have an entry of 16 bytes and 4 of line pointer each, in order, on pages left 90% full. Updates
            -- in place spare the two indexes of rows.
            (ceil(n.chunks * 1.005 / trunc((page - 40) * 0.9 / 20 - 4)) + 2
                + CASE WHEN w.place < 4 THEN ceil(n.n_rows * 200 / usable) + 2 ELSE 1 END) * page AS index,
            -- A chunk's record and its index entry's; the old chunk's removal; the row's lock, update and entries; in
            -- training, what is kept of the last recorded pass; and what comes once.
            wal_factor * (
                n.full_chunks * chunk_record + n.rest_bytes + (n.chunks - n.full_chunks) * 36 + n.chunks * 67
                + o.chunks * 56 + n.row_bytes + n.n_rows * CASE WHEN w.place < 4 THEN 500 ELSE 2048 END
                + o.n_rows * 56 + 131072
            ) AS wal,
            wal_factor * image * (o.toast_pages + ceil(o.row_pages) + ceil(n.n_rows / 8.0) + 12) AS images,
            o.toast_pages * page + o.row_bytes AS dead
        FROM writes w
        INNER JOIN layouts n ON n.n_values IS NOT DISTINCT FROM w.new_values AND n.width = w.width
        INNER JOIN layouts o ON o.n_values IS NOT DISTINCT FROM w.old_values AND o.width = 4
        UNION ALL
        -- Old tokens go when a checkpoint is loaded.
        SELECT 3, 'tokenizer', 1, t.heap_bytes + 2 * page, 0, t.index_bytes + 6 * page, wal_factor * t.wal_bytes,
            CASE task WHEN 'loading' THEN image * (t.heap_bytes / page + 8) ELSE 8 * image END,
            CASE task WHEN 'loading' THEN t.heap_bytes ELSE 0 END
        FROM public.llm_tokenizer_cost(llm_write_cost.model) t
        WHERE task IN ('copying', 'finetuning', 'loading') AND t.heap_bytes > 0
        UNION ALL
        SELECT 7, 'log of a step', n_steps, 160, 0, 160, 4096, 0, 0 WHERE n_steps > 0 AND trains
    )
    SELECT c.part, c.times, least(ceil(c.heap), most)::bigint, least(ceil(c.toast), most)::bigint,
        least(ceil(c.index), most)::bigint, least(ceil(c.wal), most)::bigint,
        least(ceil(c.wal + c.images), most)::bigint, least(ceil(c.dead), most)::bigint
    FROM (
        SELECT c.* FROM costs c
        UNION ALL
        SELECT 8, 'total', 1, sum(c.times * c.heap), sum(c.times * c.toast), sum(c.times * c.index),
            sum(c.times * c.wal), sum(c.times * c.images), sum(c.times * c.dead)
        FROM costs c
    ) c
    ORDER BY c.place;
END;
$function$;

COMMENT ON FUNCTION public.llm_write_cost(text, text, int, bigint, text, boolean, text) IS
'What a task writes for the model, in bytes, before it does: training, finetuning (a copy first), initialising, '
'importing, loading (a checkpoint) or copying. A row for each part, of which there are so many times, and their '
'total. heap_bytes, toast_bytes and index_bytes are written to llm_param, which grows by them at most: by less where '
'vacuum has made room, and to two versions in all if it runs between write-backs. wal_bytes is the WAL of it, '
'wal_bytes_max with an image of each page that was not changed since the last checkpoint, dead_bytes what vacuum can '
'free afterwards. Upper bounds, at most 5 percent and 1 MB a time above what is measured. n_steps adds the log of a '
'run; optimizer drop: the last write-back, a copy or a checkpoint is without moments; keep_grad as in llm_train; dtype '
'bf16: what is imported or loaded is stored as that (what is trained never is). The '
'rows that llm_finetune makes of its query are not included. 42704: unknown model; 22023: an argument out of range.';
