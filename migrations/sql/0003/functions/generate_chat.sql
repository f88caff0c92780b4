-- Conversations with a model: its answers.

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
    model text, max_tokens int, temperature double precision, top_k int, top_p double precision, seed bigint,
    stop text[], echo boolean, repetition_penalty double precision, presence_penalty double precision,
    frequency_penalty double precision, overflow text,
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
        ('max_tokens', max_tokens >= 1, 'be at least 1', max_tokens::text),
        ('temperature', temperature >= 0 AND temperature < 'Infinity', 'be finite and not negative', temperature::text),
        ('top_k', top_k >= 0, 'not be negative', top_k::text),
        ('top_p', top_p > 0 AND top_p <= 1, 'be above 0 and at most 1', top_p::text),
        ('stop', array_position(stop, '') IS NULL, 'hold no empty text', stop::text),
        (
            'repetition_penalty',
            repetition_penalty > 0 AND repetition_penalty < 'Infinity',
            'be positive and finite',
            repetition_penalty::text
        ),
        ('presence_penalty', abs(presence_penalty) < 'Infinity', 'be finite', presence_penalty::text),
        ('frequency_penalty', abs(frequency_penalty) < 'Infinity', 'be finite', frequency_penalty::text),
        ('overflow', overflow IN ('slide', 'error'), 'be slide or error', overflow::text)
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
        'max_tokens', max_tokens, 'temperature', temperature, 'top_k', top_k, 'top_p', top_p, 'seed', seed,
        'stop', stop, 'repetition_penalty', repetition_penalty, 'presence_penalty', presence_penalty,
        'frequency_penalty', frequency_penalty
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_chat_begin(
    jsonb,
    text, int, double precision, int, double precision, bigint, text[], boolean, double precision, double precision,
    double precision, text
) IS
'llm_generation_begin for the answer to a conversation; before: what echo puts before it.';


CREATE FUNCTION public.llm_chat_stream(
    messages jsonb,
    model text DEFAULT NULL,
    max_tokens int DEFAULT 256,
    temperature double precision DEFAULT 0.7,
    top_k int DEFAULT 50,
    top_p double precision DEFAULT 0.95,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL,
    echo boolean DEFAULT false,
    repetition_penalty double precision DEFAULT 1,
    presence_penalty double precision DEFAULT 0,
    frequency_penalty double precision DEFAULT 0,
    overflow text DEFAULT 'slide'
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
                model, max_tokens, temperature, top_k, top_p, seed, stop, echo, repetition_penalty, presence_penalty,
                frequency_penalty, overflow
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
    text, int, double precision, int, double precision, bigint, text[], boolean, double precision, double precision,
    double precision, text
) IS
'Like llm_chat, one row per token, as llm_generate_stream gives them: the piece of the answer that it adds, and the '
'answer so far. Writes nothing.';


CREATE FUNCTION public.llm_chat(
    messages jsonb,
    model text DEFAULT NULL,
    max_tokens int DEFAULT 256,
    temperature double precision DEFAULT 0.7,
    top_k int DEFAULT 50,
    top_p double precision DEFAULT 0.95,
    seed bigint DEFAULT NULL,
    stop text[] DEFAULT NULL,
    echo boolean DEFAULT false,
    repetition_penalty double precision DEFAULT 1,
    presence_penalty double precision DEFAULT 0,
    frequency_penalty double precision DEFAULT 0,
    overflow text DEFAULT 'slide'
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
            model, max_tokens, temperature, top_k, top_p, seed, stop, echo, repetition_penalty, presence_penalty,
            frequency_penalty, overflow
        ) s
    LOOP
        result := piece.text;
    END LOOP;
    RETURN result;
END;
$function$;

COMMENT ON FUNCTION public.llm_chat(
    jsonb,
    text, int, double precision, int, double precision, bigint, text[], boolean, double precision, double precision,
    double precision, text
) IS
'Answers a conversation, [{"role": "system" | "user" | "assistant", "content": "a text"}, ...], by the model''s own '
'chat template. What a message says never becomes a special token of the tokenizer. The arguments are those of '
'llm_generate; the answer also ends at the token with which the template ends one, and where the context is full. '
'overflow: what happens when conversation and answer do not fit into the context: slide leaves out the oldest turns '
'after the system message, so that max_tokens, or half of the context, are left for the answer; error refuses. A '
'client that renders the template itself passes {"parts": [{"template": "..."} | {"content": "..."}, ...], "ending": '
'"..."}. Writes nothing. 22023: an argument is out of range, messages have another form or do not fit; 0A000: only '
'clients render the model''s chat template; 42704: the model has none.';
