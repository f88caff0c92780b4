-- Generation: one token at a time from the key/value cache, as a stream of rows, as a text, for many prompts.

CREATE FUNCTION public.llm_generation_open(
    prompt text,
    model text,
    OUT handle int,
    OUT n_prompt int,
    OUT chosen text,
    OUT context int,
    OUT end_tokens int[]
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    ids int[];
BEGIN
    chosen := public.llm_default_model(model);
    config := public.llm_config(chosen);
    PERFORM public.llm_require_decoder(config, 'generating text');
    context := config.n_positions;
    ids := public.llm_prefix_tokens(chosen) || public.llm_encode(prompt, chosen);
    end_tokens := public.llm_end_tokens(chosen);
    IF cardinality(ids) = 0 THEN
        ids := ARRAY[public.llm_begin_token(chosen)];
        PERFORM public.llm_require(
            ids[1] IS NOT NULL, format('model "%s" has no token to begin an empty prompt with', chosen),
            'Pass a prompt, or set the flag bos on a token of llm_bpe_vocab.'
        );
    END IF;
    n_prompt := cardinality(ids);
    PERFORM public.llm_pin(chosen);
    handle := public.pg_llm_gen_open(chosen, ids, context);
    PERFORM public.pg_llm_arena_close(chosen);
END;
$function$;

COMMENT ON FUNCTION public.llm_generation_open(text, text) IS
'Opens a generation on one version of the weights, which it keeps until the transaction ends.';


CREATE FUNCTION public.llm_generation_begin(
    prompt text,
    model text,
    {{ settings.columns }},
    OUT handle int,
    OUT chosen text,
    OUT context int
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    opened record;
BEGIN
    PERFORM public.llm_require(c.holds, format('%s must %s, got %s', c.name, c.rule, COALESCE(c.value, 'NULL')))
    FROM (
        VALUES
        ('prompt', prompt IS NOT NULL, 'be a text', prompt),
        {{ settings.checks }}
    ) c (name, holds, rule, value);
    opened := public.llm_generation_open(prompt, model);
    handle := opened.handle;
    chosen := opened.chosen;
    context := opened.context;
    PERFORM public.pg_llm_gen_sampling(
        handle, opened.end_tokens,
        {{ settings.pairs }}
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_generation_begin(
    text, text,
    {{ settings.types }}
) IS
'Checks the arguments of a generation (22023) and opens it: its handle keeps them. Returns the model and its context.';


CREATE FUNCTION public.llm_generation_pass(handles int[], model text, tokens int[]) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    recording boolean := public.pg_llm_recording();
    logits public.tensor;
BEGIN
    PERFORM public.pg_llm_set_recording(false, true);
    PERFORM public.pg_llm_gen_use(handles);
    logits := public.llm_forward(model, tokens, false, NULL, 0.0, true);
    PERFORM public.pg_llm_gen_done();
    PERFORM public.pg_llm_set_recording(recording, true);
    RETURN logits;
END;
$function$;

COMMENT ON FUNCTION public.llm_generation_pass(int[], text, int[]) IS
'Logits after the last of the new tokens: [1, V], or [B, 1, V] for B generations with one row of tokens each. The new '
'tokens follow those in the key/value caches.';


CREATE FUNCTION public.llm_generation_logits(handle int, model text, context int) RETURNS public.tensor
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n_cached int := public.pg_llm_gen_length(handle);
    n_new int := 1;
BEGIN
    IF n_cached = 0 THEN
        n_new := context;
    ELSIF n_cached >= context THEN
        -- The context is full: its second half begins anew at position 0.
        PERFORM public.pg_llm_gen_reset(handle);
        n_new := greatest(context / 2, 1);
    END IF;
    RETURN public.llm_generation_pass(ARRAY[handle], model, public.pg_llm_gen_last(handle, n_new));
END;
$function$;

COMMENT ON FUNCTION public.llm_generation_logits(int, text, int) IS
'Logits after the last of the generation''s tokens. Only tokens that are not in its key/value cache are computed.';


CREATE FUNCTION public.llm_generations_logits(handles int[], model text, context int)
RETURNS TABLE (handle int, logits public.tensor)
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    -- Where one token is new, a pass over the weights serves all of them.
    together int[] := ARRAY(
        SELECT h.h FROM unnest(handles) h (h) WHERE public.pg_llm_gen_length(h.h) BETWEEN 1 AND context - 1
    );
    of_all public.tensor;
BEGIN
    IF cardinality(together) > 1 THEN
        of_all := public.llm_generation_pass(together, model, ARRAY(
            SELECT public.pg_llm_gen_last(h.h, 1) FROM unnest(together) WITH ORDINALITY h (h, place) ORDER BY h.place
        ));
    END IF;
    FOREACH handle IN ARRAY handles LOOP
        IF of_all IS NOT NULL AND handle = ANY (together) THEN
            logits := public.pg_llm_slice(
                of_all, 0, array_position(together, handle) - 1, array_position(together, handle)
            );
        ELSE
            logits := public.llm_generation_logits(handle, model, context);
        END IF;
        RETURN NEXT;
    END LOOP;
END;
$function$;

COMMENT ON FUNCTION public.llm_generations_logits(int[], text, int) IS
'llm_generation_logits of several generations on one version of the weights, bit-identical to separate calls.';


CREATE FUNCTION public.llm_generation_next(
    handle int,
    logits public.tensor,
    model text,
    OUT step int,
    OUT token_id int,
    OUT token text,
    OUT text text,
    OUT is_complete boolean
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    bytes bytea;
BEGIN
    token_id := public.pg_llm_gen_sample(handle, logits);
    -- A model's vocabulary may be larger than its tokenizer's: such a token has no text.
    SELECT v.bytes INTO bytes
    FROM public.llm_bpe_vocab v
    WHERE v.model = llm_generation_next.model AND v.token_id = llm_generation_next.token_id;
    SELECT w.step, w.token, w.text, w.is_complete INTO step, token, text, is_complete
    FROM public.pg_llm_gen_write(handle, COALESCE(bytes, ''::bytea)) w;
END;
$function$;

COMMENT ON FUNCTION public.llm_generation_next(int, public.tensor, text) IS
'The next token of a generation, sampled from the logits after all earlier tokens; step counts from 1. token is the '
'piece of text that it adds, text all that can be shown. After the last token the generation is closed.';


CREATE FUNCTION public.llm_generate_stream(
    prompt text,
    {{ sampling.parameters }}
) RETURNS TABLE (step int, token_id int, token text, text text, is_complete boolean)
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    -- A recursive query gives each row as soon as it has it, and ends with the generation.
    -- A body that is parsed once can be inlined and needs no search_path.
    WITH RECURSIVE generation AS (
        SELECT (b.b).handle, (b.b).chosen, (b.b).context,
            0 AS step, NULL::int AS token_id, ''::text AS token, ''::text AS text, false AS is_complete
        -- Not in FROM, where a LATERAL call would find the generation of the row before.
        FROM (
            SELECT public.llm_generation_begin(
                prompt, model,
                {{ settings.names }}
            ) AS b
            OFFSET 0
        ) b
        UNION ALL
        SELECT n.handle, n.chosen, n.context,
            (n.new).step, (n.new).token_id, (n.new).token, (n.new).text, (n.new).is_complete
        FROM (
            SELECT g.handle, g.chosen, g.context,
                public.llm_generation_next(
                    g.handle, public.llm_generation_logits(g.handle, g.chosen, g.context), g.chosen
                ) AS new
            FROM generation g
            WHERE NOT g.is_complete
            OFFSET 0
        ) n
    )
    SELECT g.step, g.token_id, g.token, CASE WHEN echo THEN prompt ELSE '' END || g.text, g.is_complete
    FROM generation g
    WHERE g.step > 0;
END;

COMMENT ON FUNCTION public.llm_generate_stream(
    text,
    {{ sampling.types }}
) IS
'Like llm_generate, one row per token: the piece of text that it adds, and the text so far. A client that fetches '
'through a cursor gets each row as soon as it is computed. The pieces concatenated are the text. The last row '
'completes the text; if an end-of-text token ended it, the row is that token''s. Writes nothing.';


CREATE FUNCTION public.llm_generate(
    prompt text,
    {{ sampling.parameters }}
) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    piece record;
    result text;
BEGIN
    IF prompt IS NULL THEN
        RETURN NULL;
    END IF;
    FOR piece IN
        SELECT s.text
        FROM public.llm_generate_stream(
            prompt,
            {{ sampling.names }}
        ) s
    LOOP
        result := piece.text;
    END LOOP;
    RETURN result;
END;
$function$;

COMMENT ON FUNCTION public.llm_generate(
    text,
    {{ sampling.types }}
) IS
'Generates text that continues the prompt; with echo, prompt and text. temperature 0: always the most likely token; '
'top_k 0 and top_p 1: no limit; seed: the same seed gives the same text; stop: the text ends before any of these '
'texts. It also ends at the end-of-text token. Of a prompt longer than the context only the last tokens are used; an '
'empty prompt starts a document. repetition_penalty applies to the tokens of prompt and text (Keskar et al. 2019), '
'presence_penalty and frequency_penalty to those of the text. Without a model, the default model: the setting '
'pg_llm.default_model, else the only model with weights, else gpt2-small. Writes nothing. 22023: an argument is out '
'of range.';


CREATE FUNCTION public.llm_generate_together(
    prompts text[],
    {{ sampling.columns }}
) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    n_prompts int := cardinality(prompts);
    generation record;
    piece record;
    handles int[];
    running int[];
    shown text[];
BEGIN
    PERFORM public.llm_require_argument('prompts', prompts IS NOT NULL);
    handles := array_fill(NULL::int, ARRAY[n_prompts]);
    shown := array_fill(''::text, ARRAY[n_prompts]);
    FOR i IN 1 .. n_prompts LOOP
        CONTINUE WHEN prompts[i] IS NULL;
        generation := public.llm_generation_begin(
            prompts[i], model,
            {{ settings.names }}
        );
        handles[i] := generation.handle;
    END LOOP;
    running := array_remove(handles, NULL);
    WHILE cardinality(running) > 0 LOOP
        FOR piece IN
            SELECT n.handle, (n.new).text, (n.new).is_complete
            FROM (
                SELECT l.handle, public.llm_generation_next(l.handle, l.logits, generation.chosen) AS new
                FROM public.llm_generations_logits(running, generation.chosen, generation.context) l
                OFFSET 0
            ) n
        LOOP
            shown[array_position(handles, piece.handle)] := piece.text;
            IF piece.is_complete THEN
                running := array_remove(running, piece.handle);
            END IF;
        END LOOP;
    END LOOP;
    RETURN ARRAY(
        SELECT CASE WHEN p.prompt IS NOT NULL THEN CASE WHEN echo THEN p.prompt ELSE '' END || shown[p.i] END
        FROM unnest(prompts) WITH ORDINALITY p (prompt, i)
        ORDER BY p.i
    );
END;
$function$;

COMMENT ON FUNCTION public.llm_generate_together(
    text[],
    {{ sampling.types }}
) IS
'llm_generate for a few prompts at once, one token of each at a time, so that the weights are read once for all of '
'them.';


CREATE FUNCTION public.llm_generate(
    prompts text[],
    {{ sampling.parameters }}
) RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    config public.llm_model_config;
    -- Numbered from 1, whatever bounds and dimensions the array has.
    flat text[] := ARRAY(SELECT p.p FROM unnest(prompts) p (p));
    n_together int;
    results text[] := '{}';
BEGIN
    model := public.llm_default_model(model);
    config := public.llm_config(model);
    PERFORM public.llm_require_decoder(config, 'generating text');
    IF prompts IS NULL THEN
        RETURN NULL;
    END IF;
    -- One version of the weights for all of them.
    PERFORM public.llm_pin(model);
    -- So many at a time share the passes over the weights, if their key/value caches fit into pg_llm.cache_size.
    n_together := least(8, greatest(1,
        pg_size_bytes(current_setting('pg_llm.cache_size'))
        / (8::bigint * config.n_layer * config.n_positions
            * COALESCE((config.settings ->> 'n_kv_head')::int, config.n_head)
            * COALESCE((config.settings ->> 'd_head')::int, config.d_model / config.n_head))
    ));
    FOR place IN 1 .. cardinality(flat) BY n_together LOOP
        results := results || public.llm_generate_together(
            flat[place : place + n_together - 1],
            {{ sampling.names }}
        );
    END LOOP;
    PERFORM public.pg_llm_arena_close(model);
    RETURN results;
END;
$function$;

COMMENT ON FUNCTION public.llm_generate(
    text[],
    {{ sampling.types }}
) IS
'Generates a text for each of the prompts, in their order, each identical to what a separate call with these '
'arguments returns.';
