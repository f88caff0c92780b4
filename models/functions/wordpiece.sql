-- WordPiece: BERT's tokenizer from its vocabulary and settings.

CREATE FUNCTION public.llm_wordpiece_settings(settings jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    known CONSTANT jsonb := '{
        "lowercase": true, "strip_accents": null, "handle_chinese_chars": true, "clean_text": true,
        "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "cleanup": true,
        "template": {"prefix": [], "suffix": []}
    }';
    wrong text;
BEGIN
    PERFORM public.llm_require(
        jsonb_typeof(settings) = 'object', 'the settings of a WordPiece tokenizer must be a JSON object'
    );
    SELECT min(k.key) INTO wrong FROM jsonb_object_keys(settings) k (key) WHERE NOT known ? k.key;
    PERFORM public.llm_require(
        wrong IS NULL, format('WordPiece has no setting "%s"', wrong),
        'It has ' || (SELECT string_agg(k.key, ', ' ORDER BY k.key) FROM jsonb_object_keys(known) k (key)) || '.'
    );
    SELECT min(format('%s must be %s, got %s', e.key, t.wanted, left(e.value::text, 60))) INTO wrong
    FROM jsonb_each(settings) e
    INNER JOIN (
        VALUES
        ('lowercase', 'boolean', 'true or false'), ('handle_chinese_chars', 'boolean', 'true or false'),
        ('clean_text', 'boolean', 'true or false'), ('cleanup', 'boolean', 'true or false'),
        ('strip_accents', 'boolean', 'true, false or null'), ('unk_token', 'string', 'a token'),
        ('continuing_subword_prefix', 'string', 'a text'),
        ('max_input_chars_per_word', 'number', 'a whole number from 1 to 999999999'),
        ('template', 'object', 'an object of prefix and suffix, arrays of token ids')
    ) t (key, type, wanted) ON t.key = e.key
    WHERE jsonb_typeof(e.value) <> t.type AND NOT (e.key = 'strip_accents' AND e.value = 'null')
        OR e.key = 'unk_token' AND (e.value = '""' OR octet_length(e.value #>> '{}') > 1024)
        OR e.key = 'continuing_subword_prefix' AND octet_length(e.value #>> '{}') > 1024
        OR e.key = 'max_input_chars_per_word' AND e.value::text !~ '^[1-9][0-9]{0,8}$'
        OR e.key = 'template' AND jsonb_typeof(e.value) = 'object' AND EXISTS (
            SELECT FROM jsonb_each(CASE WHEN jsonb_typeof(e.value) = 'object' THEN e.value ELSE '{}' END) p
            WHERE p.key NOT IN ('prefix', 'suffix') OR jsonb_typeof(p.value) <> 'array' OR EXISTS (
                SELECT FROM jsonb_array_elements(CASE WHEN jsonb_typeof(p.value) = 'array' THEN p.value ELSE '[]' END) i
                WHERE i.value::text !~ '^[0-9]{1,9}$'
            )
        );
    PERFORM public.llm_require(wrong IS NULL, wrong);
    RETURN known || settings || jsonb_build_object(
        'template', (known -> 'template') || COALESCE(settings -> 'template', '{}')
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_wordpiece_settings(jsonb) IS
'The settings of a WordPiece tokenizer with the defaults of BERT, lower case, filled in. 22023: an unknown setting or '
'a value that it cannot have.';


CREATE FUNCTION public.llm_wordpiece_feed(model text, version bytea) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    s jsonb := (
        SELECT public.llm_wordpiece_settings(t.settings) FROM public.llm_tokenizer t
        WHERE t.model = llm_wordpiece_feed.model
    );
    handle int := public.pg_llm_wordpiece_create(
        model, version,
        (s ->> 'clean_text')::boolean::int + 2 * (s ->> 'handle_chinese_chars')::boolean::int
        + 4 * COALESCE(s ->> 'strip_accents', s ->> 'lowercase')::boolean::int + 8 * (s ->> 'lowercase')::boolean::int,
        s ->> 'unk_token', s ->> 'continuing_subword_prefix', (s ->> 'max_input_chars_per_word')::int,
        (s ->> 'cleanup')::boolean,
        public.llm_json_ids(s #> '{template,prefix}'), public.llm_json_ids(s #> '{template,suffix}')
    );
BEGIN
    -- Of added tokens that the normalizer makes equal the first is found.
    PERFORM count(public.pg_llm_bpe_put_token(
        handle, v.token_id, convert_to(v.token, 'UTF8'),
        CASE WHEN v.flags IS NULL OR cardinality(v.flags) = 0 THEN 0 ELSE public.llm_token_flags(v.token, v.flags) END
    ))
    FROM (
        SELECT b.token_id, b.token, b.flags FROM public.llm_bpe_vocab b
        WHERE b.model = llm_wordpiece_feed.model
        ORDER BY b.token_id
    ) v;
    RETURN handle;
END;
$function$;

COMMENT ON FUNCTION public.llm_wordpiece_feed(text, bytea) IS
'Puts the model''s rows into a new WordPiece tokenizer in this session''s memory; returns its handle.';


CREATE FUNCTION public.llm_load_wordpiece(
    model text, vocab bytea, settings jsonb DEFAULT NULL, added jsonb DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    s jsonb := public.llm_wordpiece_settings(COALESCE(settings, '{}'));
    prefix CONSTANT text := s ->> 'continuing_subword_prefix';
    around int[];
    n int;
BEGIN
    PERFORM public.llm_require(model <> '', 'a tokenizer needs a model''s name');
    PERFORM public.llm_require(vocab IS NOT NULL, 'vocab must not be NULL');
    DELETE FROM public.llm_tokenizer t WHERE t.model = llm_load_wordpiece.model;
    DELETE FROM public.llm_bpe_merges m WHERE m.model = llm_load_wordpiece.model;
    DELETE FROM public.llm_bpe_vocab v WHERE v.model = llm_load_wordpiece.model;
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, flags)
    SELECT llm_load_wordpiece.model, f.token_id, f.token,
        convert_to(CASE
            WHEN starts_with(f.token, prefix) THEN substr(f.token, char_length(prefix) + 1) ELSE ' ' || f.token
        END, 'UTF8'), '{}'::text[]
    FROM public.pg_llm_wordpiece_read_vocab(vocab) f;
    GET DIAGNOSTICS n = ROW_COUNT;
    PERFORM public.llm_require(n > 0, 'the vocabulary is empty');
    around := ARRAY(
        SELECT v.token_id FROM public.llm_bpe_vocab v
        WHERE v.model = llm_load_wordpiece.model AND v.token IN ('[CLS]', '[SEP]')
        ORDER BY v.token = '[SEP]'
    );
    IF cardinality(around) = 2 AND NOT COALESCE(settings ? 'template', false) THEN
        s := jsonb_set(s, '{template}', jsonb_build_object('prefix', around[1 : 1], 'suffix', around[2 : 2]));
    END IF;
    INSERT INTO public.llm_tokenizer (model, kind, settings) VALUES (model, 'wordpiece', s);
    IF added IS NULL THEN
        added := (
            SELECT COALESCE(jsonb_agg(jsonb_build_object(
                'id', v.token_id, 'content', v.token,
                'flags', CASE v.token
                    WHEN '[PAD]' THEN '["added", "special", "pad"]'::jsonb
                    WHEN s ->> 'unk_token' THEN '["added", "special", "unk"]'
                    ELSE '["added", "special"]'
                END
            )), '[]')
            FROM public.llm_bpe_vocab v
            WHERE v.model = llm_load_wordpiece.model
                AND v.token IN ('[PAD]', '[CLS]', '[SEP]', '[MASK]', s ->> 'unk_token')
        );
    END IF;
    n := n + public.llm_add_tokens(model, added);
    PERFORM public.llm_bpe_handle(model);
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_load_wordpiece(text, bytea, jsonb, jsonb) IS
'Replaces the model''s tokenizer with WordPiece, BERT''s, of the contents of vocab.txt, one token in each line, or of '
'a JSON object of token to id. settings: lowercase (true), strip_accents (null: as lowercase), handle_chinese_chars '
'(true), clean_text (true), unk_token ([UNK]), continuing_subword_prefix (##), max_input_chars_per_word (100), cleanup '
'(true: llm_decode leaves out blanks before punctuation), template (prefix and suffix, arrays of the ids around a '
'text; left out, [CLS] and [SEP] if the vocabulary has both). added: added tokens as for llm_add_tokens; NULL: [PAD], '
'[UNK], [CLS], [SEP] and [MASK] are special. Returns the number of tokens. 22023: contents that are not such a '
'vocabulary, with the line, one without unk_token, or settings that do not exist; 0A000: the database''s encoding '
'cannot hold the tokens.';


CREATE FUNCTION public.llm_load_wordpiece(
    model text, vocab text, settings jsonb DEFAULT NULL, added jsonb DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN public.llm_load_wordpiece(model, convert_to(vocab, 'UTF8'), settings, added);
END;
$function$;

COMMENT ON FUNCTION public.llm_load_wordpiece(text, text, jsonb, jsonb) IS
'Like llm_load_wordpiece(text, bytea, jsonb, jsonb), from a text.';
