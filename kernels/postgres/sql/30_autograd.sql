-- 30_autograd.sql -- the tape, backward, leaves and their gradients; recording.

CREATE FUNCTION public.pg_llm_recording() RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_recording';
COMMENT ON FUNCTION public.pg_llm_recording() IS
    'Whether ops of this session are recorded.';

CREATE FUNCTION public.pg_llm_autograd_enabled() RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_recording';
COMMENT ON FUNCTION public.pg_llm_autograd_enabled() IS
    'Whether ops of this session are recorded.';

CREATE FUNCTION public.pg_llm_set_recording(flag boolean, is_local boolean DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_set_recording';
COMMENT ON FUNCTION public.pg_llm_set_recording(boolean, boolean) IS
    'Sets pg_llm.autograd for the session, or as SET LOCAL does; undone when the transaction rolls back.';

CREATE FUNCTION public.pg_llm_pass_begin(seed bigint, step bigint, micro_batch integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_pass_begin';
COMMENT ON FUNCTION public.pg_llm_pass_begin(bigint, bigint, integer) IS
    'Keys the dropout of what follows in this transaction.';

CREATE FUNCTION public.pg_llm_tape_clear() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_clear';
COMMENT ON FUNCTION public.pg_llm_tape_clear() IS
    'Empties the tape.';

CREATE FUNCTION public.pg_llm_tape_quiet(quiet boolean) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_quiet';
COMMENT ON FUNCTION public.pg_llm_tape_quiet(boolean) IS
    'Whether passes leave no rows, so that no norms need to be taken.';

CREATE FUNCTION public.pg_llm_tape_base(base bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_set_base';
COMMENT ON FUNCTION public.pg_llm_tape_base(bigint) IS
    'Sets what ids of this pass begin with.';

CREATE FUNCTION public.pg_llm_tape_base() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_base';
COMMENT ON FUNCTION public.pg_llm_tape_base() IS
    'What ids of this pass begin with.';

CREATE FUNCTION public.pg_llm_tape(detail boolean DEFAULT true, OUT id bigint, OUT "position" integer, OUT name text, OUT inputs bigint[], OUT output bigint, OUT extra jsonb)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape';
COMMENT ON FUNCTION public.pg_llm_tape(boolean) IS
    'The recorded ops of this session, newest first; extra only with detail.';

CREATE FUNCTION public.pg_llm_tape_tensors(payload boolean DEFAULT false, OUT id bigint, OUT shape integer[], OUT requires_grad boolean, OUT norm double precision, OUT grad_norm double precision, OUT data public.tensor, OUT grad public.tensor)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_tensors';
COMMENT ON FUNCTION public.pg_llm_tape_tensors(boolean) IS
    'The values of the recorded pass; their numbers with payload, where pg_llm.record = full kept them.';

CREATE FUNCTION public.pg_llm_tape_params(OUT model text, OUT name text, OUT id bigint)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_params';
COMMENT ON FUNCTION public.pg_llm_tape_params() IS
    'The parameters of the recorded pass.';

CREATE FUNCTION public.pg_llm_backward_begin(start_id bigint, scale double precision) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_backward_begin';
COMMENT ON FUNCTION public.pg_llm_backward_begin(bigint, double precision) IS
    'Seeds the gradient of a recorded number (NULL: the newest) with scale (NULL: 1).';

CREATE FUNCTION public.pg_llm_backward(id bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_backward';
COMMENT ON FUNCTION public.pg_llm_backward(bigint) IS
    'Differentiates one recorded op whose output has its whole gradient; frees what it held.';

CREATE FUNCTION public.pg_llm_autograd_track_tensor(t public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_autograd_track_tensor';
COMMENT ON FUNCTION public.pg_llm_autograd_track_tensor(public.tensor) IS
    'The same value as a leaf that wants a gradient, while recording.';

CREATE FUNCTION public.pg_llm_autograd_map_param(model text, name text, token_id integer, t public.tensor, shape integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_autograd_map_param';
COMMENT ON FUNCTION public.pg_llm_autograd_map_param(text, text, integer, public.tensor, integer[]) IS
    'The same value in that shape as a leaf known to the tape as that parameter, while recording.';

CREATE FUNCTION public.pg_llm_tensor_id(t public.tensor) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_tensor_id';
COMMENT ON FUNCTION public.pg_llm_tensor_id(public.tensor) IS
    'The id of a value of the recorded pass, NULL for any other.';

CREATE FUNCTION public.pg_llm_grad(t public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_grad';
COMMENT ON FUNCTION public.pg_llm_grad(public.tensor) IS
    'The gradient of a value of the recorded pass, NULL when there is none.';

CREATE FUNCTION public.pg_llm_grad_by_id(id bigint) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_grad_by_id';
COMMENT ON FUNCTION public.pg_llm_grad_by_id(bigint) IS
    'The gradient of a value by its id, NULL when there is none.';

