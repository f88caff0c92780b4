-- Conversations with a model: its chat template, what it sees of a conversation, and its answers.

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


CREATE FUNCTION public.llm_chat_key(config public.llm_model_config) RETURNS bytea
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
BEGIN
    RETURN sha256(textsend(config::text || current_setting('pg_llm.weights') || (
        SELECT a::text || COALESCE((
            SELECT string_agg(concat_ws(' ', p.oid, p.xmin, p.ctid), ',' ORDER BY p.oid)
            FROM pg_proc p
            WHERE p.proname = split_part(a.forward, '.', -1)
        ), '')
        FROM public.llm_arch a WHERE a.arch = config.arch
    ) || COALESCE((SELECT a::text FROM public.llm_adapter a WHERE a.model = config.model), '')));
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_key(public.llm_model_config) IS
'What a key/value cache depends on beside weights and tokens: the model''s configuration, its forward pass, what an '
'adapter adds to its base, how the session holds weights.';


CREATE FUNCTION public.llm_chat_begin(
    messages jsonb,
    {{ chat.columns }},
    OUT handle int,
    OUT chosen text,
    OUT context int,
    OUT before text
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    prompt record;
    n_cached int;
BEGIN
    PERFORM public.llm_require(c.holds, format('%s must %s, got %s', c.name, c.rule, COALESCE(c.value, 'NULL')))
    FROM (
        VALUES
        ('messages', messages IS NOT NULL, 'be an array of messages', messages::text),
        {{ chat.checks }}
    ) c (name, holds, rule, value);
    chosen := public.llm_default_model(model);
    config := public.llm_config(chosen);
    PERFORM public.llm_require_decoder(config, 'answering');
    prompt := public.llm_chat_fit(messages, chosen, max_tokens, overflow, config.n_positions);
    -- An answer ends where the context is full.
    max_tokens := least(max_tokens, config.n_positions - cardinality(prompt.tokens));
    context := cardinality(prompt.tokens) + max_tokens;
    before := CASE WHEN echo THEN prompt.text ELSE '' END;
    PERFORM public.llm_pin(chosen);
    handle := public.pg_llm_gen_open(chosen, prompt.tokens, config.n_positions);
    PERFORM public.pg_llm_arena_close(chosen);
    -- The conversation has been read before, up to the newest messages: what is new but the last token is read now.
    n_cached := public.pg_llm_gen_resume(handle, public.llm_chat_key(config));
    IF n_cached BETWEEN 1 AND cardinality(prompt.tokens) - 2 THEN
        PERFORM public.llm_generation_pass(
            ARRAY[handle], chosen, prompt.tokens[n_cached + 1 : cardinality(prompt.tokens) - 1]
        );
    END IF;
    PERFORM public.pg_llm_gen_sampling(
        handle, public.llm_chat_end_tokens(messages, chosen),
        {{ settings.pairs }}
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_begin(
    jsonb,
    {{ chat.types }}
) IS
'llm_generation_begin for the answer to a conversation; before: what echo puts before it.';


CREATE FUNCTION public.llm_chat_stream(
    messages jsonb,
    {{ chat.parameters }}
) RETURNS TABLE (step int, token_id int, token text, text text, is_complete boolean)
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    -- As llm_generate_stream does it.
    WITH RECURSIVE generation AS (
        SELECT (b.b).handle, (b.b).chosen, (b.b).context, (b.b).before,
            0 AS step, NULL::int AS token_id, ''::text AS token, ''::text AS text, false AS is_complete
        FROM (
            SELECT public.llm_chat_begin(
                messages,
                {{ chat.names }}
            ) AS b
            OFFSET 0
        ) b
        UNION ALL
        SELECT n.handle, n.chosen, n.context, n.before,
            (n.new).step, (n.new).token_id, (n.new).token, (n.new).text, (n.new).is_complete
        FROM (
            SELECT g.handle, g.chosen, g.context, g.before,
                public.llm_generation_next(
                    g.handle, public.llm_generation_logits(g.handle, g.chosen, g.context), g.chosen
                ) AS new
            FROM generation g
            WHERE NOT g.is_complete
            OFFSET 0
        ) n
    )
    SELECT g.step, g.token_id, g.token, g.before || g.text, g.is_complete
    FROM generation g
    WHERE g.step > 0;
END;

COMMENT ON FUNCTION public.llm_chat_stream(
    jsonb,
    {{ chat.types }}
) IS
'Like llm_chat, one row per token, as llm_generate_stream gives them: the piece of the answer that it adds, and the '
'answer so far. Writes nothing.';


CREATE FUNCTION public.llm_chat(
    messages jsonb,
    {{ chat.parameters }}
) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    piece record;
    result text;
BEGIN
    IF messages IS NULL THEN
        RETURN NULL;
    END IF;
    FOR piece IN
        SELECT s.text
        FROM public.llm_chat_stream(
            messages,
            {{ chat.names }}
        ) s
    LOOP
        result := piece.text;
    END LOOP;
    RETURN result;
END;
$function$;

COMMENT ON FUNCTION public.llm_chat(
    jsonb,
    {{ chat.types }}
) IS
'Answers a conversation, [{"role": "system" | "user" | "assistant", "content": "a text"}, ...], by the model''s own '
'chat template. What a message says never becomes a special token of the tokenizer. The arguments are those of '
'llm_generate; the answer also ends at the token with which the template ends one, and where the context is full. '
'overflow: what happens when conversation and answer do not fit into the context: slide leaves out the oldest turns '
'after the system message, so that max_tokens, or half of the context, are left for the answer; error refuses. A '
'client that renders the template itself passes {"parts": [{"template": "..."} | {"content": "..."}, ...], "ending": '
'"..."}. Writes nothing. 22023: an argument is out of range, messages have another form or do not fit; 0A000: only '
'clients render the model''s chat template; 42704: the model has none.';
