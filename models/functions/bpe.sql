-- Tokenizers in memory, and byte pair encoding: loading it from files or their contents, learning it from text.

CREATE FUNCTION public.llm_bpe_version(model text) RETURNS bytea
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF pg_catalog.row_security_active('public.llm_bpe_vocab'::pg_catalog.regclass)
        OR pg_catalog.row_security_active('public.llm_bpe_merges'::pg_catalog.regclass)
        OR pg_catalog.row_security_active('public.llm_tokenizer'::pg_catalog.regclass)
    THEN
        -- What the policies show depends on role and settings: read what they show now.
        RETURN (
            SELECT public.pg_llm_fingerprint(r.name, r.number, r.tableoid, r.ctid, r.xmin)
            FROM (
                SELECT 'token' AS name, v.token_id AS number, v.tableoid, v.ctid, v.xmin
                FROM public.llm_bpe_vocab v
                WHERE v.model = llm_bpe_version.model AND v.bytes IS NOT NULL AND v.token IS NOT NULL
                UNION ALL
                SELECT 'merge', m.rank, m.tableoid, m.ctid, m.xmin
                FROM public.llm_bpe_merges m
                WHERE m.model = llm_bpe_version.model AND m.left_token IS NOT NULL AND m.right_token IS NOT NULL
                UNION ALL
                SELECT 'kind', 0, t.tableoid, t.ctid, t.xmin
                FROM public.llm_tokenizer t
                WHERE t.model = llm_bpe_version.model AND t.kind IS NOT NULL AND t.settings IS NOT NULL
            ) r
        );
    END IF;
    RETURN public.pg_llm_relation_version('{public.llm_bpe_vocab,public.llm_bpe_merges,public.llm_tokenizer}');
END;
$function$;

COMMENT ON FUNCTION public.llm_bpe_version(text) IS
'Identifies, within this session, the rows of the model''s tokenizer that the caller can see under row policies; NULL '
'if policies hide all of them. 42501: the caller may not read them.';


CREATE FUNCTION public.llm_token_flags(token text, flags text[]) RETURNS int
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    IF flags IS NULL THEN
        RETURN CASE WHEN token ~ '^<[|][^<>]+[|]>$' THEN 3 ELSE 0 END;
    ELSIF NOT 'added' = ANY (flags) THEN
        RETURN 0;
    END IF;
    RETURN (
        SELECT sum(f.bit)
        FROM (
            VALUES
            ('added', 1), ('special', 2), ('lstrip', 4), ('rstrip', 8), ('single_word', 16), ('normalized', 32),
            ('base', 64)
        ) f (name, bit)
        WHERE f.name = ANY (flags)
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_token_flags(text, text[]) IS
'A token''s flags as pg_llm_bpe_put_token takes them. Without flags, a token of the form <|...|> is special.';


CREATE FUNCTION public.llm_bpe_handle(model text) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    version bytea := public.llm_bpe_version(model);
    handle int := public.pg_llm_bpe_open(model, version);
    kind text;
BEGIN
    IF handle IS NOT NULL THEN
        RETURN handle;
    END IF;
    LOOP
        PERFORM public.llm_check_tokenizer(model);
        kind := public.llm_tokenizer_kind(model);
        IF kind = 'char' THEN
            RETURN NULL;
        ELSIF kind = 'wordpiece' THEN
            handle := public.llm_wordpiece_feed(model, version);
        ELSIF kind = 'sentencepiece' THEN
            handle := public.llm_sentencepiece_feed(model, version);
        ELSE
            handle := public.llm_bpe_feed(model, version);
        END IF;
        -- Another session's commit between the queries would leave a mixture under a wrong name.
        IF public.llm_bpe_version(model) IS NOT DISTINCT FROM version THEN
            PERFORM public.pg_llm_bpe_seal(handle);
            RETURN handle;
        END IF;
        version := public.llm_bpe_version(model);
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_bpe_handle(text) IS
'Handle of the model''s tokenizer in this session''s memory, read from its rows if memory does not '
'have their present version; NULL for a character tokenizer. 42704: the model has no tokenizer; 22023: its merges do '
'not match its vocabulary, or its rows make no tokenizer; 55000: a subscription is still copying the model.';


CREATE FUNCTION public.llm_bpe_settings(settings jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    known CONSTANT jsonb := '{
        "pre_tokenizer": "gpt2", "normalizer": null, "ignore_merges": false, "drop_unknown": false,
        "prefix": [], "suffix": []
    }';
    wrong text;
BEGIN
    PERFORM public.llm_require(
        jsonb_typeof(settings) = 'object', 'the settings of a BPE tokenizer must be a JSON object'
    );
    SELECT min(k.key) INTO wrong FROM jsonb_object_keys(settings) k (key) WHERE NOT known ? k.key;
    PERFORM public.llm_require(
        wrong IS NULL, format('BPE has no setting "%s"', wrong),
        'It has ' || (SELECT string_agg(k.key, ', ' ORDER BY k.key) FROM jsonb_object_keys(known) k (key)) || '.'
    );
    SELECT min(format('%s must be %s, got %s', e.key, t.wanted, left(e.value::text, 60))) INTO wrong
    FROM jsonb_each(settings) e
    INNER JOIN (
        VALUES
        ('pre_tokenizer', 'gpt2, smollm, llama3, qwen2, o200k or tekken'), ('normalizer', '"nfc" or null'),
        ('ignore_merges', 'true or false'), ('drop_unknown', 'true or false'),
        ('prefix', 'an array of token ids'), ('suffix', 'an array of token ids')
    ) t (key, wanted) ON t.key = e.key
    WHERE CASE e.key
        WHEN 'pre_tokenizer' THEN e.value NOT IN ('"gpt2"', '"smollm"', '"llama3"', '"qwen2"', '"o200k"', '"tekken"')
        WHEN 'normalizer' THEN e.value NOT IN ('"nfc"', 'null')
        WHEN 'ignore_merges' THEN jsonb_typeof(e.value) <> 'boolean'
        WHEN 'drop_unknown' THEN jsonb_typeof(e.value) <> 'boolean'
        ELSE public.llm_json_ids(e.value) IS NULL
    END;
    PERFORM public.llm_require(wrong IS NULL, wrong);
    RETURN known || settings;
END;
$function$;

COMMENT ON FUNCTION public.llm_bpe_settings(jsonb) IS
'The settings of a byte-level BPE tokenizer with those of GPT-2 filled in. 22023: an unknown setting or a value that '
'it cannot have.';


CREATE FUNCTION public.llm_bpe_feed(model text, version bytea) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    s jsonb := public.llm_bpe_settings(COALESCE(
        (SELECT t.settings FROM public.llm_tokenizer t WHERE t.model = llm_bpe_feed.model), '{}'
    ));
    handle int := public.pg_llm_bpe_create(
        model, version, s ->> 'pre_tokenizer',
        CASE WHEN s ->> 'normalizer' = 'nfc' THEN 1 ELSE 0 END + 2 * (s ->> 'ignore_merges')::boolean::int
        + 4 * (s ->> 'drop_unknown')::boolean::int,
        public.llm_json_ids(s -> 'prefix'), public.llm_json_ids(s -> 'suffix')
    );
BEGIN
    -- Counted, so that no result is kept for each row; a call of PL/pgSQL for each would take most of the time.
    PERFORM count(public.pg_llm_bpe_put_token(
        handle, v.token_id, v.bytes,
        CASE
            WHEN cardinality(v.flags) = 0 OR v.flags IS NULL AND v.token NOT LIKE '<|%|>' THEN 0
            ELSE public.llm_token_flags(v.token, v.flags)
        END
    ))
    FROM public.llm_bpe_vocab v
    WHERE v.model = llm_bpe_feed.model;
    PERFORM count(public.pg_llm_bpe_put_merge(handle, m.rank, m.left_token, m.right_token))
    FROM public.llm_bpe_merges m
    WHERE m.model = llm_bpe_feed.model;
    RETURN handle;
END;
$function$;

COMMENT ON FUNCTION public.llm_bpe_feed(text, bytea) IS
'Puts the model''s rows into a new BPE tokenizer in this session''s memory; returns its handle.';


CREATE FUNCTION public.llm_replace_bpe_vocab(model text, contents bytea, flags text[] DEFAULT NULL) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n int;
BEGIN
    PERFORM public.llm_require(model <> '', 'a tokenizer needs a model''s name');
    DELETE FROM public.llm_tokenizer t WHERE t.model = llm_replace_bpe_vocab.model;
    DELETE FROM public.llm_bpe_vocab v WHERE v.model = llm_replace_bpe_vocab.model;
    IF ltrim(convert_from(substr(contents, 1, 64), 'SQL_ASCII'), E' \t\r\n') LIKE '{%' THEN
        INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, flags)
        SELECT llm_replace_bpe_vocab.model, f.token_id, f.token, f.bytes, llm_replace_bpe_vocab.flags
        FROM public.pg_llm_bpe_read_vocab(contents) f;
        GET DIAGNOSTICS n = ROW_COUNT;
        RETURN n;
    END IF;
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, flags)
    SELECT llm_replace_bpe_vocab.model, f.token_id, f.token, f.bytes, llm_replace_bpe_vocab.flags
    FROM public.pg_llm_bpe_read_tiktoken(contents) f;
    GET DIAGNOSTICS n = ROW_COUNT;
    PERFORM public.llm_require(n > 0, 'the vocabulary is empty');
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_replace_bpe_vocab.model;
    INSERT INTO public.llm_bpe_merges (model, rank, left_token, right_token, pair)
    SELECT llm_replace_bpe_vocab.model, f.rank, f.left_token, f.right_token, f.left_token || ' ' || f.right_token
    FROM public.pg_llm_bpe_read_tiktoken_merges(contents) f;
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_replace_bpe_vocab(text, bytea, text[]) IS
'Replaces the model''s tokens with those of a file''s contents: vocab.json, encoder.json, or .tiktoken, which also '
'contains the merges. flags are stored in their rows. Returns the number of tokens. 22023, with the line: anything '
'else.';


CREATE FUNCTION public.llm_replace_bpe_merges(model text, contents bytea) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n int;
BEGIN
    PERFORM public.llm_require(model <> '', 'a tokenizer needs a model''s name');
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_replace_bpe_merges.model;
    INSERT INTO public.llm_bpe_merges (model, rank, left_token, right_token, pair)
    SELECT llm_replace_bpe_merges.model, f.rank, f.left_token, f.right_token, f.left_token || ' ' || f.right_token
    FROM public.pg_llm_bpe_read_merges(contents) f;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_replace_bpe_merges(text, bytea) IS
'Replaces the model''s merge rules with those of a file''s contents: merges.txt or vocab.bpe. Returns the number of '
'rules. 22023, with the line: anything else.';


CREATE FUNCTION public.llm_load_bpe(
    model text, vocab bytea, merges bytea DEFAULT NULL, added jsonb DEFAULT NULL, settings jsonb DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n int;
BEGIN
    PERFORM public.llm_require(vocab IS NOT NULL, 'vocab must not be NULL');
    IF settings IS NOT NULL THEN
        settings := public.llm_bpe_settings(settings);
    END IF;
    n := public.llm_replace_bpe_vocab(model, vocab, CASE WHEN added IS NOT NULL THEN '{}'::text[] END);
    IF merges IS NOT NULL THEN
        PERFORM public.llm_replace_bpe_merges(model, merges);
    END IF;
    IF settings IS NOT NULL THEN
        INSERT INTO public.llm_tokenizer (model, kind, settings) VALUES (model, 'bpe', settings);
    END IF;
    IF added IS NOT NULL THEN
        n := n + public.llm_add_tokens(model, added);
    END IF;
    PERFORM public.llm_bpe_handle(model);
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_load_bpe(text, bytea, bytea, jsonb, jsonb) IS
'Replaces the model''s tokenizer with the contents of vocab.json and merges.txt (or encoder.json and vocab.bpe), or '
'of a .tiktoken file alone, and checks that they match. added: added tokens and the tokens that begin and end a text, '
'as for llm_add_tokens; NULL: tokens of the form <|...|> are special and <|endoftext|> ends a text. settings: '
'pre_tokenizer (gpt2, smollm, llama3, qwen2, o200k, tekken: how a text is cut into pieces), normalizer (null, nfc), '
'ignore_merges (false), drop_unknown (false: a byte without a token is 22021), prefix and suffix (arrays of the ids '
'around a text); NULL: GPT-2''s. Returns the number of tokens. Reads no file on the server. 22023, with the line: '
'contents that are not such a file, or settings that do not exist; 0A000: the database''s encoding lacks the '
'byte-level alphabet.';


CREATE FUNCTION public.llm_load_bpe(model text, vocab text, merges text DEFAULT NULL) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_load_bpe(model, convert_to(vocab, 'UTF8'), convert_to(merges, 'UTF8'));
END;
$function$;

COMMENT ON FUNCTION public.llm_load_bpe(text, text, text) IS
'Like llm_load_bpe(text, bytea, bytea, jsonb, jsonb), from texts.';


CREATE FUNCTION public.pg_llm_load_bpe_vocab(path text, model text) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require(path <> '', 'path must name a file');
    RETURN public.llm_replace_bpe_vocab(model, public.pg_llm_read_file(path, 268435456));
END;
$function$;

COMMENT ON FUNCTION public.pg_llm_load_bpe_vocab(text, text) IS
'Replaces the model''s tokens with those of a file on the server: vocab.json, encoder.json, or .tiktoken, which also '
'contains the merges. Returns the number of tokens. For roles with the privileges of pg_read_server_files. 58P01: no '
'such file; 22023, with the line: not one of these formats.';


CREATE FUNCTION public.pg_llm_load_bpe_merges(path text, model text) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require(path <> '', 'path must name a file');
    RETURN public.llm_replace_bpe_merges(model, public.pg_llm_read_file(path, 268435456));
END;
$function$;

COMMENT ON FUNCTION public.pg_llm_load_bpe_merges(text, text) IS
'Replaces the model''s merge rules with those of a file on the server, merges.txt or vocab.bpe. Returns the number of '
'rules. For roles with the privileges of pg_read_server_files. 58P01: no such file; 22023, with the line: not one of '
'these formats.';


CREATE FUNCTION public.llm_train_bpe(model text, query text, vocab int) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    expected int := (SELECT c.vocab FROM public.llm_model_config c WHERE c.model = llm_train_bpe.model);
    pairs int[];
    n_merges int;
    tokens bytea[];
BEGIN
    PERFORM public.llm_require(model <> '', 'a tokenizer needs a model''s name');
    PERFORM public.llm_require(query IS NOT NULL, 'query must not be NULL');
    PERFORM public.llm_require(
        vocab >= 257 AND vocab <= 16777216,
        format('vocab must be at least 257 (the bytes and end of text) and at most 16777216, got %s', vocab)
    );
    PERFORM public.llm_require(
        COALESCE(expected >= vocab, true),
        format('vocab %s is more than the vocab %s of model "%s"', vocab, expected, model),
        'Train the tokenizer before llm_create_model, which then takes its vocab from it.'
    );
    -- An encoding without the alphabet is refused before the texts are read.
    PERFORM public.pg_llm_bpe_alphabet(decode('20', 'hex'));
    SELECT public.pg_llm_bpe_learn(q.document, vocab - 257, 2) INTO pairs
    FROM public.llm_query_documents(query) q (document)
    WHERE q.document <> '';
    IF pairs IS NULL THEN
        RAISE EXCEPTION 'the query returned no text'
            USING ERRCODE = 'no_data_found', HINT = 'The documents are read from its first column.';
    END IF;
    n_merges := cardinality(pairs) / 2;
    -- GPT-2's order of bytes: those that the alphabet shows as themselves come first.
    SELECT array_agg(b.byte ORDER BY convert_to(public.pg_llm_bpe_alphabet(b.byte), 'UTF8')) INTO tokens
    FROM (SELECT set_byte(decode('00', 'hex'), 0, i) AS byte FROM generate_series(0, 255) i) b;
    FOR i IN 1 .. n_merges LOOP
        tokens[256 + i] := tokens[pairs[2 * i - 1] + 1] || tokens[pairs[2 * i] + 1];
    END LOOP;
    DELETE FROM public.llm_tokenizer t WHERE t.model = llm_train_bpe.model;
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_train_bpe.model;
    DELETE FROM public.llm_bpe_vocab v WHERE v.model = llm_train_bpe.model;
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, flags)
    SELECT llm_train_bpe.model, t.position - 1, public.pg_llm_bpe_alphabet(t.bytes), t.bytes, '{}'::text[]
    FROM unnest(tokens) WITH ORDINALITY t (bytes, position)
    UNION ALL
    SELECT llm_train_bpe.model, 256 + n_merges, '<|endoftext|>', convert_to('<|endoftext|>', 'UTF8'),
        '{added,special,bos,eos}'::text[];
    INSERT INTO public.llm_bpe_merges (model, rank, left_token, right_token, pair)
    SELECT llm_train_bpe.model, i - 1, l.token, r.token, l.token || ' ' || r.token
    FROM generate_series(1, n_merges) i
    CROSS JOIN LATERAL (SELECT public.pg_llm_bpe_alphabet(tokens[pairs[2 * i - 1] + 1]) AS token) l
    CROSS JOIN LATERAL (SELECT public.pg_llm_bpe_alphabet(tokens[pairs[2 * i] + 1]) AS token) r;
    IF n_merges < vocab - 257 THEN
        RAISE NOTICE 'the text has enough pairs only for a vocabulary of %', n_merges + 257;
    END IF;
    RETURN n_merges + 257;
END;
$function$;

COMMENT ON FUNCTION public.llm_train_bpe(text, text, int) IS
'Replaces the model''s tokenizer with byte pair encoding learned from the query''s first column: the 256 bytes, '
'merges of the most frequent pairs (ties go to the lowest ids; pairs that occur only once are not merged), and '
'<|endoftext|>. Returns the size of the vocabulary, which is below vocab only if the text has no more pairs. 22023: '
'an existing model''s vocab is smaller; P0002: the query returned no text.';
