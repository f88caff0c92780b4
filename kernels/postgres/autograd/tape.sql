-- Autograd: recording, the tape, the backward pass, leaves and their gradients.

CREATE FUNCTION public.pg_llm_recording()
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_recording';
COMMENT ON FUNCTION public.pg_llm_recording() IS 'Whether this session records its ops on the tape.';

CREATE FUNCTION public.pg_llm_autograd_enabled()
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_recording';
COMMENT ON FUNCTION public.pg_llm_autograd_enabled() IS 'Whether this session records its ops on the tape.';

CREATE FUNCTION public.pg_llm_set_recording(flag boolean, is_local boolean DEFAULT false)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_set_recording';
COMMENT ON FUNCTION public.pg_llm_set_recording(boolean, boolean) IS
    'Sets pg_llm.autograd for the session, or like SET LOCAL for the transaction; a rollback restores the old value.';

CREATE FUNCTION public.pg_llm_pass_begin(seed bigint, step bigint, micro_batch integer)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_pass_begin';
COMMENT ON FUNCTION public.pg_llm_pass_begin(bigint, bigint, integer) IS
    'Sets the random key of dropout for the rest of this transaction.';

CREATE FUNCTION public.pg_llm_tape_clear()
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tape_clear';
COMMENT ON FUNCTION public.pg_llm_tape_clear() IS 'Empties the tape.';

CREATE FUNCTION public.pg_llm_tape_quiet(quiet boolean)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tape_quiet';
COMMENT ON FUNCTION public.pg_llm_tape_quiet(boolean) IS
    'Whether recorded passes are not written to llm_tape, so that no norms need to be computed.';

CREATE FUNCTION public.pg_llm_tape_segment()
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_tape_segment';
COMMENT ON FUNCTION public.pg_llm_tape_segment() IS
    'Marks where a part of a recorded pass begins, such as a block of a model: with pg_llm.recompute_budget, what the '
    'backward pass needs of such parts is let go and computed again.';

CREATE FUNCTION public.pg_llm_tape_held()
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_tape_held';
COMMENT ON FUNCTION public.pg_llm_tape_held() IS
    'The bytes that the recorded pass holds for its backward pass, not counting parameters.';

CREATE FUNCTION public.pg_llm_tape_base(base bigint)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tape_set_base';
COMMENT ON FUNCTION public.pg_llm_tape_base(bigint) IS 'Sets the number that the ids of this pass start from.';

CREATE FUNCTION public.pg_llm_tape_base()
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tape_base';
COMMENT ON FUNCTION public.pg_llm_tape_base() IS 'The number that the ids of this pass start from.';

CREATE FUNCTION public.pg_llm_tape(
    detail boolean DEFAULT true, OUT id bigint, OUT "position" integer, OUT name text, OUT inputs bigint[],
    OUT output bigint, OUT extra jsonb
)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tape';
COMMENT ON FUNCTION public.pg_llm_tape(boolean) IS
    'The recorded ops of this session, newest first; the column extra is filled only with detail.';

CREATE FUNCTION public.pg_llm_tape_tensors(
    payload boolean DEFAULT false, OUT id bigint, OUT shape integer[], OUT requires_grad boolean,
    OUT norm double precision, OUT grad_norm double precision, OUT data public.tensor, OUT grad public.tensor
)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tape_tensors';
COMMENT ON FUNCTION public.pg_llm_tape_tensors(boolean) IS
    'The tensors of the recorded pass. With payload also their elements, if pg_llm.record = full kept them.';

CREATE FUNCTION public.pg_llm_tape_params(OUT model text, OUT name text, OUT id bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tape_params';
COMMENT ON FUNCTION public.pg_llm_tape_params() IS 'The parameters of the recorded pass.';

CREATE FUNCTION public.pg_llm_backward_begin(start_id bigint, scale double precision)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_backward_begin';
COMMENT ON FUNCTION public.pg_llm_backward_begin(bigint, double precision) IS
    'Starts the backward pass: sets the gradient of a recorded 0-d tensor (NULL: the newest) to scale (NULL: 1).';

CREATE FUNCTION public.pg_llm_backward(id bigint)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_backward';
COMMENT ON FUNCTION public.pg_llm_backward(bigint) IS
    'Differentiates one recorded op, once the gradient of its output is complete, and frees what the op held.';

CREATE FUNCTION public.pg_llm_autograd_track_tensor(t public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_autograd_track_tensor';
COMMENT ON FUNCTION public.pg_llm_autograd_track_tensor(public.tensor) IS
    'The same value; while recording, a leaf of the tape that receives a gradient.';

CREATE FUNCTION public.pg_llm_autograd_map_param(
    model text, name text, token_id integer, t public.tensor, shape integer[]
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_autograd_map_param';
COMMENT ON FUNCTION public.pg_llm_autograd_map_param(text, text, integer, public.tensor, integer[]) IS
    'The same value in the given shape; while recording, a leaf that the tape knows as the named parameter.';

CREATE FUNCTION public.pg_llm_tensor_id(t public.tensor)
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_id';
COMMENT ON FUNCTION public.pg_llm_tensor_id(public.tensor) IS
    'The id of a tensor of the recorded pass; NULL for any other tensor.';

CREATE FUNCTION public.pg_llm_grad(t public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_grad';
COMMENT ON FUNCTION public.pg_llm_grad(public.tensor) IS
    'The gradient of a tensor of the recorded pass; NULL if it has none.';

CREATE FUNCTION public.pg_llm_grad_by_id(id bigint)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_grad_by_id';
COMMENT ON FUNCTION public.pg_llm_grad_by_id(bigint) IS 'The gradient of the tensor with this id; NULL if it has none.';

CREATE FUNCTION public.pg_llm_param(model text, name text)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_param';
COMMENT ON FUNCTION public.pg_llm_param(text, text) IS
    'A parameter of the pinned version, with its parts joined; while recording, a leaf of the tape.';

-- An op of a user's, as two SQL functions.

CREATE FUNCTION public.pg_llm_apply(forward regprocedure, backward regprocedure, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_apply';
COMMENT ON FUNCTION public.pg_llm_apply(regprocedure, regprocedure, public.tensor) IS
    'Calls forward with the tensor; while recording, as one op of the tape, whose gradients '
    'backward(dout, x, y) computes as a tensor, or as tensor[].';

CREATE FUNCTION public.pg_llm_apply(forward regprocedure, backward regprocedure, x1 public.tensor, x2 public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_apply';
COMMENT ON FUNCTION public.pg_llm_apply(regprocedure, regprocedure, public.tensor, public.tensor) IS
    'Calls forward with the tensors; while recording, as one op of the tape, whose gradients '
    'backward(dout, x1, ..., x2, y) computes as tensor[].';

CREATE FUNCTION public.pg_llm_apply(
    forward regprocedure, backward regprocedure, x1 public.tensor, x2 public.tensor, x3 public.tensor
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_apply';
COMMENT ON FUNCTION public.pg_llm_apply(regprocedure, regprocedure, public.tensor, public.tensor, public.tensor) IS
    'Calls forward with the tensors; while recording, as one op of the tape, whose gradients '
    'backward(dout, x1, ..., x3, y) computes as tensor[].';

CREATE FUNCTION public.pg_llm_apply(
    forward regprocedure, backward regprocedure, x1 public.tensor, x2 public.tensor, x3 public.tensor, x4 public.tensor
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_apply';
COMMENT ON FUNCTION public.pg_llm_apply(
    regprocedure, regprocedure, public.tensor, public.tensor, public.tensor, public.tensor
) IS
    'Calls forward with the tensors; while recording, as one op of the tape, whose gradients '
    'backward(dout, x1, ..., x4, y) computes as tensor[].';

CREATE FUNCTION public.pg_llm_apply(
    forward regprocedure, backward regprocedure, x1 public.tensor, x2 public.tensor, x3 public.tensor,
    x4 public.tensor, x5 public.tensor
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_apply';
COMMENT ON FUNCTION public.pg_llm_apply(
    regprocedure, regprocedure, public.tensor, public.tensor, public.tensor, public.tensor, public.tensor
) IS
    'Calls forward with the tensors; while recording, as one op of the tape, whose gradients '
    'backward(dout, x1, ..., x5, y) computes as tensor[].';
