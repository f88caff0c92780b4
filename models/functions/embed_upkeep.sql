-- A column of embeddings beside one of texts: filled, and kept up to date.

CREATE FUNCTION public.llm_embedding_cast(relation regclass, column_name text) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    tensor CONSTANT oid := 'public.tensor'::regtype;
    attribute record;
    base oid;
    between oid;
BEGIN
    SELECT a.atttypid AS type, format_type(a.atttypid, a.atttypmod) AS name, t.typtype, t.typbasetype INTO attribute
    FROM pg_attribute a
    INNER JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = relation AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'column "%" of relation "%" does not exist', column_name, relation
            USING ERRCODE = 'undefined_column';
    END IF;
    base := CASE attribute.typtype WHEN 'd' THEN attribute.typbasetype ELSE attribute.type END;
    IF base = tensor OR EXISTS (SELECT FROM pg_cast c WHERE c.castsource = tensor AND c.casttarget = base) THEN
        RETURN format('::%s::%s', base::regtype, attribute.name);
    END IF;
    -- pgvector's other types come from its vector.
    SELECT c.casttarget INTO between
    FROM pg_cast c
    INNER JOIN pg_cast d ON d.castsource = c.casttarget AND d.casttarget = base
    WHERE c.castsource = tensor AND c.casttarget::regtype::text ~ '(^|\.)vector$'
    LIMIT 1;
    IF between IS NULL THEN
        RAISE EXCEPTION 'column "%" of relation "%" has type %, and there is no cast from tensor to it',
            column_name, relation, attribute.name
            USING ERRCODE = 'datatype_mismatch',
            HINT = 'Embeddings are kept as tensor, real[], or pgvector''s vector (CREATE EXTENSION pg_llm_vector).';
    END IF;
    RETURN format('::%s::%s', between::regtype, attribute.name);
END;
$function$;

COMMENT ON FUNCTION public.llm_embedding_cast(regclass, text) IS
'What is written behind a tensor to make it a value of the column: ::vector::vector(384). 42703: no such column; '
'42804: a column of another type than tensor, real[] and, with pg_llm_vector, vector.';


CREATE FUNCTION public.llm_check_embedding(relation regclass, text_column text, embedding_column text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    class record;
BEGIN
    PERFORM public.llm_require_argument('relation', relation IS NOT NULL);
    PERFORM public.llm_require_argument('text_column', text_column IS NOT NULL);
    PERFORM public.llm_require_argument('embedding_column', embedding_column IS NOT NULL);
    SELECT CASE
        WHEN n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') THEN 'system table'
        ELSE CASE c.relkind
            WHEN 'r' THEN NULL
            WHEN 'p' THEN NULL
            WHEN 'v' THEN 'view'
            WHEN 'm' THEN 'materialized view'
            WHEN 'f' THEN 'foreign table'
            WHEN 'S' THEN 'sequence'
            WHEN 'i' THEN 'index'
            WHEN 'I' THEN 'index'
            ELSE 'composite type'
        END
    END AS kind INTO class
    FROM pg_class c
    INNER JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = relation;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'relation with OID % does not exist', relation::oid USING ERRCODE = 'undefined_table';
    END IF;
    IF class.kind IS NOT NULL THEN
        RAISE EXCEPTION '"%" is a %, whose rows cannot be filled', relation, class.kind
            USING ERRCODE = 'wrong_object_type', HINT = 'Name an ordinary or partitioned table.';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attname = text_column AND a.attnum > 0 AND NOT a.attisdropped
    ) THEN
        RAISE EXCEPTION 'column "%" of relation "%" does not exist', text_column, relation
            USING ERRCODE = 'undefined_column';
    END IF;
    PERFORM public.llm_embedding_cast(relation, embedding_column);
END;
$function$;

COMMENT ON FUNCTION public.llm_check_embedding(regclass, text, text) IS
'Raises 42809 unless the relation is an ordinary or a partitioned table, 42P01 if it is none, 42703 without the '
'columns, 42804 if the second can hold no embedding, 22004 for NULL.';


CREATE PROCEDURE public.llm_embed_missing(
    relation regclass,
    text_column text,
    embedding_column text,
    model text DEFAULT NULL,
    prompt text DEFAULT NULL,
    batch_rows int DEFAULT 256
)
LANGUAGE plpgsql
AS $procedure$
DECLARE
    tables pg_catalog.oid[];
    places pg_catalog.tid[];
    place pg_catalog.int4;
    filled pg_catalog.int8;
    filled_before pg_catalog.int8;
    n_cut pg_catalog.int8;
    shown_at pg_catalog.timestamptz;
    ended pg_catalog.bool;
BEGIN
    PERFORM public.pg_llm_require_autocommit('llm_embed_missing');
    COMMIT;
    LOOP
        -- Each statement is to see what others have committed; what commits cannot set search_path.
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        SELECT a.* INTO tables, places, place, filled, filled_before, n_cut, shown_at, ended
        FROM public.llm_embed_advance(
            relation, text_column, embedding_column, model, prompt, batch_rows,
            tables, places, place, filled, filled_before, n_cut, shown_at
        ) a;
        EXIT WHEN ended;
        COMMIT;
    END LOOP;
END;
$procedure$;

COMMENT ON PROCEDURE public.llm_embed_missing(regclass, text, text, text, text, int) IS
'Fills the column of embeddings, of type tensor, real[] or vector, in all rows of a table that have a text and no '
'embedding: llm_embed(text, model, prompt) of each. Commits after batch_rows rows, so that after an error or a crash '
'a further call goes on with the rows that are left. Several sessions may do it at once: each locks the rows it is at '
'and passes over those that others have locked. Takes the rights of the caller: SELECT and UPDATE on the table. Call '
'it outside a transaction block (2D000 otherwise). 42809: a view, a foreign or a system table; 42703: no such column; '
'42804: a column of another type; 22023: batch_rows, prompt; 42704: unknown model.';


CREATE FUNCTION public.llm_embed_advance(
    relation regclass,
    text_column text,
    embedding_column text,
    model text,
    prompt text,
    batch_rows int,
    INOUT tables oid[],
    INOUT places tid[],
    INOUT place int,
    INOUT filled bigint,
    INOUT filled_before bigint,
    INOUT n_cut bigint,
    INOUT shown_at timestamptz,
    OUT ended boolean
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    batch record;
    left_over int;
    n_passed bigint;
BEGIN
    PERFORM public.llm_require(batch_rows >= 1, format('batch_rows must be at least 1, got %s', batch_rows));
    PERFORM public.llm_check_embedding(relation, text_column, embedding_column);
    model := public.llm_default_model(model);
    filled := COALESCE(filled, 0);
    n_cut := COALESCE(n_cut, 0);
    shown_at := COALESCE(shown_at, clock_timestamp());
    ended := false;
    IF places IS NULL THEN
        PERFORM public.llm_embed_prefix(public.llm_config(model), prompt);
        SELECT f.* INTO tables, places FROM public.llm_embed_find(relation, text_column, embedding_column) f;
        place := 1;
        filled_before := filled;
    ELSE
        SELECT b.* INTO batch
        FROM public.llm_embed_batch(
            relation, text_column, embedding_column, model, prompt,
            tables[place : place::bigint + batch_rows - 1], places[place : place::bigint + batch_rows - 1]
        ) b;
        place := place + batch_rows;
        filled := filled + batch.filled;
        n_cut := n_cut + batch.n_cut;
    END IF;
    left_over := greatest(cardinality(places) - place + 1, 0);
    IF left_over > 0 THEN
        IF clock_timestamp() - shown_at > '10 s' THEN
            RAISE NOTICE '% rows of % filled, at least % to go', filled, relation, left_over;
            shown_at := clock_timestamp();
        END IF;
        RETURN;
    END IF;
    -- Rows that were changed meanwhile are elsewhere, and looked for again. Those that come while this goes on are for
    -- the next call.
    n_passed := cardinality(places) - (filled - filled_before);
    ended := filled = filled_before OR (n_passed = 0 AND cardinality(places) < 1000000);
    IF ended THEN
        RAISE NOTICE '% rows of % filled', filled, relation;
        IF n_cut > 0 THEN
            PERFORM public.llm_tell_cut(model, n_cut, filled);
        END IF;
        IF n_passed > 0 THEN
            RAISE NOTICE '% rows of % were not to be had: other sessions fill or have locked them', n_passed, relation
                USING HINT = 'Call llm_embed_missing again when those have ended.';
        END IF;
    END IF;
    places := NULL;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_advance(
    regclass, text, text, text, text, int, oid[], tid[], int, bigint, bigint, bigint, timestamptz
) IS
'What llm_embed_missing does between two commits: it looks for rows without an embedding, or fills the next batch of '
'those it found. The other arguments are what the call before returned, NULL at first.';


CREATE FUNCTION public.llm_embed_find(
    relation regclass, text_column text, embedding_column text, OUT tables oid[], OUT places tid[]
)
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_check_embedding(relation, text_column, embedding_column);
    -- As many as take a few megabytes of memory; each time the table is read from its beginning.
    EXECUTE format(
        'SELECT COALESCE(array_agg(f.o), ''{}''), COALESCE(array_agg(f.c), ''{}'')
        FROM (
            SELECT t.tableoid AS o, t.ctid AS c FROM %s t WHERE t.%I IS NULL AND t.%I IS NOT NULL LIMIT 1000000
        ) f',
        relation, embedding_column, text_column
    ) INTO tables, places;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_find(regclass, text, text) IS
'Where the rows are that have a text and no embedding.';


CREATE FUNCTION public.llm_embed_batch(
    relation regclass,
    text_column text,
    embedding_column text,
    model text,
    prompt text,
    tables oid[],
    places tid[],
    OUT filled bigint,
    OUT n_cut bigint
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    texts text[];
    made record;
BEGIN
    PERFORM public.llm_check_embedding(relation, text_column, embedding_column);
    filled := 0;
    n_cut := 0;
    -- Locked until the commit, and looked at again: what others filled, changed or deleted is passed over.
    EXECUTE format(
        'SELECT array_agg(l.o), array_agg(l.c), array_agg(l.body)
        FROM (
            SELECT t.tableoid AS o, t.ctid AS c, t.%2$I::text AS body
            FROM %1$s t
            WHERE t.ctid = ANY ($2) AND t.tableoid = ANY ($1) AND t.%3$I IS NULL AND t.%2$I IS NOT NULL
            FOR NO KEY UPDATE OF t SKIP LOCKED
        ) l',
        relation, text_column, embedding_column
    ) INTO tables, places, texts USING tables, places;
    IF texts IS NULL THEN
        RETURN;
    END IF;
    made := public.llm_embed_texts(texts, model, prompt);
    n_cut := made.n_cut;
    EXECUTE format(
        'WITH stored AS (
            UPDATE %1$s t SET %2$I = e.embedding%3$s
            FROM unnest($1, $2, $3) e (o, c, embedding)
            WHERE t.ctid = e.c AND t.tableoid = e.o AND t.%2$I IS NULL
            RETURNING t.%2$I IS NOT NULL AS filled
        )
        SELECT count(*) FILTER (WHERE s.filled) FROM stored s',
        relation, embedding_column, public.llm_embedding_cast(relation, embedding_column)
    ) INTO filled USING tables, places, made.embeddings;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_batch(regclass, text, text, text, text, oid[], tid[]) IS
'Fills those of the given rows that still have a text and no embedding, unless others have locked them; how many, and '
'how many texts were cut.';


CREATE FUNCTION public.llm_embedding_assignment(relation regclass, embedding_column text) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    assigned CONSTANT text := '$2' || public.llm_embedding_cast(relation, embedding_column);
BEGIN
    RETURN (
        SELECT 'SELECT ' || string_agg(
            CASE WHEN a.attname = embedding_column THEN assigned ELSE format('($1).%I', a.attname) END,
            ', ' ORDER BY a.attnum
        )
        FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_embedding_assignment(regclass, text) IS
'The query whose result is the row $1 of the relation with the tensor $2 in that column.';


CREATE FUNCTION public.llm_embed_column() RETURNS trigger
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    body text;
    before text;
BEGIN
    PERFORM public.llm_check_embed_trigger('llm_embed_column', TG_WHEN, TG_LEVEL, TG_OP, COALESCE(TG_ARGV, '{}'), 4);
    EXECUTE format('SELECT ($1).%I::text', TG_ARGV[0]) INTO body USING NEW;
    IF TG_OP = 'UPDATE' THEN
        EXECUTE format('SELECT ($1).%I::text', TG_ARGV[0]) INTO before USING OLD;
        IF body IS NOT DISTINCT FROM before THEN
            RETURN NEW;
        END IF;
    END IF;
    EXECUTE public.llm_embedding_assignment(TG_RELID, TG_ARGV[1]) INTO NEW
    USING NEW, public.llm_embed(body, TG_ARGV[2], TG_ARGV[3]);
    RETURN NEW;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_column() IS
'Keeps a column of embeddings up to date: CREATE TRIGGER ... BEFORE INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE '
'FUNCTION llm_embed_column(''body'', ''embedding'', ''model'', ''prompt''), the last two of which may be left out. '
'Where the text is new or changed, its embedding is made before the row is stored. 39P01: another kind of trigger.';


CREATE FUNCTION public.llm_embed_later() RETURNS trigger
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    body text;
    before text;
BEGIN
    PERFORM public.llm_check_embed_trigger('llm_embed_later', TG_WHEN, TG_LEVEL, TG_OP, COALESCE(TG_ARGV, '{}'), 2);
    IF TG_OP = 'UPDATE' THEN
        EXECUTE format('SELECT ($1).%1$I::text, ($2).%1$I::text', TG_ARGV[0]) INTO body, before USING NEW, OLD;
        IF body IS NOT DISTINCT FROM before THEN
            RETURN NEW;
        END IF;
    END IF;
    EXECUTE public.llm_embedding_assignment(TG_RELID, TG_ARGV[1]) INTO NEW USING NEW, NULL::public.tensor;
    RETURN NEW;
END;
$function$;

COMMENT ON FUNCTION public.llm_embed_later() IS
'Empties a column of embeddings where the text is new or changed, for llm_embed_missing to fill: CREATE TRIGGER ... '
'BEFORE INSERT OR UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION llm_embed_later(''body'', ''embedding''). 39P01: '
'another kind of trigger.';


CREATE FUNCTION public.llm_check_embed_trigger(
    name text, happens text, level text, event text, arguments text[], max_arguments int
) RETURNS void
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF happens = 'BEFORE' AND level = 'ROW' AND event IN ('INSERT', 'UPDATE')
        AND cardinality(arguments) BETWEEN 2 AND max_arguments
    THEN
        RETURN;
    END IF;
    RAISE EXCEPTION '% is for triggers BEFORE INSERT OR UPDATE ... FOR EACH ROW, with the names of two columns, of '
        'texts and of embeddings', name
        USING ERRCODE = 'trigger_protocol_violated',
        HINT = format('EXECUTE FUNCTION %s(%s)', name, left(
            '''body'', ''embedding'', ''model'', ''prompt''', CASE max_arguments WHEN 2 THEN 19 ELSE 38 END
        ));
END;
$function$;

COMMENT ON FUNCTION public.llm_check_embed_trigger(text, text, text, text, text[], int) IS
'Raises 39P01 unless a trigger is one that can change the row, and names the two columns.';
