-- Training: optimizer steps on given tensors, learning rate schedules, permutations, batches, pairs of sequences.

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

CREATE FUNCTION public.pg_llm_ids_hash(tokens integer[], targets integer[], start bigint DEFAULT 0)
    RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_ids_hash';
COMMENT ON FUNCTION public.pg_llm_ids_hash(integer[], integer[], bigint) IS
    'A 64-bit hash of token and target ids and their shapes, the same on every machine. start: the hash of what comes '
    'before.';

CREATE FUNCTION public.pg_llm_rows_hash_add(state internal, id bigint, tokens integer[], target integer[])
    RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_rows_hash_add';
COMMENT ON FUNCTION public.pg_llm_rows_hash_add(internal, bigint, integer[], integer[]) IS
    'transition function of pg_llm_rows_hash';

CREATE FUNCTION public.pg_llm_rows_hash_final(state internal)
    RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_rows_hash_final';
COMMENT ON FUNCTION public.pg_llm_rows_hash_final(internal) IS 'final function of pg_llm_rows_hash';
CREATE AGGREGATE public.pg_llm_rows_hash(id bigint, tokens integer [], target integer []) (
    SFUNC = public.pg_llm_rows_hash_add,
    STYPE = internal,
    FINALFUNC = public.pg_llm_rows_hash_final,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE public.pg_llm_rows_hash(bigint, integer [], integer []) IS
    'A hash of the contents of dataset rows with their ids, in any order, the same on every machine; NULL without '
    'rows.';

CREATE FUNCTION public.pg_llm_rows_changed(before bytea, after bytea)
    RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_rows_changed';
COMMENT ON FUNCTION public.pg_llm_rows_changed(bytea, bytea) IS
    'From two values of pg_llm_rows_hash: if exactly one row has other contents, its id. Otherwise NULL, or a number '
    'that need not be a row''s.';

CREATE FUNCTION public.pg_llm_ids_within(ids integer[], low integer, high integer)
    RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_ids_within';
COMMENT ON FUNCTION public.pg_llm_ids_within(integer[], integer, integer) IS
    'Whether no id is NULL and all are at least low and below high.';

CREATE FUNCTION public.pg_llm_pair_problem(tokens integer[], segments integer[], max_tokens integer)
    RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_pair_problem';
COMMENT ON FUNCTION public.pg_llm_pair_problem(integer[], integer[], integer) IS
    'What is wrong with a row of pairs, NULL if nothing: segments number its sequences token by token, 0 for the '
    'anchor, 1 for the positive, 2 and on for negatives, below 0 for padding at the end, and no sequence is longer '
    'than max_tokens. 22023: tokens and segments of different lengths.';

CREATE FUNCTION public.pg_llm_pairs(
    tokens integer[], segments integer[], max_tokens integer, OUT sequences integer[], OUT lengths integer[],
    OUT n_rows integer, OUT exclusions public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_pairs';
COMMENT ON FUNCTION public.pg_llm_pairs(integer[], integer[], integer) IS
    'Splits the rows of a batch, [T] or [B, T], by their segments: all anchors, all positives, then all negatives, '
    'laid end to end, and their lengths. exclusions [B, candidates]: -1e30 where a candidate is no negative of the '
    'row''s anchor, being the text of its positive again or another positive of the same anchor, else 0; NULL if there '
    'is none such. 22023, naming the row: as for pg_llm_pair_problem.';

CREATE FUNCTION public.pg_llm_ranks(scores public.tensor, rows integer[], columns integer[])
    RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_ranks';
COMMENT ON FUNCTION public.pg_llm_ranks(public.tensor, integer[], integer[]) IS
    'The rank, from 1, of each pair of a row and a column (from 0) of scores [m, n] among the columns that are not '
    'paired with that row; equal scores count against it. 22003: there is no such element.';
