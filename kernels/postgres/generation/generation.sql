-- Generations and their key/value caches, sampling, optimizer steps on given tensors, batches.

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

CREATE FUNCTION public.pg_llm_adamw_step(
    weight public.tensor, grad public.tensor, m public.tensor, v public.tensor, lr double precision,
    beta1 double precision, beta2 double precision, eps double precision, weight_decay double precision, step bigint,
    OUT new_weight public.tensor, OUT new_m public.tensor, OUT new_v public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_adamw_step';
COMMENT ON FUNCTION public.pg_llm_adamw_step(
    public.tensor, public.tensor, public.tensor, public.tensor, double precision, double precision, double precision,
    double precision, double precision, bigint
) IS
    'One AdamW step (Loshchilov & Hutter 2019). With a NULL gradient nothing changes; NULL moments are zeros.';

CREATE FUNCTION public.pg_llm_grad_clip(grad public.tensor, clip double precision)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_grad_clip';
COMMENT ON FUNCTION public.pg_llm_grad_clip(public.tensor, double precision) IS
    'The gradient scaled so that its L2 norm is at most clip.';

CREATE FUNCTION public.pg_llm_lr_schedule(
    step bigint, warmup bigint, total bigint, lr_max double precision, schedule text DEFAULT 'cosine',
    min_lr double precision DEFAULT 0
)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_lr_schedule';
COMMENT ON FUNCTION public.pg_llm_lr_schedule(bigint, bigint, bigint, double precision, text, double precision) IS
    'Learning rate at a step counted from 1: linear warm-up, then cosine, linear or constant.';

CREATE FUNCTION public.pg_llm_permutation(n bigint, seed bigint, epoch bigint)
    RETURNS bigint[]
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_permutation';
COMMENT ON FUNCTION public.pg_llm_permutation(bigint, bigint, bigint) IS
    'The numbers 0 to n - 1 in the order of an epoch.';

CREATE FUNCTION public.pg_llm_batch(n bigint, seed bigint, first bigint, size integer)
    RETURNS bigint[]
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_batch';
COMMENT ON FUNCTION public.pg_llm_batch(bigint, bigint, bigint, integer) IS
    'Row ordinals, counted from 1, of the batch that starts at position first of the epochs'' permutations joined end '
    'to end.';
