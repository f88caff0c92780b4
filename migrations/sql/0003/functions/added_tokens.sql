-- Added tokens: what a tokenizer has beside the tokens that merging makes, and the tokens with a meaning of their own.

CREATE FUNCTION public.llm_add_tokens(model text, added jsonb) RETURNS int
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_llm, pg_temp
AS $function$
DECLARE
    problem text;
    n int;
BEGIN
    PERFORM public.llm_require(
        jsonb_typeof(added) = 'array' AND NOT EXISTS (
            SELECT FROM jsonb_array_elements(added) e (value)
            WHERE jsonb_typeof(e.value) <> 'object'
                OR COALESCE(jsonb_typeof(e.value -> 'id'), '') <> 'number'
                OR COALESCE(e.value ->> 'id', '') !~ '^[0-9]{1,9}$'
                OR COALESCE(jsonb_typeof(e.value -> 'content'), '') <> 'string'
                OR COALESCE(jsonb_typeof(e.value -> 'flags'), '') <> 'array'
        ),
        'added must be an array of {"id", "content", "flags"}'
    );
    WITH given AS (
        SELECT (e.value ->> 'id')::int AS id, e.value ->> 'content' AS content
        FROM jsonb_array_elements(added) e (value)
    )
    SELECT min(p.problem) INTO problem
    FROM (
        SELECT format('id %s is given twice', g.id) AS problem FROM given g GROUP BY g.id HAVING count(*) > 1
        UNION ALL
        SELECT format('token "%s" has two ids', g.content) FROM given g GROUP BY g.content HAVING count(*) > 1
        UNION ALL
        SELECT format('id %s is "%s" and "%s"', g.id, g.content, v.token)
        FROM given g
        INNER JOIN public.llm_bpe_vocab v ON v.model = llm_add_tokens.model AND v.token_id = g.id
        WHERE v.token <> g.content
        UNION ALL
        SELECT format('token "%s" has two ids, %s and %s', g.content, v.token_id, g.id)
        FROM given g
        INNER JOIN public.llm_bpe_vocab v ON v.model = llm_add_tokens.model AND v.token = g.content
        WHERE v.token_id <> g.id
        UNION ALL
        -- In the byte-level alphabet the token stands for other bytes than its text.
        SELECT format('token "%s" is already in the vocabulary with other bytes', g.content)
        FROM given g
        INNER JOIN public.llm_bpe_vocab v ON v.model = llm_add_tokens.model AND v.token_id = g.id
        WHERE v.token = g.content AND v.bytes <> convert_to(g.content, 'UTF8') AND NOT EXISTS (
            SELECT FROM public.llm_tokenizer t
            WHERE t.model = llm_add_tokens.model AND t.kind IN ('wordpiece', 'sentencepiece')
        )
    ) p;
    PERFORM public.llm_require(problem IS NULL, 'the added tokens do not fit: ' || problem);
    UPDATE public.llm_bpe_vocab v
    SET flags = g.flags || CASE WHEN 'added' = ANY (g.flags) THEN '{base}'::text[] ELSE '{}'::text[] END
    FROM (
        SELECT (e.value ->> 'id')::int AS id, ARRAY(SELECT jsonb_array_elements_text(e.value -> 'flags')) AS flags
        FROM jsonb_array_elements(added) e (value)
    ) g
    WHERE v.model = llm_add_tokens.model AND v.token_id = g.id;
    INSERT INTO public.llm_bpe_vocab (model, token_id, token, bytes, flags)
    SELECT llm_add_tokens.model, g.id, g.content, convert_to(g.content, 'UTF8'), g.flags
    FROM (
        SELECT (e.value ->> 'id')::int AS id, e.value ->> 'content' AS content,
            ARRAY(SELECT jsonb_array_elements_text(e.value -> 'flags')) AS flags
        FROM jsonb_array_elements(added) e (value)
    ) g
    WHERE NOT EXISTS (
        SELECT FROM public.llm_bpe_vocab v WHERE v.model = llm_add_tokens.model AND v.token_id = g.id
    );
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END;
$function$;

COMMENT ON FUNCTION public.llm_add_tokens(text, jsonb) IS
'Adds tokens to a model''s tokenizer, given as [{"id", "content", "flags"}, ...] with the flags of llm_bpe_vocab. A '
'token that is already in the vocabulary gets the flags. Returns the number of new tokens. 22023: ids or contents '
'collide; 23514: unknown flags.';
