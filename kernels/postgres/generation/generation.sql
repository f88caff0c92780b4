-- Generations and their key/value caches, sampling.

CREATE FUNCTION public.pg_llm_gen_open(model text, prompt integer[], capacity integer)
    RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_open';
COMMENT ON FUNCTION public.pg_llm_gen_open(text, integer[], integer) IS
    'Begins a generation with room for capacity positions; it ends with the transaction.';

CREATE FUNCTION public.pg_llm_gen_close(handle integer)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_close';
COMMENT ON FUNCTION public.pg_llm_gen_close(integer) IS 'Ends a generation.';

CREATE FUNCTION public.pg_llm_gen_fork(handle integer)
    RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_fork';
COMMENT ON FUNCTION public.pg_llm_gen_fork(integer) IS
    'Begins a generation with a copy of another''s tokens and key/value cache, on the same weights.';

CREATE FUNCTION public.pg_llm_gen_reset(handle integer)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_reset';
COMMENT ON FUNCTION public.pg_llm_gen_reset(integer) IS 'Empties a generation''s key/value cache.';

CREATE FUNCTION public.pg_llm_gen_tokens(handle integer)
    RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_tokens';
COMMENT ON FUNCTION public.pg_llm_gen_tokens(integer) IS 'The tokens of a generation: prompt and generated ones.';

CREATE FUNCTION public.pg_llm_gen_length(handle integer)
    RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_length';
COMMENT ON FUNCTION public.pg_llm_gen_length(integer) IS 'The number of positions in a generation''s key/value cache.';

CREATE FUNCTION public.pg_llm_gen_use(handles integer[])
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_use';
COMMENT ON FUNCTION public.pg_llm_gen_use(integer[]) IS
    'Begins a forward pass over the same number of new positions of each generation; attention and pg_llm_positions '
    'then use their caches.';

CREATE FUNCTION public.pg_llm_gen_push(handle integer, token integer)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_push';
COMMENT ON FUNCTION public.pg_llm_gen_push(integer, integer) IS 'Appends a token to a generation.';

CREATE FUNCTION public.pg_llm_gen_done()
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_gen_done';
COMMENT ON FUNCTION public.pg_llm_gen_done() IS 'Ends the forward pass and commits its positions to the caches.';

CREATE FUNCTION public.pg_llm_positions(ids integer[])
    RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_positions';
COMMENT ON FUNCTION public.pg_llm_positions(integer[]) IS
    '0, 1, ... along the last axis; in a generation''s forward pass, counted from the end of each sequence''s cache.';

CREATE FUNCTION public.pg_llm_sample(
    logits public.tensor, temperature double precision DEFAULT 1, top_k integer DEFAULT 0,
    top_p double precision DEFAULT 1, seed bigint DEFAULT NULL, step bigint DEFAULT 0
)
    RETURNS integer
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_sample';
COMMENT ON FUNCTION public.pg_llm_sample(public.tensor, double precision, integer, double precision, bigint, bigint) IS
    'A token id drawn from the last row of logits; temperature 0 is greedy, top_k 0 and top_p 1 are off, seed NULL is '
    'random.';

CREATE FUNCTION public.pg_llm_top_tokens(
    logits public.tensor, k integer, OUT token_ids integer[], OUT log_probs double precision[]
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_top_tokens';
COMMENT ON FUNCTION public.pg_llm_top_tokens(public.tensor, integer) IS
    'The k most likely tokens for the last row of logits, ties by id, with their log probabilities.';

CREATE FUNCTION public.pg_llm_penalize(
    logits public.tensor, seen integer[], repetition double precision, presence double precision,
    frequency double precision
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_penalize';
COMMENT ON FUNCTION public.pg_llm_penalize(
    public.tensor, integer[], double precision, double precision, double precision
) IS
    'The last row of logits after penalties on the tokens already seen.';
