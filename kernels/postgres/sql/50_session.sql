-- 50_session.sql -- parameters in memory, generations, sampling, optimizer steps, batches, progress.

CREATE FUNCTION public.pg_llm_fingerprint_add(state internal, name text, token_id integer, ctid tid, xmin xid) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_fingerprint_add';
COMMENT ON FUNCTION public.pg_llm_fingerprint_add(internal, text, integer, tid, xid) IS
    'transition function of pg_llm_fingerprint';
CREATE FUNCTION public.pg_llm_fingerprint_final(state internal) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_fingerprint_final';
COMMENT ON FUNCTION public.pg_llm_fingerprint_final(internal) IS 'final function of pg_llm_fingerprint';
CREATE AGGREGATE public.pg_llm_fingerprint(name text, token_id integer, ctid tid, xmin xid) (
    SFUNC = public.pg_llm_fingerprint_add, STYPE = internal, FINALFUNC = public.pg_llm_fingerprint_final, PARALLEL = SAFE);
COMMENT ON AGGREGATE public.pg_llm_fingerprint(text, integer, tid, xid) IS
    'Which row versions a snapshot sees: equal exactly when they are the same rows; NULL without rows.';

CREATE FUNCTION public.pg_llm_arena_open(model text, fingerprint bytea, training boolean) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_open';
COMMENT ON FUNCTION public.pg_llm_arena_open(text, bytea, boolean) IS
    'Pins a version of a models parameters; false when memory lacks it and it must be fed.';

CREATE FUNCTION public.pg_llm_arena_put(model text, name text, token_id integer, data public.tensor, m public.tensor, v public.tensor) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_put';
COMMENT ON FUNCTION public.pg_llm_arena_put(text, text, integer, public.tensor, public.tensor, public.tensor) IS
    'Feeds one row of llm_param; m and v may be NULL.';

CREATE FUNCTION public.pg_llm_arena_seal(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_seal';
COMMENT ON FUNCTION public.pg_llm_arena_seal(text) IS
    'Ends feeding: joins parts and checks that every number is finite.';

CREATE FUNCTION public.pg_llm_arena_close(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_close';
COMMENT ON FUNCTION public.pg_llm_arena_close(text) IS
    'Undoes the newest pg_llm_arena_open of the model.';

CREATE FUNCTION public.pg_llm_arena_pinned(model text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_arena_pinned';
COMMENT ON FUNCTION public.pg_llm_arena_pinned(text) IS
    'Whether a version of the model is pinned for the caller.';

CREATE FUNCTION public.pg_llm_arena_pin_statement(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_pin_statement';
COMMENT ON FUNCTION public.pg_llm_arena_pin_statement(text) IS
    'Lets the newest pin last until the running statement ends or this session writes.';

CREATE FUNCTION public.pg_llm_param(model text, name text) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_param';
COMMENT ON FUNCTION public.pg_llm_param(text, text) IS
    'A parameter of the pinned version, parts joined; a leaf of the tape while recording.';

CREATE FUNCTION public.pg_llm_arena_shape(model text, name text) RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_arena_shape';
COMMENT ON FUNCTION public.pg_llm_arena_shape(text, text) IS
    'The shape of a parameter of the pinned version.';

CREATE FUNCTION public.pg_llm_arena_data(model text, name text, token_id integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_data';
COMMENT ON FUNCTION public.pg_llm_arena_data(text, text, integer) IS
    'One part of a parameter in memory: its weights.';

CREATE FUNCTION public.pg_llm_arena_grad(model text, name text, token_id integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_grad';
COMMENT ON FUNCTION public.pg_llm_arena_grad(text, text, integer) IS
    'One part of a parameter in memory: its gradient, NULL when none.';

CREATE FUNCTION public.pg_llm_arena_m(model text, name text, token_id integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_m';
COMMENT ON FUNCTION public.pg_llm_arena_m(text, text, integer) IS
    'One part of a parameter in memory: its first moments.';

CREATE FUNCTION public.pg_llm_arena_v(model text, name text, token_id integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_v';
COMMENT ON FUNCTION public.pg_llm_arena_v(text, text, integer) IS
    'One part of a parameter in memory: its second moments.';

CREATE FUNCTION public.pg_llm_arena_zero_grad(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_zero_grad';
COMMENT ON FUNCTION public.pg_llm_arena_zero_grad(text) IS
    'Forgets all gradients.';

CREATE FUNCTION public.pg_llm_arena_grad_norm(model text) RETURNS double precision
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_grad_norm';
COMMENT ON FUNCTION public.pg_llm_arena_grad_norm(text) IS
    'L2 norm over the gradients of all parameters.';

CREATE FUNCTION public.pg_llm_arena_grad_norms(model text) RETURNS jsonb
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_grad_norms';
COMMENT ON FUNCTION public.pg_llm_arena_grad_norms(text) IS
    'L2 norm of each parameters gradient, by name.';

CREATE FUNCTION public.pg_llm_arena_adamw(model text, lr double precision, beta1 double precision, beta2 double precision, eps double precision, weight_decay double precision, step bigint, grad_clip double precision, decay_matrices_only boolean) RETURNS double precision
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_adamw';
COMMENT ON FUNCTION public.pg_llm_arena_adamw(text, double precision, double precision, double precision, double precision, double precision, bigint, double precision, boolean) IS
    'One AdamW step on all parameters in memory, clipped by global norm unless grad_clip is NULL; returns the norm before clipping.';

CREATE FUNCTION public.pg_llm_arena_saved(model text, fingerprint bytea) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_saved';
COMMENT ON FUNCTION public.pg_llm_arena_saved(text, bytea) IS
    'After write-back: memory is the version that the rows now have.';

CREATE FUNCTION public.pg_llm_arena_discard(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_discard';
COMMENT ON FUNCTION public.pg_llm_arena_discard(text) IS
    'The pinned version is not to be used again.';

CREATE FUNCTION public.pg_llm_release() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_release';
COMMENT ON FUNCTION public.pg_llm_release() IS
    'Gives back the memory of versions that are not in use and of cached buffers; returns bytes.';

CREATE FUNCTION public.pg_llm_gen_open(model text, prompt integer[], capacity integer) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_open';
COMMENT ON FUNCTION public.pg_llm_gen_open(text, integer[], integer) IS
    'Begins a generation with room for capacity positions; it ends with the transaction.';

CREATE FUNCTION public.pg_llm_gen_close(handle integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_close';
COMMENT ON FUNCTION public.pg_llm_gen_close(integer) IS
    'Ends a generation.';

CREATE FUNCTION public.pg_llm_gen_fork(handle integer) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_fork';
COMMENT ON FUNCTION public.pg_llm_gen_fork(integer) IS
    'Begins a generation with the tokens, key/value cache and weights of another.';

CREATE FUNCTION public.pg_llm_gen_reset(handle integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_reset';
COMMENT ON FUNCTION public.pg_llm_gen_reset(integer) IS
    'Empties its key/value cache.';

CREATE FUNCTION public.pg_llm_gen_tokens(handle integer) RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_tokens';
COMMENT ON FUNCTION public.pg_llm_gen_tokens(integer) IS
    'Prompt and generated tokens.';

CREATE FUNCTION public.pg_llm_gen_length(handle integer) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_length';
COMMENT ON FUNCTION public.pg_llm_gen_length(integer) IS
    'Positions in its cache.';

CREATE FUNCTION public.pg_llm_gen_use(handle integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_use';
COMMENT ON FUNCTION public.pg_llm_gen_use(integer) IS
    'Attention and positions consult its cache from now on.';

CREATE FUNCTION public.pg_llm_gen_push(handle integer, token integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_push';
COMMENT ON FUNCTION public.pg_llm_gen_push(integer, integer) IS
    'Appends a token.';

CREATE FUNCTION public.pg_llm_gen_done() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_done';
COMMENT ON FUNCTION public.pg_llm_gen_done() IS
    'The pass is over: its positions count.';

CREATE FUNCTION public.pg_llm_positions(ids integer[]) RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_positions';
COMMENT ON FUNCTION public.pg_llm_positions(integer[]) IS
    '0, 1, ... along the last axis, after the positions in the cache that is in use.';

CREATE FUNCTION public.pg_llm_sample(logits public.tensor, temperature double precision DEFAULT 1, top_k integer DEFAULT 0, top_p double precision DEFAULT 1, seed bigint DEFAULT NULL, step bigint DEFAULT 0) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_sample';
COMMENT ON FUNCTION public.pg_llm_sample(public.tensor, double precision, integer, double precision, bigint, bigint) IS
    'A token id drawn from the last row of logits; temperature 0 is greedy, top_k 0 and top_p 1 are off, seed NULL is random.';

CREATE FUNCTION public.pg_llm_top_tokens(logits public.tensor, k integer, OUT token_ids integer[], OUT log_probs double precision[])
    RETURNS record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_top_tokens';
COMMENT ON FUNCTION public.pg_llm_top_tokens(public.tensor, integer) IS
    'The k likeliest tokens after the last row of logits, equals by id, and the logarithms of their probabilities.';

CREATE FUNCTION public.pg_llm_penalize(logits public.tensor, seen integer[], repetition double precision, presence double precision, frequency double precision) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_penalize';
COMMENT ON FUNCTION public.pg_llm_penalize(public.tensor, integer[], double precision, double precision, double precision) IS
    'The last row of logits with penalties on the tokens seen.';

CREATE FUNCTION public.pg_llm_adamw_step(weight public.tensor, grad public.tensor, m public.tensor, v public.tensor, lr double precision,
    beta1 double precision, beta2 double precision, eps double precision, weight_decay double precision, step bigint,
    OUT new_weight public.tensor, OUT new_m public.tensor, OUT new_v public.tensor) RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_adamw_step';
COMMENT ON FUNCTION public.pg_llm_adamw_step(public.tensor, public.tensor, public.tensor, public.tensor, double precision, double precision,
    double precision, double precision, double precision, bigint) IS
    'One AdamW step (Loshchilov & Hutter 2019). A NULL gradient leaves everything as it is; NULL moments are zeros.';

CREATE FUNCTION public.pg_llm_grad_clip(grad public.tensor, clip double precision) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_grad_clip';
COMMENT ON FUNCTION public.pg_llm_grad_clip(public.tensor, double precision) IS
    'The gradient scaled so that its L2 norm is at most clip.';

CREATE FUNCTION public.pg_llm_lr_schedule(step bigint, warmup bigint, total bigint, lr_max double precision, schedule text DEFAULT 'cosine', min_lr double precision DEFAULT 0) RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_lr_schedule';
COMMENT ON FUNCTION public.pg_llm_lr_schedule(bigint, bigint, bigint, double precision, text, double precision) IS
    'Learning rate at a step counted from 1: linear warm-up, then cosine, linear or constant.';

CREATE FUNCTION public.pg_llm_permutation(n bigint, seed bigint, epoch bigint) RETURNS bigint[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_permutation';
COMMENT ON FUNCTION public.pg_llm_permutation(bigint, bigint, bigint) IS
    'The numbers 0 to n - 1 in an epochs order.';

CREATE FUNCTION public.pg_llm_batch(n bigint, seed bigint, first bigint, size integer) RETURNS bigint[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_batch';
COMMENT ON FUNCTION public.pg_llm_batch(bigint, bigint, bigint, integer) IS
    'Ordinals from 1 at positions first .. of all epochs permutations one after another.';

CREATE FUNCTION public.pg_llm_progress(model text, run_id bigint, step bigint, total bigint, loss double precision, lr double precision, tokens bigint) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_progress';
COMMENT ON FUNCTION public.pg_llm_progress(text, bigint, bigint, bigint, double precision, double precision, bigint) IS
    'Shows other sessions how far this training is.';

CREATE FUNCTION public.pg_llm_progress_clear() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_progress_clear';
COMMENT ON FUNCTION public.pg_llm_progress_clear() IS
    'This session trains no more.';

CREATE FUNCTION public.pg_llm_train_progress(OUT pid integer, OUT datid oid, OUT model text, OUT run_id bigint, OUT step bigint, OUT total bigint, OUT loss double precision, OUT lr double precision, OUT tokens bigint, OUT started_at timestamptz, OUT updated_at timestamptz)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_train_progress';
COMMENT ON FUNCTION public.pg_llm_train_progress() IS
    'Trainings that run in this database.';

CREATE FUNCTION public.pg_llm_numerics_version() RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_numerics_version';
COMMENT ON FUNCTION public.pg_llm_numerics_version() IS
    'The version of the rules that make results reproducible.';

