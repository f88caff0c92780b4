-- What a model sees of a conversation: its chat template, the template's tokens, what of it fits the context.

CREATE FUNCTION public.llm_set_chat_template(model text, template text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_check_tokenizer(model);
    PERFORM public.llm_require(COALESCE(template <> '', true), 'a chat template must not be empty');
    UPDATE public.llm_tokenizer t SET chat_template = template WHERE t.model = llm_set_chat_template.model;
    IF NOT FOUND AND template IS NOT NULL THEN
        INSERT INTO public.llm_tokenizer (model, kind, chat_template)
        VALUES (model, public.llm_tokenizer_kind(model), template);
    END IF;
END;
$function$;

COMMENT ON FUNCTION public.llm_set_chat_template(text, text) IS
'Gives the model a chat template, in Jinja as tokenizer_config.json has it; NULL: none. Loading a tokenizer removes '
'it. 42704: the model has no tokenizer; 22023: it is empty.';


CREATE FUNCTION public.llm_chat_template(
    model text DEFAULT NULL,
    OUT template text,
    OUT format text,
    OUT default_system text,
    OUT bos text,
    OUT eos text
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    chosen text := public.llm_default_model(model);
BEGIN
    PERFORM public.llm_check_tokenizer(chosen);
    template := (SELECT t.chat_template FROM public.llm_tokenizer t WHERE t.model = chosen);
    IF template IS NULL THEN
        RAISE EXCEPTION 'model "%" has no chat template', chosen
            USING ERRCODE = 'undefined_object',
            HINT = 'Models that were trained to answer bring theirs when they are imported; '
                'llm_set_chat_template(model, template) gives one to another.';
    END IF;
    SELECT f.format, f.default_system INTO format, default_system FROM public.llm_chat_format(template) f;
    SELECT max(v.token) FILTER (WHERE 'bos' = ANY (v.flags)), max(v.token) FILTER (WHERE 'eos' = ANY (v.flags))
    INTO bos, eos
    FROM public.llm_bpe_vocab v
    WHERE v.model = chosen AND v.flags <> '{}'::text[] AND v.flags && '{bos,eos}'::text[];
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_template(text) IS
'The model''s chat template; which of those that the server renders it is (NULL: another, which only clients render), '
'the system message that it puts before a conversation without one, and the tokens that begin and end a text. 42704: '
'the model has no chat template.';


CREATE FUNCTION public.llm_chat_check(messages jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    problem text;
BEGIN
    PERFORM public.llm_require_argument('messages', messages IS NOT NULL);
    PERFORM public.llm_require(
        jsonb_typeof(messages) = 'array',
        format('messages must be an array of messages, got %s', jsonb_typeof(messages)),
        'For example [{"role": "user", "content": "What is an index?"}].'
    );
    PERFORM public.llm_require(
        jsonb_array_length(messages) > 0, 'messages must hold a message, got an empty array'
    );
    SELECT format('message %s %s', p.number, p.problem) INTO problem
    FROM (
        SELECT m.number, CASE
            WHEN jsonb_typeof(m.value) <> 'object' THEN
                format('must be an object with "role" and "content", got %s', jsonb_typeof(m.value))
            WHEN NOT m.value ? 'role' THEN 'has no "role"'
            WHEN NOT m.value ? 'content' THEN 'has no "content"'
            WHEN jsonb_typeof(m.value -> 'role') <> 'string'
                OR m.value ->> 'role' NOT IN ('system', 'user', 'assistant')
                THEN format('must have the role system, user or assistant, got %s', left((m.value -> 'role')::text, 60))
            WHEN jsonb_typeof(m.value -> 'content') <> 'string' THEN
                format('must have a text as "content", got %s', jsonb_typeof(m.value -> 'content'))
            ELSE (
                SELECT format('has "%s", which is not supported', left(min(k.k), 60))
                FROM jsonb_object_keys(m.value) k (k)
                WHERE k.k NOT IN ('role', 'content') AND m.value -> k.k <> 'null'::jsonb
                HAVING count(*) > 0
            )
        END AS problem
        FROM jsonb_array_elements(messages) WITH ORDINALITY m (value, number)
    ) p
    WHERE p.problem IS NOT NULL
    ORDER BY p.number
    LIMIT 1;
    PERFORM public.llm_require(
        problem IS NULL, problem, 'A message is {"role": "system" | "user" | "assistant", "content": "a text"}.'
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_check(jsonb) IS
'Raises 22023, naming the message, unless messages are [{"role", "content"}, ...] of system, user and assistant.';


CREATE FUNCTION public.llm_chat_given_parts(
    rendered jsonb,
    OUT texts text[],
    OUT is_template boolean[],
    OUT ending text
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument('rendered', rendered IS NOT NULL);
    PERFORM public.llm_require(
        jsonb_typeof(rendered) = 'object' AND jsonb_typeof(rendered -> 'parts') = 'array'
        AND COALESCE(jsonb_typeof(rendered -> 'ending'), 'null') IN ('null', 'string')
        AND NOT EXISTS (SELECT FROM jsonb_object_keys(rendered) k (k) WHERE k.k NOT IN ('parts', 'ending')),
        'a rendered conversation must be {"parts": [...], "ending": "..."}'
    );
    PERFORM public.llm_require(
        NOT EXISTS (
            SELECT FROM jsonb_array_elements(rendered -> 'parts') p (value)
            WHERE p.value NOT IN (
                jsonb_build_object('template', p.value ->> 'template'),
                jsonb_build_object('content', p.value ->> 'content')
            ) OR COALESCE(p.value ->> 'template', p.value ->> 'content') IS NULL
        ),
        'a part of a rendered conversation must be {"template": "..."} or {"content": "..."}'
    );
    SELECT COALESCE(array_agg(COALESCE(p.value ->> 'template', p.value ->> 'content') ORDER BY p.number), '{}'),
        COALESCE(array_agg(p.value ? 'template' ORDER BY p.number), '{}')
    INTO texts, is_template
    FROM jsonb_array_elements(rendered -> 'parts') WITH ORDINALITY p (value, number);
    ending := COALESCE(rendered ->> 'ending', '');
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_given_parts(jsonb) IS
'The parts of a conversation that a client has rendered, as llm_chat_render returns them. 22023: it has another form.';


CREATE FUNCTION public.llm_chat_special_tokens(texts text[], model text)
RETURNS TABLE (token text, token_id int, flags text[])
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    written text := array_to_string(texts, E'\n');
BEGIN
    RETURN QUERY
    SELECT v.token, v.token_id, v.flags
    FROM public.llm_bpe_vocab v
    WHERE v.model = llm_chat_special_tokens.model AND v.flags <> '{}'::text[]
        AND v.flags @> '{added,special}'::text[] AND strpos(written, v.token) > 0
    UNION ALL
    -- Rows that say nothing of it, as llm_token_flags takes them.
    SELECT v.token, v.token_id, '{}'::text[]
    FROM public.llm_bpe_vocab v
    WHERE v.model = llm_chat_special_tokens.model AND v.flags IS NULL AND v.token = ANY (ARRAY(
        SELECT DISTINCT m.m[1] FROM regexp_matches(written, '<[|][^<>]+[|]>', 'g') m (m)
    ));
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_special_tokens(text[], text) IS
'The special tokens of the model''s tokenizer that occur in these texts.';


CREATE FUNCTION public.llm_chat_encode(texts text[], is_template boolean[], model text) RETURNS int[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    tokens jsonb;
    pattern text;
    -- Texts between special tokens, and the token that follows each.
    runs text[] := '{}';
    markers int[] := '{}';
    current text := '';
    strips_next boolean := false;
    rest text;
    found text;
    at int;
BEGIN
    PERFORM public.llm_require_argument('texts', texts IS NOT NULL);
    PERFORM public.llm_require_argument('is_template', is_template IS NOT NULL);
    SELECT jsonb_object_agg(s.token, jsonb_build_object('id', s.token_id, 'flags', to_jsonb(s.flags))),
        string_agg(regexp_replace(s.token, '(\W)', '\\\1', 'g'), '|' ORDER BY length(s.token) DESC, s.token)
    INTO tokens, pattern
    FROM public.llm_chat_special_tokens(
        ARRAY(SELECT t.t FROM unnest(texts, is_template) t (t, own) WHERE t.own), model
    ) s;
    FOR i IN 1 .. cardinality(texts) LOOP
        rest := COALESCE(texts[i], '');
        WHILE is_template[i] AND pattern IS NOT NULL LOOP
            found := substring(rest FROM pattern);
            EXIT WHEN found IS NULL;
            at := strpos(rest, found);
            current := current || left(rest, at - 1);
            rest := substr(rest, at + length(found));
            IF strips_next THEN
                current := regexp_replace(current, '^\s+', '');
            END IF;
            IF tokens -> found -> 'flags' ? 'lstrip' THEN
                current := regexp_replace(current, '\s+$', '');
            END IF;
            strips_next := tokens -> found -> 'flags' ? 'rstrip';
            runs := runs || current;
            markers := markers || (tokens -> found ->> 'id')::int;
            current := '';
        END LOOP;
        current := current || rest;
    END LOOP;
    runs := runs || CASE WHEN strips_next THEN regexp_replace(current, '^\s+', '') ELSE current END;
    markers := markers || NULL::int;
    RETURN ARRAY(
        SELECT i.id
        FROM public.llm_encode_documents(runs, model, continued => true) e
        CROSS JOIN LATERAL unnest(e.ids || markers[e.number]) WITH ORDINALITY i (id, place)
        WHERE i.id IS NOT NULL
        ORDER BY e.number, i.place
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_encode(text[], boolean[], text) IS
'The tokens of a rendered conversation. Special tokens are recognised in the template''s own parts only; text between '
'them is encoded in one piece, as Hugging Face''s tokenizers encode the whole.';


CREATE FUNCTION public.llm_chat_parts(
    messages jsonb,
    model text,
    OUT texts text[],
    OUT is_template boolean[],
    OUT ending text
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    template record;
BEGIN
    IF jsonb_typeof(messages) = 'object' THEN
        SELECT p.texts, p.is_template, p.ending INTO texts, is_template, ending
        FROM public.llm_chat_given_parts(messages) p;
        RETURN;
    END IF;
    PERFORM public.llm_chat_check(messages);
    template := public.llm_chat_template(model);
    IF template.format IS NULL THEN
        RAISE EXCEPTION 'the chat template of model "%" is none of those that the server renders', model
            USING ERRCODE = 'feature_not_supported',
            HINT = 'Clients render every template, with jinja2: llm-sql chat, LanguageModel.chat '
                '(pip install "llm-sql[chat]").';
    END IF;
    SELECT r.texts, r.is_template, r.ending INTO texts, is_template, ending
    FROM public.llm_chat_render(
        messages, template.format, template.default_system, template.bos, template.eos
    ) r;
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_parts(jsonb, text) IS
'The parts of a conversation: messages, which the model''s chat template renders, or what a client has rendered.';


CREATE FUNCTION public.llm_chat_prompt(
    messages jsonb,
    model text DEFAULT NULL,
    OUT tokens int[],
    OUT text text
)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    chosen text := public.llm_default_model(model);
    parts record;
BEGIN
    IF messages IS NULL THEN
        RETURN;
    END IF;
    parts := public.llm_chat_parts(messages, chosen);
    tokens := public.llm_chat_encode(parts.texts, parts.is_template, chosen);
    text := array_to_string(parts.texts, '');
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_prompt(jsonb, text) IS
'What the model sees of a conversation, as tokens and as text: transformers'' apply_chat_template with '
'add_generation_prompt, but no message''s content becomes a special token. Errors as for llm_chat.';


CREATE FUNCTION public.llm_chat_fit(
    messages jsonb,
    model text,
    max_tokens int,
    overflow text,
    context int,
    OUT tokens int[],
    OUT text text
)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    -- What an answer needs at least.
    room int := CASE WHEN overflow = 'slide' THEN least(max_tokens, greatest(context / 2, 1)) ELSE max_tokens END;
    has_system int := (messages -> 0 ->> 'role' = 'system')::int;
    -- Where the conversation can begin: with each of the user's messages.
    starts int[];
    low int := 1;
    high int;
    middle int;
BEGIN
    SELECT p.tokens, p.text INTO tokens, text FROM public.llm_chat_prompt(messages, model) p;
    PERFORM public.llm_require(cardinality(tokens) > 0, 'the conversation is rendered to nothing');
    IF cardinality(tokens)::bigint + room <= context THEN
        RETURN;
    END IF;
    IF overflow = 'slide' AND jsonb_typeof(messages) = 'array' THEN
        starts := ARRAY(
            SELECT m.number::int
            FROM jsonb_array_elements(messages) WITH ORDINALITY m (value, number)
            WHERE m.value ->> 'role' = 'user' AND m.number > has_system + 1
            ORDER BY m.number
        );
        high := cardinality(starts) + 1;
        WHILE low < high LOOP
            middle := (low + high) / 2;
            SELECT p.tokens, p.text INTO tokens, text
            FROM public.llm_chat_prompt(public.llm_chat_from(messages, starts[middle]), model) p;
            IF cardinality(tokens)::bigint + room <= context THEN
                high := middle;
            ELSE
                low := middle + 1;
            END IF;
        END LOOP;
        IF low <= cardinality(starts) THEN
            SELECT p.tokens, p.text INTO tokens, text
            FROM public.llm_chat_prompt(public.llm_chat_from(messages, starts[low]), model) p;
            RETURN;
        END IF;
    END IF;
    PERFORM public.llm_require(
        false,
        format(
            'the conversation has %s tokens%s, and the model''s context of %s must hold %s more for the answer',
            cardinality(tokens), CASE WHEN overflow = 'slide' THEN ' at least' ELSE '' END, context, room
        ),
        CASE WHEN overflow = 'slide'
            THEN 'Shorten the last message or the system message, or lower max_tokens.'
            ELSE 'Drop messages, lower max_tokens, or let the oldest messages go: overflow => ''slide''.'
        END
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_fit(jsonb, text, int, text, int) IS
'What the model sees of a conversation, without the oldest turns if all of them do not fit into the context together '
'with an answer and overflow is slide. 22023: it does not fit.';


CREATE FUNCTION public.llm_chat_from(messages jsonb, number int) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    PERFORM public.llm_require_argument('number', number IS NOT NULL);
    RETURN (
        SELECT jsonb_agg(m.value ORDER BY m.place)
        FROM jsonb_array_elements(messages) WITH ORDINALITY m (value, place)
        WHERE m.place >= number OR m.place = 1 AND m.value ->> 'role' = 'system'
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_from(jsonb, int) IS
'A conversation from this message on, with its system message.';


CREATE FUNCTION public.llm_chat_end_tokens(messages jsonb, model text) RETURNS int[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    ids int[] := public.llm_end_tokens(model);
    ending text;
BEGIN
    SELECT p.ending INTO ending FROM public.llm_chat_parts(messages, model) p;
    RETURN ids || ARRAY(
        SELECT s.token_id
        FROM public.llm_chat_special_tokens(ARRAY[ending], model) s
        WHERE s.token_id <> ALL (ids)
        ORDER BY strpos(ending, s.token), length(s.token) DESC
        LIMIT 1
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_end_tokens(jsonb, text) IS
'The tokens that end an answer: llm_end_tokens, and the one with which the template ends it.';
