-- SentencePiece's BPE: of characters, with blanks as U+2581, and bytes for characters that are no tokens.

CREATE FUNCTION public.llm_sentencepiece_settings(settings jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    known CONSTANT jsonb := '{"prefix_space": "prepend", "split": false, "strip": true, "prefix": [], "suffix": []}';
    wrong text;
BEGIN
    PERFORM public.llm_require(
        jsonb_typeof(settings) = 'object', 'the settings of a SentencePiece tokenizer must be a JSON object'
    );
    SELECT min(k.key) INTO wrong FROM jsonb_object_keys(settings) k (key) WHERE NOT known ? k.key;
    PERFORM public.llm_require(
        wrong IS NULL, format('SentencePiece has no setting "%s"', wrong),
        'It has ' || (SELECT string_agg(k.key, ', ' ORDER BY k.key) FROM jsonb_object_keys(known) k (key)) || '.'
    );
    SELECT min(format('%s must be %s, got %s', e.key, t.wanted, left(e.value::text, 60))) INTO wrong
    FROM jsonb_each(settings) e
    INNER JOIN (
        VALUES
        ('prefix_space', 'never, prepend, always or first'), ('split', 'true or false'), ('strip', 'true or false'),
        ('prefix', 'an array of token ids'), ('suffix', 'an array of token ids')
    ) t (key, wanted) ON t.key = e.key
    WHERE CASE e.key
        WHEN 'prefix_space' THEN e.value NOT IN ('"never"', '"prepend"', '"always"', '"first"')
        WHEN 'split' THEN jsonb_typeof(e.value) <> 'boolean'
        WHEN 'strip' THEN jsonb_typeof(e.value) <> 'boolean'
        ELSE public.llm_json_ids(e.value) IS NULL
    END;
    PERFORM public.llm_require(wrong IS NULL, wrong);
    RETURN known || settings;
END;
$function$;

COMMENT ON FUNCTION public.llm_sentencepiece_settings(jsonb) IS
'The settings of a SentencePiece tokenizer with those of Llama 2 filled in. 22023: an unknown setting or a value that '
'it cannot have.';


CREATE FUNCTION public.llm_sentencepiece_feed(model text, version bytea) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    s jsonb := (
        SELECT public.llm_sentencepiece_settings(t.settings) FROM public.llm_tokenizer t
        WHERE t.model = llm_sentencepiece_feed.model
    );
    handle int := public.pg_llm_sentencepiece_create(
        model, version, s ->> 'prefix_space', (s ->> 'split')::boolean::int + 2 * (s ->> 'strip')::boolean::int,
        public.llm_json_ids(s -> 'prefix'), public.llm_json_ids(s -> 'suffix')
    );
BEGIN
    PERFORM count(public.pg_llm_bpe_put_token(
        handle, v.token_id, convert_to(v.token, 'UTF8'),
        CASE WHEN v.flags IS NULL OR cardinality(v.flags) = 0 THEN 0 ELSE public.llm_token_flags(v.token, v.flags) END
    ))
    FROM public.llm_bpe_vocab v
    WHERE v.model = llm_sentencepiece_feed.model;
    PERFORM count(public.pg_llm_bpe_put_merge(handle, m.rank, m.left_token, m.right_token))
    FROM public.llm_bpe_merges m
    WHERE m.model = llm_sentencepiece_feed.model;
    RETURN handle;
END;
$function$;

COMMENT ON FUNCTION public.llm_sentencepiece_feed(text, bytea) IS
'Puts the model''s rows into a new SentencePiece tokenizer in this session''s memory; returns its handle.';


CREATE FUNCTION public.llm_load_sentencepiece(
    model text, vocab jsonb, merges jsonb, settings jsonb DEFAULT NULL, added jsonb DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    s jsonb := public.llm_sentencepiece_settings(COALESCE(settings, '{}'));
    wrong text;
    n int;
BEGIN
    PERFORM public.llm_require(model <> '', 'a tokenizer needs a model''s name');
    PERFORM public.llm_require(
        jsonb_typeof(vocab) = 'object', 'vocab must be a JSON object of token to id'
    );
    PERFORM public.llm_require(
        jsonb_typeof(merges) = 'array', 'merges must be a JSON array of pairs of tokens'
    );
    -- An encoding without U+2581 is refused.
    PERFORM public.pg_llm_bpe_alphabet(decode('20', 'hex'));
    SELECT min(format('"%s": %s', left(e.key, 60), left(e.value::text, 60))) INTO wrong
    FROM jsonb_each(vocab) e
    WHERE e.value::text !~ '^[0-9]{1,9}$' OR e.key = '' OR octet_length(e.key) > 1024;
    PERFORM public.llm_require(wrong IS NULL, format('vocab has %s, which is no token and its id', wrong));
    SELECT min(e.value::text) INTO wrong
    FROM (SELECT i.value FROM jsonb_each(vocab) i GROUP BY i.value HAVING count(*) > 1) e;
    PERFORM public.llm_require(wrong IS NULL, format('vocab has two tokens with the id %s', wrong));
    SELECT min(format('"<0x%s>"', upper(lpad(to_hex(b.i), 2, '0')))) INTO wrong
    FROM generate_series(0, 255) b (i)
    WHERE NOT vocab ? format('<0x%s>', upper(lpad(to_hex(b.i), 2, '0')));
    PERFORM public.llm_require(
        wrong IS NULL, format('vocab lacks the token %s', wrong),
        'SentencePiece''s BPE is supported with a token for each of the 256 bytes (byte_fallback).'
    );
    SELECT min(left(p.value::text, 60)) INTO wrong
    FROM jsonb_array_elements(merges) p (value)
    WHERE CASE
        WHEN jsonb_typeof(p.value) <> 'array' THEN true
        WHEN jsonb_array_length(p.value) <> 2 THEN true
        ELSE jsonb_typeof(p.value -> 0) <> 'string' OR jsonb_typeof(p.value -> 1) <> 'string'
    END;
    PERFORM public.llm_require(wrong IS NULL, format('merges has %s, which is no pair of tokens', wrong));
    DELETE FROM public.llm_tokenizer t WHERE t.model = llm_load_sentencepiece.model;
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_load_sentencepiece.model;
    DELETE FROM public.llm_bpe_vocab v WHERE v.model = llm_load_sentencepiece.model;
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, flags)
    SELECT llm_load_sentencepiece.model, e.value::int, e.key,
        CASE
            WHEN e.key ~ '^<0x[0-9A-F]{2}>$' THEN decode(substr(e.key, 4, 2), 'hex')
            ELSE convert_to(replace(e.key, U&'\2581', ' '), 'UTF8')
        END,
        '{}'::text[]
    FROM jsonb_each_text(vocab) e;
    GET DIAGNOSTICS n = ROW_COUNT;
    INSERT INTO public.llm_bpe_merges (model, rank, left_token, right_token, pair)
    SELECT llm_load_sentencepiece.model, p.place - 1, p.value ->> 0, p.value ->> 1,
        (p.value ->> 0) || ' ' || (p.value ->> 1)
    FROM jsonb_array_elements(merges) WITH ORDINALITY p (value, place);
    INSERT INTO public.llm_tokenizer (model, kind, settings) VALUES (model, 'sentencepiece', s);
    IF added IS NULL THEN
        added := (
            SELECT COALESCE(jsonb_agg(jsonb_build_object(
                'id', v.token_id, 'content', v.token, 'flags', jsonb_build_array('added', 'special', r.role)
            )), '[]')
            FROM public.llm_bpe_vocab v
            INNER JOIN (VALUES ('<unk>', 'unk'), ('<s>', 'bos'), ('</s>', 'eos')) r (token, role) ON r.token = v.token
            WHERE v.model = llm_load_sentencepiece.model
        );
    END IF;
    n := n + public.llm_add_tokens(model, added);
    PERFORM public.llm_bpe_handle(model);
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_load_sentencepiece(text, jsonb, jsonb, jsonb, jsonb) IS
'Replaces the model''s tokenizer with SentencePiece''s BPE, that of Llama 2, TinyLlama, Mistral and Gemma. vocab is an '
'object of token to id, merges an array of pairs of tokens, the first to merge in front, as in tokenizer.json. '
'settings: prefix_space (prepend: a blank is put before every text; always: where none stands; first: before a text, '
'not behind an added token; never), split (false; true: nothing merges across a blank), strip (true: llm_decode leaves '
'out the first blank), prefix and suffix (arrays of the ids around a text). added: added tokens as for llm_add_tokens; '
'NULL: <unk>, <s> and </s> are special, <s> begins and </s> ends a text. Returns the number of tokens. 22023: contents '
'that are not such a vocabulary, or settings that do not exist; 0A000: the database''s encoding lacks U+2581.';
