-- Text to token ids and back, by the tokenizer each model has in llm_bpe_vocab.

CREATE FUNCTION public.llm_tokenizer_kind(model text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $function$
BEGIN
    IF EXISTS (
        SELECT FROM public.llm_bpe_vocab v WHERE v.model = llm_tokenizer_kind.model AND v.token = '<|bos|>'
    ) THEN
        RETURN 'char';
    ELSIF EXISTS (SELECT FROM public.llm_bpe_vocab v WHERE v.model = llm_tokenizer_kind.model) THEN
        RETURN 'bpe';
    END IF;
    RETURN NULL;
END;
$function$;

COMMENT ON FUNCTION public.llm_tokenizer_kind(text) IS
'char for a character tokenizer, bpe for byte pair encoding, NULL when the model has no tokenizer.';


CREATE FUNCTION public.llm_check_tokenizer(model text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $function$
DECLARE
    kind text := public.llm_tokenizer_kind(model);
BEGIN
    IF kind = 'char' THEN
        RETURN;
    ELSIF kind = 'bpe' THEN
        RAISE EXCEPTION 'byte-level BPE is not in this version'
            USING ERRCODE = 'feature_not_supported',
            HINT = format('Model "%s" has a BPE vocabulary; llm_build_char_tokenizer replaces it.', model);
    END IF;
    RAISE EXCEPTION 'model % has no tokenizer', COALESCE(format('"%s"', model), 'NULL')
        USING ERRCODE = 'undefined_object', HINT = 'llm_build_char_tokenizer(model, query) makes one from text.';
END;
$function$;

COMMENT ON FUNCTION public.llm_check_tokenizer(text) IS
'Raises 42704 when the model has no tokenizer, 0A000 when it has one of a kind that this version cannot run.';


CREATE FUNCTION public.llm_end_token(model text) RETURNS int
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $function$
BEGIN
    RETURN (
        SELECT v.token_id FROM public.llm_bpe_vocab v
        WHERE v.model = llm_end_token.model AND v.token IN ('<|bos|>', '<|endoftext|>')
        ORDER BY v.token
        LIMIT 1
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_end_token(text) IS
'The id of the token that begins and ends a document: BOS, or end of text; NULL when there is none.';


CREATE FUNCTION public.llm_build_char_tokenizer(model text, query text) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
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
    EXECUTE format(
        'SELECT array_agg(s.c ORDER BY convert_to(s.c, ''UTF8'')) FROM ('
        'SELECT DISTINCT c.c COLLATE "C" AS c FROM (%s' E'\n' ') AS q (doc), string_to_table(q.doc::text, NULL) c (c)'
        ') s',
        public.llm_subquery(query)
    ) INTO characters;
    IF characters IS NULL THEN
        RAISE EXCEPTION 'the query gave no text'
            USING ERRCODE = 'no_data_found', HINT = 'Its first column is read as the documents.';
    END IF;
    PERFORM public.llm_require(
        COALESCE(expected = cardinality(characters) + 1, true),
        format('the text has %s characters and BOS, model "%s" has vocab %s',
            cardinality(characters), llm_build_char_tokenizer.model, expected),
        'Build the tokenizer before llm_create_model, which then takes its vocab from it.'
    );
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_build_char_tokenizer.model;
    DELETE FROM public.llm_bpe_vocab v WHERE v.model = llm_build_char_tokenizer.model;
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes)
    SELECT llm_build_char_tokenizer.model, c.position - 1, c.token, convert_to(c.token, 'UTF8')
    FROM unnest(characters) WITH ORDINALITY c (token, position)
    UNION ALL
    SELECT llm_build_char_tokenizer.model, cardinality(characters), '<|bos|>', ''::bytea;
    RETURN cardinality(characters) + 1;
END;
$function$;

COMMENT ON FUNCTION public.llm_build_char_tokenizer(text, text) IS
'Replaces the model''s tokenizer by one with a token per character of the query''s first column, ids in the order of '
'code points, and BOS with the number of characters as its id. Returns the vocabulary''s size, BOS included. 22023 '
'when an existing model has another vocab; P0002 when there is no text.';


CREATE FUNCTION public.llm_subquery(query text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $function$
BEGIN
    RETURN rtrim(query, E'; \t\r\n');
END;
$function$;

COMMENT ON FUNCTION public.llm_subquery(text) IS
'A query as it can stand in FROM: without the semicolon psql''s users end it with.';


CREATE FUNCTION public.llm_encode_characters(documents text[], model text)
RETURNS TABLE (position bigint, ids int[])
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
AS $function$
#variable_conflict use_column
DECLARE
    unknown text;
BEGIN
    RETURN QUERY
    SELECT d.position, array_agg(v.token_id ORDER BY c.position) FILTER (WHERE c.c IS NOT NULL)
    FROM unnest(documents) WITH ORDINALITY d (document, position)
    LEFT JOIN LATERAL string_to_table(d.document, NULL) WITH ORDINALITY c (c, position) ON true
    LEFT JOIN public.llm_bpe_vocab v ON v.model = llm_encode_characters.model AND v.token = c.c
    GROUP BY d.position;
END;
$function$;

COMMENT ON FUNCTION public.llm_encode_characters(text[], text) IS
'Position and token ids of each document under a character tokenizer; NULL ids stand for unknown characters, NULL '
'instead of the array for a document without characters.';
