-- Text to token ids and back, by the tokenizer each model has in llm_bpe_vocab.

CREATE FUNCTION public.llm_tokenizer_kind(model text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    stated text := (SELECT t.kind FROM public.llm_tokenizer t WHERE t.model = llm_tokenizer_kind.model);
BEGIN
    IF stated IS NULL AND EXISTS (
        SELECT FROM public.llm_bpe_vocab v
        WHERE v.model = llm_tokenizer_kind.model AND v.token = '<|bos|>' AND v.bytes = ''
    ) THEN
        RETURN 'char';
    END IF;
    -- In the index's order: any row of the model would be looked for among those of all other models.
    PERFORM FROM public.llm_bpe_vocab v WHERE v.model = llm_tokenizer_kind.model ORDER BY v.token_id LIMIT 1;
    IF FOUND THEN
        RETURN COALESCE(stated, 'bpe');
    END IF;
    RETURN NULL;
END;
$function$;

COMMENT ON FUNCTION public.llm_tokenizer_kind(text) IS
'char for a character tokenizer, bpe for byte-level BPE, sentencepiece for SentencePiece''s BPE, wordpiece for '
'WordPiece, NULL if the model has no tokenizer.';


CREATE FUNCTION public.llm_check_tokenizer(model text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_check_copied(model);
    IF public.llm_tokenizer_kind(model) IS NULL THEN
        RAISE EXCEPTION 'model % has no tokenizer', COALESCE('"' || model || '"', 'NULL')
            USING ERRCODE = 'undefined_object',
            HINT = 'llm_load_bpe(model, vocab, merges) loads GPT-2''s, llm_load_wordpiece(model, vocab) BERT''s; '
                'llm_train_bpe(model, query, vocab) and llm_build_char_tokenizer(model, query) make one from text.';
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_check_tokenizer(text) IS
'Raises 42704 if the model has no tokenizer, 55000 while a subscription is still copying it.';


CREATE FUNCTION public.llm_end_tokens(model text) RETURNS int[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    ids int[] := ARRAY(
        SELECT v.token_id FROM public.llm_bpe_vocab v
        WHERE v.model = llm_end_tokens.model AND v.flags <> '{}'::text[] AND v.flags && '{eos,stop}'::text[]
        ORDER BY 'eos' = ANY (v.flags) DESC, v.token_id
    );
BEGIN
    IF cardinality(ids) > 0 THEN
        RETURN ids;
    END IF;
    -- Rows that say nothing of it, as vocab.json alone leaves them: then GPT-2's name for it counts.
    RETURN ARRAY(
        SELECT v.token_id FROM public.llm_bpe_vocab v
        WHERE v.model = llm_end_tokens.model AND v.token IN ('<|endoftext|>', '<|bos|>')
        ORDER BY v.token = '<|endoftext|>' DESC
        LIMIT 1
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_end_tokens(text) IS
'The ids of the tokens that end a generation: those with the flags eos (first) or stop in llm_bpe_vocab; if no token '
'has these flags, <|endoftext|>, else <|bos|>. Empty if there is none.';


CREATE FUNCTION public.llm_end_token(model text) RETURNS int
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN (public.llm_end_tokens(model))[1];
END;
$function$;

COMMENT ON FUNCTION public.llm_end_token(text) IS
'The id of the token that ends a document: the one with the flag eos in llm_bpe_vocab, else <|endoftext|>, else BOS; '
'NULL if there is none.';


CREATE FUNCTION public.llm_begin_token(model text) RETURNS int
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN COALESCE(
        (
            SELECT min(v.token_id) FROM public.llm_bpe_vocab v
            WHERE v.model = llm_begin_token.model AND v.flags <> '{}'::text[] AND 'bos' = ANY (v.flags)
        ),
        public.llm_end_token(model)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_begin_token(text) IS
'The id of the token that begins a document: the one with the flag bos in llm_bpe_vocab, else the one that ends a '
'document; NULL if there is none.';


CREATE FUNCTION public.llm_json_ids(ids jsonb) RETURNS int[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF COALESCE(jsonb_typeof(ids), 'array') <> 'array' OR EXISTS (
        SELECT FROM jsonb_array_elements(ids) i (value) WHERE i.value::text !~ '^[0-9]{1,9}$'
    ) THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY(
        SELECT i.value::int FROM jsonb_array_elements(ids) WITH ORDINALITY i (value, place) ORDER BY i.place
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_json_ids(jsonb) IS
'Token ids in a setting of a tokenizer, as an array; empty for NULL. NULL: anything else than an array of ids.';


CREATE FUNCTION public.llm_prefix_tokens(model text) RETURNS int[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_json_ids((
        SELECT COALESCE(t.settings -> 'prefix', t.settings #> '{template,prefix}')
        FROM public.llm_tokenizer t
        WHERE t.model = llm_prefix_tokens.model
    ));
END;
$function$;

COMMENT ON FUNCTION public.llm_prefix_tokens(text) IS
'The ids of the tokens that the model''s tokenizer puts before a text, such as Llama''s <|begin_of_text|>; empty if '
'there are none.';


CREATE FUNCTION public.llm_build_char_tokenizer(model text, query text) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    characters text[];
    expected int := (
        SELECT c.vocab FROM public.llm_model_config c WHERE c.model = llm_build_char_tokenizer.model
    );
BEGIN
    PERFORM public.llm_require(llm_build_char_tokenizer.model <> '', 'a tokenizer needs a model''s name');
    PERFORM public.llm_require(query IS NOT NULL, 'query must not be NULL');
    SELECT array_agg(s.c ORDER BY convert_to(s.c, 'UTF8')) INTO characters
    FROM (
        SELECT DISTINCT c.c COLLATE "C" AS c
        FROM public.llm_query_documents(query) q (document)
        CROSS JOIN LATERAL public.pg_llm_characters(q.document) c (c)
    ) s;
    IF characters IS NULL THEN
        RAISE EXCEPTION 'the query returned no text'
            USING ERRCODE = 'no_data_found', HINT = 'The documents are read from its first column.';
    END IF;
    PERFORM public.llm_require(
        COALESCE(expected = cardinality(characters) + 1, true),
        format('the text has %s characters and BOS, model "%s" has vocab %s',
            cardinality(characters), llm_build_char_tokenizer.model, expected),
        'Build the tokenizer before llm_create_model, which then takes its vocab from it.'
    );
    DELETE FROM public.llm_tokenizer t WHERE t.model = llm_build_char_tokenizer.model;
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_build_char_tokenizer.model;
    DELETE FROM public.llm_bpe_vocab v WHERE v.model = llm_build_char_tokenizer.model;
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, flags)
    SELECT llm_build_char_tokenizer.model, c.position - 1, c.token, convert_to(c.token, 'UTF8'), '{}'::text[]
    FROM unnest(characters) WITH ORDINALITY c (token, position)
    UNION ALL
    SELECT llm_build_char_tokenizer.model, cardinality(characters), '<|bos|>', ''::bytea, '{bos,eos}'::text[];
    RETURN cardinality(characters) + 1;
END;
$function$;

COMMENT ON FUNCTION public.llm_build_char_tokenizer(text, text) IS
'Replaces the model''s tokenizer with one token for each character in the query''s first column, with ids in code '
'point order, and BOS, whose id is the number of characters. Returns the size of the vocabulary, BOS included. 22023: '
'an existing model has another vocab; P0002: the query returned no text.';


CREATE FUNCTION public.llm_subquery(query text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    -- The newline ends a comment that the query may end with.
    RETURN rtrim(query, E'; \t\r\n') || E'\n';
END;
$function$;

COMMENT ON FUNCTION public.llm_subquery(text) IS
'The query in a form that can be used in FROM: without a final semicolon.';


CREATE FUNCTION public.llm_query_documents(query text) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    source text := format('SELECT q.document::pg_catalog.text FROM (%s) AS q (document)', public.llm_subquery(query));
BEGIN
    PERFORM public.pg_llm_use_callers_search_path();
    RETURN QUERY EXECUTE source;
END;
$function$;

COMMENT ON FUNCTION public.llm_query_documents(text) IS
'The first column of a user''s query as text, in its order. Names in the query are resolved with the search path of '
'the caller of llm-sql.';


CREATE FUNCTION public.llm_encode_characters(documents text[], model text)
RETURNS TABLE (number bigint, ids int[])
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    unknown_at int;
    characters text[];
BEGIN
    FOR number, ids IN
        SELECT d.number, array_agg(v.token_id ORDER BY c.position) FILTER (WHERE c.character IS NOT NULL)
        FROM unnest(documents) WITH ORDINALITY d (document, number)
        LEFT JOIN LATERAL public.pg_llm_characters(d.document) WITH ORDINALITY c (character, position) ON true
        LEFT JOIN public.llm_bpe_vocab v
            ON v.model = llm_encode_characters.model AND v.token = c.character
        GROUP BY d.number
        ORDER BY d.number
    LOOP
        ids := COALESCE(ids, '{}');
        unknown_at := array_position(ids, NULL);
        IF unknown_at IS NOT NULL THEN
            characters := ARRAY(
                SELECT c.c FROM public.pg_llm_characters(documents[number]) c (c) LIMIT greatest(unknown_at, 60));
            RAISE EXCEPTION 'the tokenizer of model "%" does not know the character %',
                llm_encode_characters.model, quote_literal(characters[unknown_at])
                USING ERRCODE = 'character_not_in_repertoire',
                DETAIL = format('It is at position %s of: %s', unknown_at, array_to_string(characters[: 60], '')),
                HINT = 'llm_build_char_tokenizer builds a tokenizer from text that contains it.';
        END IF;
        RETURN NEXT;
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_encode_characters(text[], text) IS
'Number and token ids of each document under the model''s character tokenizer. 22021, naming it: an unknown '
'character.';


CREATE FUNCTION public.llm_encode_documents(documents text[], model text, continued boolean DEFAULT false)
RETURNS TABLE (number bigint, ids int[])
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    handle int := public.llm_bpe_handle(model);
BEGIN
    IF handle IS NULL THEN
        RETURN QUERY SELECT e.number, e.ids FROM public.llm_encode_characters(documents, model) e;
    ELSE
        RETURN QUERY
        SELECT d.number, public.pg_llm_bpe_encode(handle, d.document, false, d.number = 1 OR NOT continued)
        FROM unnest(documents) WITH ORDINALITY d (document, number);
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_encode_documents(text[], text, boolean) IS
'Number and token ids of each document under the model''s tokenizer. Text that looks like a special token is encoded '
'as text, so a document cannot end itself; added tokens that are not special are recognised. continued: together the '
'documents are one text, of which special tokens stand between them.';


CREATE FUNCTION public.llm_encode(
    text text,
    model text DEFAULT NULL,
    special boolean DEFAULT false,
    bos boolean DEFAULT false
) RETURNS int[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    handle int;
    ids int[];
    begin_token int;
BEGIN
    IF llm_encode.text IS NULL THEN
        RETURN NULL;
    END IF;
    model := public.llm_default_model(model);
    handle := public.llm_bpe_handle(model);
    IF handle IS NULL THEN
        ids := (SELECT e.ids FROM public.llm_encode_characters(ARRAY[llm_encode.text], model) e);
    ELSE
        ids := public.pg_llm_bpe_encode(handle, llm_encode.text, COALESCE(special, false));
    END IF;
    IF bos THEN
        begin_token := public.llm_begin_token(model);
        PERFORM public.llm_require(
            begin_token IS NOT NULL, format('the tokenizer of model "%s" has no token that begins a text', model),
            'Such a token has the flag bos or eos in llm_bpe_vocab.'
        );
        ids := begin_token || ids;
    END IF;
    RETURN ids;
END;
$function$;

COMMENT ON FUNCTION public.llm_encode(text, text, boolean, boolean) IS
'Token ids of the text under the model''s tokenizer, without begin or end tokens; bos puts the begin-of-text token in '
'front (llm_begin_token; 22023 if there is none). Added tokens are recognised in the text as in Hugging Face''s '
'tokenizers, but special ones such as <|endoftext|> only with special => true: else they are text like any other. '
'22021: a character that the tokenizer does not know; 42704: the model has no tokenizer.';


CREATE FUNCTION public.llm_encode_sequences(texts text[], model text, max_tokens int DEFAULT NULL)
RETURNS TABLE (number bigint, ids int[], length int)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    handle int := public.llm_bpe_handle(model);
    most CONSTANT int := COALESCE(max_tokens, 2147483647);
BEGIN
    PERFORM public.llm_require(most > 0, format('max_tokens must be positive, got %s', max_tokens));
    IF handle IS NULL THEN
        RETURN QUERY
        SELECT e.number, e.ids[: most], cardinality(e.ids)
        FROM public.llm_encode_characters(array_remove(texts, NULL), model) e;
    ELSE
        RETURN QUERY
        SELECT d.number, s.ids, s.length
        FROM unnest(texts) WITH ORDINALITY d (document, number)
        CROSS JOIN LATERAL public.pg_llm_encode_sequence(handle, d.document, most) s
        WHERE d.document IS NOT NULL;
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_encode_sequences(text[], text, int) IS
'Number of each text that is not NULL, its tokens as llm_encode_sequence gives them, and how many they would be '
'without max_tokens.';


CREATE FUNCTION public.llm_encode_sequence(text text, model text DEFAULT NULL, max_tokens int DEFAULT NULL)
RETURNS int[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF llm_encode_sequence.text IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT s.ids
        FROM public.llm_encode_sequences(
            ARRAY[llm_encode_sequence.text], public.llm_default_model(model), max_tokens) s
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_encode_sequence(text, text, int) IS
'Token ids of the text as a model reads it, as Hugging Face''s tokenizer(text, truncation=True) gives them: special '
'tokens in the text recognised, the tokens of the tokenizer''s template around it ([CLS] and [SEP] of BERT), cut to '
'max_tokens in all. 22023: max_tokens has no room for the template; 42704: the model has no tokenizer.';


CREATE FUNCTION public.llm_token_bytes(ids int[], model text) RETURNS bytea
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    result bytea;
    unknown int;
    n_unknown bigint;
BEGIN
    SELECT string_agg(v.bytes, ''::bytea ORDER BY i.position),
        count(*) FILTER (WHERE v.token_id IS NULL), min(i.id) FILTER (WHERE v.token_id IS NULL)
    INTO result, n_unknown, unknown
    FROM unnest(ids) WITH ORDINALITY i (id, position)
    LEFT JOIN LATERAL (
        SELECT b.token_id, b.bytes FROM public.llm_bpe_vocab b
        WHERE b.model = llm_token_bytes.model AND b.token_id = i.id OFFSET 0
    ) v ON true;
    IF n_unknown > 0 THEN
        RAISE EXCEPTION 'token % is not in the tokenizer of model "%"', COALESCE(unknown::text, 'NULL'), model
            USING ERRCODE = 'numeric_value_out_of_range', HINT = 'llm_bpe_vocab lists the tokens.';
    END IF;
    RETURN COALESCE(result, ''::bytea);
END;
$function$;

COMMENT ON FUNCTION public.llm_token_bytes(int[], text) IS
'The bytes of the tokens, concatenated. 22003: an unknown token.';


CREATE FUNCTION public.llm_known_tokens(ids int[], model text) RETURNS int[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN ARRAY(
        SELECT i.id
        FROM unnest(ids) WITH ORDINALITY i (id, place)
        WHERE EXISTS (
            SELECT FROM public.llm_bpe_vocab v WHERE v.model = llm_known_tokens.model AND v.token_id = i.id
        )
        ORDER BY i.place
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_known_tokens(int[], text) IS
'The given ids without those that the tokenizer does not have. A model''s vocabulary may be larger, padded to a round '
'number: a generated id beyond the tokenizer has no text, as in transformers.';


CREATE FUNCTION public.llm_decode(ids int[], model text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    handle int;
BEGIN
    IF ids IS NULL THEN
        RETURN NULL;
    END IF;
    model := public.llm_default_model(model);
    handle := public.llm_bpe_handle(model);
    IF handle IS NULL THEN
        RETURN public.pg_llm_utf8_text(public.llm_token_bytes(ids, model));
    END IF;
    RETURN public.pg_llm_utf8_text(public.pg_llm_bpe_decode(handle, ids));
END;
$function$;

COMMENT ON FUNCTION public.llm_decode(int[], text) IS
'The text of token ids under the model''s tokenizer, of WordPiece as its decoder in Hugging Face''s tokenizers gives '
'it. BOS has no text. U+FFFD replaces bytes that are not valid UTF-8, '
'and NUL, which a text cannot contain; llm_token_bytes returns the bytes themselves. 22003: an unknown token; 42704: '
'the model has no tokenizer.';
