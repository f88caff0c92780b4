\echo Use "CREATE EXTENSION pg_llm" to load this file. \quit
-- The type tensor: input and output, casts, comparison, accessors, constructors, aggregates.

CREATE TYPE public.tensor;

CREATE FUNCTION public.pg_llm_tensor_in(cstring, oid, integer)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_in';
COMMENT ON FUNCTION public.pg_llm_tensor_in(cstring, oid, integer) IS 'text to tensor: [[1,2],[3,4]], a number, or {0,3}[] for a shape without elements';

CREATE FUNCTION public.pg_llm_tensor_out(public.tensor)
    RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_out';
COMMENT ON FUNCTION public.pg_llm_tensor_out(public.tensor) IS 'tensor to text';

CREATE FUNCTION public.pg_llm_tensor_recv(internal, oid, integer)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_recv';
COMMENT ON FUNCTION public.pg_llm_tensor_recv(internal, oid, integer) IS 'binary protocol to tensor';

CREATE FUNCTION public.pg_llm_tensor_send(public.tensor)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_send';
COMMENT ON FUNCTION public.pg_llm_tensor_send(public.tensor) IS 'tensor to binary protocol';

CREATE FUNCTION public.pg_llm_tensor_typmod_in(cstring[])
    RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_typmod_in';
COMMENT ON FUNCTION public.pg_llm_tensor_typmod_in(cstring[]) IS 'type modifier of tensor(n) or tensor(m,n)';

CREATE FUNCTION public.pg_llm_tensor_typmod_out(integer)
    RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_typmod_out';
COMMENT ON FUNCTION public.pg_llm_tensor_typmod_out(integer) IS 'text of a tensor type modifier';

-- Preferred within bytea's category: a literal without a cast is a tensor where a function also takes bytea.
CREATE TYPE public.tensor (
    INPUT = public.pg_llm_tensor_in,
    OUTPUT = public.pg_llm_tensor_out,
    RECEIVE = public.pg_llm_tensor_recv,
    SEND = public.pg_llm_tensor_send,
    TYPMOD_IN = public.pg_llm_tensor_typmod_in,
    TYPMOD_OUT = public.pg_llm_tensor_typmod_out,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = double,
    STORAGE = external,
    CATEGORY = 'U',
    PREFERRED = true
);
COMMENT ON TYPE public.tensor IS 'n-dimensional array of float32, row-major, with its shape in the value; text [[1,2],[3,4]], a bare number for 0 dimensions, {0,3}[] where lists do not show the shape of a tensor without elements';

-- Casts

CREATE FUNCTION public.tensor(public.tensor, integer, boolean)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_typmod_cast';
COMMENT ON FUNCTION public.tensor(public.tensor, integer, boolean) IS 'enforces the shape of tensor(n) and tensor(m,n)';
CREATE CAST (public.tensor AS public.tensor) WITH FUNCTION public.tensor(public.tensor, integer, boolean) AS IMPLICIT;
COMMENT ON CAST (public.tensor AS public.tensor) IS 'enforces the shape of tensor(n) and tensor(m,n)';

CREATE FUNCTION public.tensor(real[])
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_float4_array';
COMMENT ON FUNCTION public.tensor(real[]) IS 'tensor of the array''s shape';
CREATE CAST (real[] AS public.tensor) WITH FUNCTION public.tensor(real[]) AS ASSIGNMENT;
COMMENT ON CAST (real[] AS public.tensor) IS 'tensor of the array''s shape';

CREATE FUNCTION public.tensor(double precision[])
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_float8_array';
COMMENT ON FUNCTION public.tensor(double precision[]) IS 'tensor of the array''s shape, rounded to float32';
CREATE CAST (double precision[] AS public.tensor) WITH FUNCTION public.tensor(double precision[]) AS ASSIGNMENT;
COMMENT ON CAST (double precision[] AS public.tensor) IS 'tensor of the array''s shape, rounded to float32';

CREATE FUNCTION public.tensor(integer[])
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_int4_array';
COMMENT ON FUNCTION public.tensor(integer[]) IS 'tensor of the array''s shape, rounded to float32';
CREATE CAST (integer[] AS public.tensor) WITH FUNCTION public.tensor(integer[]) AS ASSIGNMENT;
COMMENT ON CAST (integer[] AS public.tensor) IS 'tensor of the array''s shape, rounded to float32';

CREATE FUNCTION public.tensor(smallint[])
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_int2_array';
COMMENT ON FUNCTION public.tensor(smallint[]) IS 'tensor of the array''s shape, rounded to float32';
CREATE CAST (smallint[] AS public.tensor) WITH FUNCTION public.tensor(smallint[]) AS ASSIGNMENT;
COMMENT ON CAST (smallint[] AS public.tensor) IS 'tensor of the array''s shape, rounded to float32';

CREATE FUNCTION public.tensor(bigint[])
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_int8_array';
COMMENT ON FUNCTION public.tensor(bigint[]) IS 'tensor of the array''s shape, rounded to float32';
CREATE CAST (bigint[] AS public.tensor) WITH FUNCTION public.tensor(bigint[]) AS ASSIGNMENT;
COMMENT ON CAST (bigint[] AS public.tensor) IS 'tensor of the array''s shape, rounded to float32';

CREATE FUNCTION public.tensor(numeric[])
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_numeric_array';
COMMENT ON FUNCTION public.tensor(numeric[]) IS 'tensor of the array''s shape, rounded to float32';
CREATE CAST (numeric[] AS public.tensor) WITH FUNCTION public.tensor(numeric[]) AS ASSIGNMENT;
COMMENT ON CAST (numeric[] AS public.tensor) IS 'tensor of the array''s shape, rounded to float32';

CREATE FUNCTION public.tensor(double precision)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_float8';
COMMENT ON FUNCTION public.tensor(double precision) IS '0-d tensor of one number';
CREATE CAST (double precision AS public.tensor) WITH FUNCTION public.tensor(double precision);
COMMENT ON CAST (double precision AS public.tensor) IS '0-d tensor of one number';

CREATE FUNCTION public.tensor(integer)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_int4';
COMMENT ON FUNCTION public.tensor(integer) IS '0-d tensor of one number';
CREATE CAST (integer AS public.tensor) WITH FUNCTION public.tensor(integer);
COMMENT ON CAST (integer AS public.tensor) IS '0-d tensor of one number';

CREATE FUNCTION public.tensor(numeric)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_numeric';
COMMENT ON FUNCTION public.tensor(numeric) IS '0-d tensor of one number';
CREATE CAST (numeric AS public.tensor) WITH FUNCTION public.tensor(numeric);
COMMENT ON CAST (numeric AS public.tensor) IS '0-d tensor of one number';

CREATE FUNCTION public.pg_llm_tensor_to_real_array(public.tensor)
    RETURNS real[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_to_float4_array';
COMMENT ON FUNCTION public.pg_llm_tensor_to_real_array(public.tensor) IS 'array of the tensor''s shape; a 0-d tensor gives one element';
CREATE CAST (public.tensor AS real[]) WITH FUNCTION public.pg_llm_tensor_to_real_array(public.tensor);
COMMENT ON CAST (public.tensor AS real[]) IS 'array of the tensor''s shape; a 0-d tensor gives one element';

CREATE FUNCTION public.pg_llm_tensor_to_double_array(public.tensor)
    RETURNS double precision[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_to_float8_array';
COMMENT ON FUNCTION public.pg_llm_tensor_to_double_array(public.tensor) IS 'array of the tensor''s shape; a 0-d tensor gives one element';
CREATE CAST (public.tensor AS double precision[]) WITH FUNCTION public.pg_llm_tensor_to_double_array(public.tensor);
COMMENT ON CAST (public.tensor AS double precision[]) IS 'array of the tensor''s shape; a 0-d tensor gives one element';

CREATE FUNCTION public.pg_llm_tensor_to_bytea(public.tensor)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_to_bytea';
COMMENT ON FUNCTION public.pg_llm_tensor_to_bytea(public.tensor) IS 'the elements as contiguous little-endian float32, without the shape';
CREATE CAST (public.tensor AS bytea) WITH FUNCTION public.pg_llm_tensor_to_bytea(public.tensor);
COMMENT ON CAST (public.tensor AS bytea) IS 'the elements as contiguous little-endian float32, without the shape';

CREATE FUNCTION public.pg_llm_item(public.tensor)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_item';
COMMENT ON FUNCTION public.pg_llm_item(public.tensor) IS 'the number in a tensor of one element';
CREATE CAST (public.tensor AS double precision) WITH FUNCTION public.pg_llm_item(public.tensor);
COMMENT ON CAST (public.tensor AS double precision) IS 'the number in a tensor of one element';

CREATE FUNCTION public.tensor(data bytea, shape integer[])
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_bytea';
COMMENT ON FUNCTION public.tensor(bytea, integer[]) IS 'tensor of a shape from contiguous little-endian float32';

-- Comparison

CREATE FUNCTION public.pg_llm_tensor_eq(public.tensor, public.tensor)
    RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_eq';
COMMENT ON FUNCTION public.pg_llm_tensor_eq(public.tensor, public.tensor) IS 'equal shapes and elements; NaN equals NaN, -0 equals 0';

CREATE FUNCTION public.pg_llm_tensor_ne(public.tensor, public.tensor)
    RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_ne';
COMMENT ON FUNCTION public.pg_llm_tensor_ne(public.tensor, public.tensor) IS 'different shapes or elements';

CREATE FUNCTION public.pg_llm_tensor_lt(public.tensor, public.tensor)
    RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_lt';
COMMENT ON FUNCTION public.pg_llm_tensor_lt(public.tensor, public.tensor) IS 'less, element by element';

CREATE FUNCTION public.pg_llm_tensor_le(public.tensor, public.tensor)
    RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_le';
COMMENT ON FUNCTION public.pg_llm_tensor_le(public.tensor, public.tensor) IS 'less or equal, element by element';

CREATE FUNCTION public.pg_llm_tensor_gt(public.tensor, public.tensor)
    RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_gt';
COMMENT ON FUNCTION public.pg_llm_tensor_gt(public.tensor, public.tensor) IS 'greater, element by element';

CREATE FUNCTION public.pg_llm_tensor_ge(public.tensor, public.tensor)
    RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_ge';
COMMENT ON FUNCTION public.pg_llm_tensor_ge(public.tensor, public.tensor) IS 'greater or equal, element by element';

CREATE FUNCTION public.pg_llm_tensor_cmp(public.tensor, public.tensor)
    RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_cmp';
COMMENT ON FUNCTION public.pg_llm_tensor_cmp(public.tensor, public.tensor) IS '-1, 0 or 1: order of two tensors';

CREATE FUNCTION public.pg_llm_tensor_hash(public.tensor)
    RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_hash';
COMMENT ON FUNCTION public.pg_llm_tensor_hash(public.tensor) IS 'hash of shape and elements';

CREATE FUNCTION public.pg_llm_tensor_hash_extended(public.tensor, bigint)
    RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_hash_extended';
COMMENT ON FUNCTION public.pg_llm_tensor_hash_extended(public.tensor, bigint) IS '64-bit hash of shape and elements, seeded';

CREATE OPERATOR public.= (
    LEFTARG = public.tensor,
    RIGHTARG = public.tensor,
    FUNCTION = public.pg_llm_tensor_eq,
    COMMUTATOR = OPERATOR(public.=),
    NEGATOR = OPERATOR(public.<>),
    RESTRICT = eqsel,
    JOIN = eqjoinsel,
    HASHES,
    MERGES
);
COMMENT ON OPERATOR public.= (public.tensor, public.tensor) IS 'equal shapes and elements; NaN equals NaN, -0 equals 0';

CREATE OPERATOR public.<> (
    LEFTARG = public.tensor,
    RIGHTARG = public.tensor,
    FUNCTION = public.pg_llm_tensor_ne,
    COMMUTATOR = OPERATOR(public.<>),
    NEGATOR = OPERATOR(public.=),
    RESTRICT = neqsel,
    JOIN = neqjoinsel
);
COMMENT ON OPERATOR public.<> (public.tensor, public.tensor) IS 'different shapes or elements';

CREATE OPERATOR public.< (
    LEFTARG = public.tensor,
    RIGHTARG = public.tensor,
    FUNCTION = public.pg_llm_tensor_lt,
    COMMUTATOR = OPERATOR(public.>),
    NEGATOR = OPERATOR(public.>=),
    RESTRICT = scalarltsel,
    JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR public.< (public.tensor, public.tensor) IS 'less, element by element';

CREATE OPERATOR public.<= (
    LEFTARG = public.tensor,
    RIGHTARG = public.tensor,
    FUNCTION = public.pg_llm_tensor_le,
    COMMUTATOR = OPERATOR(public.>=),
    NEGATOR = OPERATOR(public.>),
    RESTRICT = scalarlesel,
    JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR public.<= (public.tensor, public.tensor) IS 'less or equal, element by element';

CREATE OPERATOR public.> (
    LEFTARG = public.tensor,
    RIGHTARG = public.tensor,
    FUNCTION = public.pg_llm_tensor_gt,
    COMMUTATOR = OPERATOR(public.<),
    NEGATOR = OPERATOR(public.<=),
    RESTRICT = scalargtsel,
    JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR public.> (public.tensor, public.tensor) IS 'greater, element by element';

CREATE OPERATOR public.>= (
    LEFTARG = public.tensor,
    RIGHTARG = public.tensor,
    FUNCTION = public.pg_llm_tensor_ge,
    COMMUTATOR = OPERATOR(public.<=),
    NEGATOR = OPERATOR(public.<),
    RESTRICT = scalargesel,
    JOIN = scalargejoinsel
);
COMMENT ON OPERATOR public.>= (public.tensor, public.tensor) IS 'greater or equal, element by element';

CREATE OPERATOR CLASS public.tensor_ops DEFAULT FOR TYPE public.tensor USING btree AS
    OPERATOR 1 public.<,
    OPERATOR 2 public.<=,
    OPERATOR 3 public.=,
    OPERATOR 4 public.>=,
    OPERATOR 5 public.>,
    FUNCTION 1 public.pg_llm_tensor_cmp(public.tensor, public.tensor);
COMMENT ON OPERATOR CLASS public.tensor_ops USING btree IS 'order of tensors: elements, then shape';

CREATE OPERATOR CLASS public.tensor_ops DEFAULT FOR TYPE public.tensor USING hash AS
    OPERATOR 1 public.=,
    FUNCTION 1 public.pg_llm_tensor_hash(public.tensor),
    FUNCTION 2 public.pg_llm_tensor_hash_extended(public.tensor, bigint);
COMMENT ON OPERATOR CLASS public.tensor_ops USING hash IS 'hashes of tensors';

-- Accessors and constructors

CREATE FUNCTION public.shape(x public.tensor)
    RETURNS integer[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_shape';
COMMENT ON FUNCTION public.shape(public.tensor) IS 'dimensions of a tensor; empty for a single number';

CREATE FUNCTION public.ndims(x public.tensor)
    RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_ndims';
COMMENT ON FUNCTION public.ndims(public.tensor) IS 'number of dimensions of a tensor';

CREATE FUNCTION public.norm(x public.tensor)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_norm';
COMMENT ON FUNCTION public.norm(public.tensor) IS 'square root of the sum of squares of all elements';

CREATE FUNCTION public.pg_llm_zeros_like(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_zeros_like';
COMMENT ON FUNCTION public.pg_llm_zeros_like(public.tensor) IS 'zeros in the shape of x';

CREATE FUNCTION public.pg_llm_ones_like(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_ones_like';
COMMENT ON FUNCTION public.pg_llm_ones_like(public.tensor) IS 'ones in the shape of x';

CREATE FUNCTION public.pg_llm_full(shape integer[], value double precision)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_full';
COMMENT ON FUNCTION public.pg_llm_full(integer[], double precision) IS 'a tensor of a shape with all elements equal';

CREATE FUNCTION public.pg_llm_normal(shape integer[], mean double precision, std double precision, seed bigint, stream bigint)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_normal';
COMMENT ON FUNCTION public.pg_llm_normal(integer[], double precision, double precision, bigint, bigint) IS 'normally distributed numbers; element i depends on (seed, stream, i) only';

-- Aggregates

CREATE FUNCTION public.pg_llm_sum_accum(internal, public.tensor)
    RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_sum_accum';
COMMENT ON FUNCTION public.pg_llm_sum_accum(internal, public.tensor) IS 'transition function of sum(tensor) and avg(tensor)';

CREATE FUNCTION public.pg_llm_sum_final(internal)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_sum_final';
COMMENT ON FUNCTION public.pg_llm_sum_final(internal) IS 'final function of sum(tensor)';

CREATE FUNCTION public.pg_llm_avg_final(internal)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_avg_final';
COMMENT ON FUNCTION public.pg_llm_avg_final(internal) IS 'final function of avg(tensor)';

CREATE AGGREGATE public.sum(public.tensor) (
    SFUNC = public.pg_llm_sum_accum,
    STYPE = internal,
    FINALFUNC = public.pg_llm_sum_final,
    PARALLEL = safe
);
COMMENT ON AGGREGATE public.sum(public.tensor) IS 'elementwise sum of tensors of one shape';

CREATE AGGREGATE public.avg(public.tensor) (
    SFUNC = public.pg_llm_sum_accum,
    STYPE = internal,
    FINALFUNC = public.pg_llm_avg_final,
    PARALLEL = safe
);
COMMENT ON AGGREGATE public.avg(public.tensor) IS 'elementwise mean of tensors of one shape';
-- Differentiable ops, their backward functions, and the operators.
--
-- Ops are VOLATILE: while a pass is recorded, each call is put on the tape, so it must run exactly once. Hence they
-- cannot be used in generated columns or indexes.

CREATE FUNCTION public.pg_llm_embedding(w public.tensor, ids integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_embedding';
COMMENT ON FUNCTION public.pg_llm_embedding(public.tensor, integer[]) IS
    'Rows of w [rows, d] at ids: [ids..., d]. 22003: an id is out of range.';

CREATE FUNCTION public.pg_llm_embedding_backward(dout public.tensor, w public.tensor, ids integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_embedding_backward';
COMMENT ON FUNCTION public.pg_llm_embedding_backward(public.tensor, public.tensor, integer[]) IS
    'Gradient of pg_llm_embedding from that of its output.';

CREATE FUNCTION public.pg_llm_linear(x public.tensor, w public.tensor, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_linear';
COMMENT ON FUNCTION public.pg_llm_linear(public.tensor, public.tensor, public.tensor) IS
    'x [..., i] @ w [i, o] + b [o].';

CREATE FUNCTION public.pg_llm_linear_backward(dout public.tensor, x public.tensor, w public.tensor, b public.tensor, OUT dx public.tensor, OUT dw public.tensor, OUT db public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_linear_backward';
COMMENT ON FUNCTION public.pg_llm_linear_backward(public.tensor, public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_linear from that of its output: dx, dw, db.';

CREATE FUNCTION public.pg_llm_linear(x public.tensor, w public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_linear_nobias';
COMMENT ON FUNCTION public.pg_llm_linear(public.tensor, public.tensor) IS
    'x [..., i] @ w [i, o].';

CREATE FUNCTION public.pg_llm_linear_backward(dout public.tensor, x public.tensor, w public.tensor, OUT dx public.tensor, OUT dw public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_linear_nobias_backward';
COMMENT ON FUNCTION public.pg_llm_linear_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_linear from that of its output: dx, dw.';

CREATE FUNCTION public.pg_llm_matmul(a public.tensor, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_matmul';
COMMENT ON FUNCTION public.pg_llm_matmul(public.tensor, public.tensor) IS
    'Matrix product as NumPy''s matmul: batched over leading axes, which broadcast.';

CREATE FUNCTION public.pg_llm_matmul_backward(dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_matmul_backward';
COMMENT ON FUNCTION public.pg_llm_matmul_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_matmul from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_add(a public.tensor, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_add';
COMMENT ON FUNCTION public.pg_llm_add(public.tensor, public.tensor) IS
    'a + b, element by element, with NumPy''s broadcasting.';

CREATE FUNCTION public.pg_llm_add_backward(dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_add_backward';
COMMENT ON FUNCTION public.pg_llm_add_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_add from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_sub(a public.tensor, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_sub';
COMMENT ON FUNCTION public.pg_llm_sub(public.tensor, public.tensor) IS
    'a - b, element by element, with NumPy''s broadcasting.';

CREATE FUNCTION public.pg_llm_sub_backward(dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_sub_backward';
COMMENT ON FUNCTION public.pg_llm_sub_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_sub from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_mul(a public.tensor, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_mul';
COMMENT ON FUNCTION public.pg_llm_mul(public.tensor, public.tensor) IS
    'a * b, element by element, with NumPy''s broadcasting.';

CREATE FUNCTION public.pg_llm_mul_backward(dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_mul_backward';
COMMENT ON FUNCTION public.pg_llm_mul_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_mul from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_div(a public.tensor, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_div';
COMMENT ON FUNCTION public.pg_llm_div(public.tensor, public.tensor) IS
    'a / b, element by element, with NumPy''s broadcasting.';

CREATE FUNCTION public.pg_llm_div_backward(dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_div_backward';
COMMENT ON FUNCTION public.pg_llm_div_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_div from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_neg(a public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_neg';
COMMENT ON FUNCTION public.pg_llm_neg(public.tensor) IS
    '-a.';

CREATE FUNCTION public.pg_llm_neg_backward(dout public.tensor, a public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_neg_backward';
COMMENT ON FUNCTION public.pg_llm_neg_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_neg from that of its output.';

CREATE FUNCTION public.pg_llm_layernorm(x public.tensor, gamma public.tensor, beta public.tensor, eps double precision DEFAULT 1e-5) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_layernorm';
COMMENT ON FUNCTION public.pg_llm_layernorm(public.tensor, public.tensor, public.tensor, double precision) IS
    '(x - mean) / sqrt(variance + eps) * gamma + beta per row of the last axis (Ba et al. 2016).';

CREATE FUNCTION public.pg_llm_layernorm_backward(dout public.tensor, x public.tensor, gamma public.tensor, beta public.tensor, eps double precision DEFAULT 1e-5, OUT dx public.tensor, OUT dgamma public.tensor, OUT dbeta public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_layernorm_backward';
COMMENT ON FUNCTION public.pg_llm_layernorm_backward(public.tensor, public.tensor, public.tensor, public.tensor, double precision) IS
    'Gradients of pg_llm_layernorm from that of its output: dx, dgamma, dbeta.';

CREATE FUNCTION public.pg_llm_rmsnorm(x public.tensor, eps double precision DEFAULT 1e-5) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_rmsnorm';
COMMENT ON FUNCTION public.pg_llm_rmsnorm(public.tensor, double precision) IS
    'x / sqrt(mean(x^2) + eps) per row of the last axis, without a gain (Zhang & Sennrich 2019).';

CREATE FUNCTION public.pg_llm_rmsnorm_backward(dout public.tensor, x public.tensor, eps double precision DEFAULT 1e-5) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_rmsnorm_backward';
COMMENT ON FUNCTION public.pg_llm_rmsnorm_backward(public.tensor, public.tensor, double precision) IS
    'Gradient of pg_llm_rmsnorm from that of its output.';

CREATE FUNCTION public.pg_llm_gelu(x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_gelu';
COMMENT ON FUNCTION public.pg_llm_gelu(public.tensor) IS
    'GELU in the tanh form, as GPT-2 has it (Hendrycks & Gimpel 2016).';

CREATE FUNCTION public.pg_llm_gelu_backward(dout public.tensor, x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_gelu_backward';
COMMENT ON FUNCTION public.pg_llm_gelu_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_gelu from that of its output.';

CREATE FUNCTION public.pg_llm_gelu_exact(x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_gelu_exact';
COMMENT ON FUNCTION public.pg_llm_gelu_exact(public.tensor) IS
    'Exact GELU, x times Phi(x), the normal distribution function (Hendrycks & Gimpel 2016).';

CREATE FUNCTION public.pg_llm_gelu_exact_backward(dout public.tensor, x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_gelu_exact_backward';
COMMENT ON FUNCTION public.pg_llm_gelu_exact_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_gelu_exact from that of its output.';

CREATE FUNCTION public.pg_llm_activation(x public.tensor, name text) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_activation';
COMMENT ON FUNCTION public.pg_llm_activation(public.tensor, text) IS
    'The activation with this name in Hugging Face configurations: gelu_new, gelu_pytorch_tanh and gelu_fast are pg_llm_gelu, gelu and gelu_python are pg_llm_gelu_exact, relu is pg_llm_relu. 22023: any other name.';

CREATE FUNCTION public.pg_llm_activation_backward(dout public.tensor, x public.tensor, name text) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_activation_backward';
COMMENT ON FUNCTION public.pg_llm_activation_backward(public.tensor, public.tensor, text) IS
    'Gradient of pg_llm_activation from that of its output.';

CREATE FUNCTION public.pg_llm_relu(x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_relu';
COMMENT ON FUNCTION public.pg_llm_relu(public.tensor) IS
    'max(x, 0).';

CREATE FUNCTION public.pg_llm_relu_backward(dout public.tensor, x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_relu_backward';
COMMENT ON FUNCTION public.pg_llm_relu_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_relu from that of its output.';

CREATE FUNCTION public.pg_llm_softmax(x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_softmax';
COMMENT ON FUNCTION public.pg_llm_softmax(public.tensor) IS
    'Softmax per row of the last axis.';

CREATE FUNCTION public.pg_llm_softmax_backward(dout public.tensor, x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_softmax_backward';
COMMENT ON FUNCTION public.pg_llm_softmax_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_softmax from that of its output.';

CREATE FUNCTION public.pg_llm_dropout(x public.tensor, p double precision, training boolean DEFAULT false, site text DEFAULT '') RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_dropout';
COMMENT ON FUNCTION public.pg_llm_dropout(public.tensor, double precision, boolean, text) IS
    'Inverted dropout when training, otherwise x. The mask depends on the pass (pg_llm_pass_begin), the site and the element.';

CREATE FUNCTION public.pg_llm_dropout_backward(dout public.tensor, x public.tensor, p double precision, training boolean DEFAULT false, site text DEFAULT '') RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_dropout_backward';
COMMENT ON FUNCTION public.pg_llm_dropout_backward(public.tensor, public.tensor, double precision, boolean, text) IS
    'Gradient of pg_llm_dropout from that of its output.';

CREATE FUNCTION public.pg_llm_causal_attention(qkv public.tensor, n_head integer, dropout_p double precision DEFAULT 0, training boolean DEFAULT false, site text DEFAULT '') RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_causal_attention_qkv';
COMMENT ON FUNCTION public.pg_llm_causal_attention(public.tensor, integer, double precision, boolean, text) IS
    'Causal multi-head attention over qkv [..., t, 3 d] = [q | k | v] per token: [..., t, d], scores scaled by 1/sqrt(d / n_head).';

CREATE FUNCTION public.pg_llm_causal_attention_backward(dout public.tensor, qkv public.tensor, n_head integer, dropout_p double precision DEFAULT 0, training boolean DEFAULT false, site text DEFAULT '') RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_causal_attention_qkv_backward';
COMMENT ON FUNCTION public.pg_llm_causal_attention_backward(public.tensor, public.tensor, integer, double precision, boolean, text) IS
    'Gradient of pg_llm_causal_attention from that of its output.';

CREATE FUNCTION public.pg_llm_causal_attention(q public.tensor, k public.tensor, v public.tensor, n_head integer, dropout_p double precision DEFAULT 0, training boolean DEFAULT false, site text DEFAULT '') RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_causal_attention';
COMMENT ON FUNCTION public.pg_llm_causal_attention(public.tensor, public.tensor, public.tensor, integer, double precision, boolean, text) IS
    'Causal multi-head attention over q, k, v [..., t, d].';

CREATE FUNCTION public.pg_llm_causal_attention_backward(dout public.tensor, q public.tensor, k public.tensor, v public.tensor, n_head integer, dropout_p double precision DEFAULT 0, training boolean DEFAULT false, site text DEFAULT '', OUT dq public.tensor, OUT dk public.tensor, OUT dv public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_causal_attention_backward';
COMMENT ON FUNCTION public.pg_llm_causal_attention_backward(public.tensor, public.tensor, public.tensor, public.tensor, integer, double precision, boolean, text) IS
    'Gradients of pg_llm_causal_attention from that of its output: dq, dk, dv.';

CREATE FUNCTION public.pg_llm_lm_head(x public.tensor, w public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_lm_head';
COMMENT ON FUNCTION public.pg_llm_lm_head(public.tensor, public.tensor) IS
    'Logits x [..., d] @ w [vocab, d] transposed: [..., vocab].';

CREATE FUNCTION public.pg_llm_lm_head_backward(dout public.tensor, x public.tensor, w public.tensor, OUT dx public.tensor, OUT dw public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_lm_head_backward';
COMMENT ON FUNCTION public.pg_llm_lm_head_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_lm_head from that of its output: dx, dw.';

CREATE FUNCTION public.pg_llm_lm_head_loss(x public.tensor, w public.tensor, targets integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_lm_head_loss';
COMMENT ON FUNCTION public.pg_llm_lm_head_loss(public.tensor, public.tensor, integer[]) IS
    'Mean cross-entropy of pg_llm_lm_head(x, w) against targets (below 0: ignored), computed without storing all logits.';

CREATE FUNCTION public.pg_llm_lm_head_loss_backward(dout public.tensor, x public.tensor, w public.tensor, targets integer[], OUT dx public.tensor, OUT dw public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_lm_head_loss_backward';
COMMENT ON FUNCTION public.pg_llm_lm_head_loss_backward(public.tensor, public.tensor, public.tensor, integer[]) IS
    'Gradients of pg_llm_lm_head_loss from that of its output: dx, dw.';

CREATE FUNCTION public.pg_llm_cross_entropy(logits public.tensor, target integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_cross_entropy';
COMMENT ON FUNCTION public.pg_llm_cross_entropy(public.tensor, integer[]) IS
    'Mean over targets (below 0: ignored) of -log softmax(logits)[target]; logits [..., vocab].';

CREATE FUNCTION public.pg_llm_cross_entropy_backward(dout public.tensor, logits public.tensor, target integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_cross_entropy_backward';
COMMENT ON FUNCTION public.pg_llm_cross_entropy_backward(public.tensor, public.tensor, integer[]) IS
    'Gradient of pg_llm_cross_entropy from that of its output.';

CREATE FUNCTION public.pg_llm_cross_entropy(logits public.tensor, target integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_cross_entropy_row';
COMMENT ON FUNCTION public.pg_llm_cross_entropy(public.tensor, integer) IS
    '-log softmax(logits)[target] of one row of logits.';

CREATE FUNCTION public.pg_llm_transpose(x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_transpose';
COMMENT ON FUNCTION public.pg_llm_transpose(public.tensor) IS
    'x with its last two axes swapped.';

CREATE FUNCTION public.pg_llm_transpose_backward(dout public.tensor, x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_transpose_backward';
COMMENT ON FUNCTION public.pg_llm_transpose_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_transpose from that of its output.';

CREATE FUNCTION public.pg_llm_transpose(src public.tensor, rows integer, cols integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_transpose_checked';
COMMENT ON FUNCTION public.pg_llm_transpose(public.tensor, integer, integer) IS
    'The transpose of a matrix [rows, cols].';

CREATE FUNCTION public.pg_llm_reshape(x public.tensor, shape integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_reshape';
COMMENT ON FUNCTION public.pg_llm_reshape(public.tensor, integer[]) IS
    'The same elements in another shape; one size may be -1 and is then inferred.';

CREATE FUNCTION public.pg_llm_reshape_backward(dout public.tensor, x public.tensor, shape integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_reshape_backward';
COMMENT ON FUNCTION public.pg_llm_reshape_backward(public.tensor, public.tensor, integer[]) IS
    'Gradient of pg_llm_reshape from that of its output.';

CREATE FUNCTION public.pg_llm_slice(x public.tensor, axis integer, start integer, stop integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_slice';
COMMENT ON FUNCTION public.pg_llm_slice(public.tensor, integer, integer, integer) IS
    'x[start:stop] along an axis; negative and out-of-range bounds as in Python.';

CREATE FUNCTION public.pg_llm_slice_backward(dout public.tensor, x public.tensor, axis integer, start integer, stop integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_slice_backward';
COMMENT ON FUNCTION public.pg_llm_slice_backward(public.tensor, public.tensor, integer, integer, integer) IS
    'Gradient of pg_llm_slice from that of its output.';

CREATE FUNCTION public.pg_llm_concat(a public.tensor, b public.tensor, axis integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_concat';
COMMENT ON FUNCTION public.pg_llm_concat(public.tensor, public.tensor, integer) IS
    'a and b joined along an axis.';

CREATE FUNCTION public.pg_llm_concat_backward(dout public.tensor, a public.tensor, b public.tensor, axis integer, OUT da public.tensor, OUT db public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_concat_backward';
COMMENT ON FUNCTION public.pg_llm_concat_backward(public.tensor, public.tensor, public.tensor, integer) IS
    'Gradients of pg_llm_concat from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_last(x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_last';
COMMENT ON FUNCTION public.pg_llm_last(public.tensor) IS
    'The last position: x [..., t, d] to [..., 1, d].';

CREATE FUNCTION public.pg_llm_last_backward(dout public.tensor, x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_last_backward';
COMMENT ON FUNCTION public.pg_llm_last_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_last from that of its output.';

CREATE FUNCTION public.pg_llm_sum(x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_sum';
COMMENT ON FUNCTION public.pg_llm_sum(public.tensor) IS
    'Sum of all elements, 0-d.';

CREATE FUNCTION public.pg_llm_sum_backward(dout public.tensor, x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_sum_backward';
COMMENT ON FUNCTION public.pg_llm_sum_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_sum from that of its output.';

CREATE FUNCTION public.pg_llm_mean(x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_mean';
COMMENT ON FUNCTION public.pg_llm_mean(public.tensor) IS
    'Mean of all elements, 0-d.';

CREATE FUNCTION public.pg_llm_mean_backward(dout public.tensor, x public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_mean_backward';
COMMENT ON FUNCTION public.pg_llm_mean_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_mean from that of its output.';

CREATE FUNCTION public.pg_llm_attention(x public.tensor, w_qkv public.tensor, b_qkv public.tensor, w_o public.tensor, b_o public.tensor, n_head integer, t integer, d integer) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_attention';
COMMENT ON FUNCTION public.pg_llm_attention(public.tensor, public.tensor, public.tensor, public.tensor, public.tensor, integer, integer, integer) IS
    'A complete attention layer: projection to q, k, v, causal attention, output projection; x [..., t, d], w_qkv [d, 3 d], w_o [d, d].';

CREATE FUNCTION public.pg_llm_attention_backward(dout public.tensor, x public.tensor, w_qkv public.tensor, b_qkv public.tensor, w_o public.tensor, b_o public.tensor, n_head integer, t integer, d integer, OUT dx public.tensor, OUT dw_qkv public.tensor, OUT db_qkv public.tensor, OUT dw_o public.tensor, OUT db_o public.tensor) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_attention_backward';
COMMENT ON FUNCTION public.pg_llm_attention_backward(public.tensor, public.tensor, public.tensor, public.tensor, public.tensor, public.tensor, integer, integer, integer) IS
    'Gradients of pg_llm_attention from that of its output.';

CREATE FUNCTION public.pg_llm_add_number(a public.tensor, b double precision) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_add_number';
COMMENT ON FUNCTION public.pg_llm_add_number(public.tensor, double precision) IS
    'a + b, element by element; b is a number.';

CREATE FUNCTION public.pg_llm_number_add(a double precision, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_number_add';
COMMENT ON FUNCTION public.pg_llm_number_add(double precision, public.tensor) IS
    'a + b, element by element; a is a number.';

CREATE FUNCTION public.pg_llm_sub_number(a public.tensor, b double precision) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_sub_number';
COMMENT ON FUNCTION public.pg_llm_sub_number(public.tensor, double precision) IS
    'a - b, element by element; b is a number.';

CREATE FUNCTION public.pg_llm_number_sub(a double precision, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_number_sub';
COMMENT ON FUNCTION public.pg_llm_number_sub(double precision, public.tensor) IS
    'a - b, element by element; a is a number.';

CREATE FUNCTION public.pg_llm_mul_number(a public.tensor, b double precision) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_mul_number';
COMMENT ON FUNCTION public.pg_llm_mul_number(public.tensor, double precision) IS
    'a * b, element by element; b is a number.';

CREATE FUNCTION public.pg_llm_number_mul(a double precision, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_number_mul';
COMMENT ON FUNCTION public.pg_llm_number_mul(double precision, public.tensor) IS
    'a * b, element by element; a is a number.';

CREATE FUNCTION public.pg_llm_div_number(a public.tensor, b double precision) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_div_number';
COMMENT ON FUNCTION public.pg_llm_div_number(public.tensor, double precision) IS
    'a / b, element by element; b is a number.';

CREATE FUNCTION public.pg_llm_number_div(a double precision, b public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_number_div';
COMMENT ON FUNCTION public.pg_llm_number_div(double precision, public.tensor) IS
    'a / b, element by element; a is a number.';

CREATE OPERATOR public.+ (LEFTARG = public.tensor, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_add);
CREATE OPERATOR public.+ (LEFTARG = public.tensor, RIGHTARG = double precision, FUNCTION = public.pg_llm_add_number);
CREATE OPERATOR public.+ (LEFTARG = double precision, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_number_add);
CREATE OPERATOR public.- (LEFTARG = public.tensor, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_sub);
CREATE OPERATOR public.- (LEFTARG = public.tensor, RIGHTARG = double precision, FUNCTION = public.pg_llm_sub_number);
CREATE OPERATOR public.- (LEFTARG = double precision, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_number_sub);
CREATE OPERATOR public.* (LEFTARG = public.tensor, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_mul);
CREATE OPERATOR public.* (LEFTARG = public.tensor, RIGHTARG = double precision, FUNCTION = public.pg_llm_mul_number);
CREATE OPERATOR public.* (LEFTARG = double precision, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_number_mul);
CREATE OPERATOR public./ (LEFTARG = public.tensor, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_div);
CREATE OPERATOR public./ (LEFTARG = public.tensor, RIGHTARG = double precision, FUNCTION = public.pg_llm_div_number);
CREATE OPERATOR public./ (LEFTARG = double precision, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_number_div);
CREATE OPERATOR public.@ (LEFTARG = public.tensor, RIGHTARG = public.tensor, FUNCTION = public.pg_llm_matmul);
CREATE OPERATOR public.- (RIGHTARG = public.tensor, FUNCTION = public.pg_llm_neg);

COMMENT ON OPERATOR public.+ (public.tensor, public.tensor) IS 'elementwise sum, broadcast as NumPy does';
COMMENT ON OPERATOR public.+ (public.tensor, double precision) IS 'elementwise sum with a number';
COMMENT ON OPERATOR public.+ (double precision, public.tensor) IS 'elementwise sum of a number and a tensor';
COMMENT ON OPERATOR public.- (public.tensor, public.tensor) IS 'elementwise difference, broadcast as NumPy does';
COMMENT ON OPERATOR public.- (public.tensor, double precision) IS 'elementwise difference with a number';
COMMENT ON OPERATOR public.- (double precision, public.tensor) IS 'elementwise difference of a number and a tensor';
COMMENT ON OPERATOR public.* (public.tensor, public.tensor) IS 'elementwise product, broadcast as NumPy does';
COMMENT ON OPERATOR public.* (public.tensor, double precision) IS 'elementwise product with a number';
COMMENT ON OPERATOR public.* (double precision, public.tensor) IS 'elementwise product of a number and a tensor';
COMMENT ON OPERATOR public./ (public.tensor, public.tensor) IS 'elementwise quotient, broadcast as NumPy does';
COMMENT ON OPERATOR public./ (public.tensor, double precision) IS 'elementwise quotient with a number';
COMMENT ON OPERATOR public./ (double precision, public.tensor) IS 'elementwise quotient of a number and a tensor';
COMMENT ON OPERATOR public.@ (public.tensor, public.tensor) IS 'matrix product, batched over leading axes';
COMMENT ON OPERATOR public.- (NONE, public.tensor) IS 'negation';

CREATE FUNCTION public.pg_llm_ops(OUT name text, OUT arguments text) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_ops';
COMMENT ON FUNCTION public.pg_llm_ops() IS
    'The op table: names on the tape, and kinds of arguments (t tensor, i int[], n integer, r number, b boolean, s text).';
-- Autograd: recording, the tape, the backward pass, leaves and their gradients.

CREATE FUNCTION public.pg_llm_recording() RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_recording';
COMMENT ON FUNCTION public.pg_llm_recording() IS
    'Whether this session records its ops on the tape.';

CREATE FUNCTION public.pg_llm_autograd_enabled() RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_recording';
COMMENT ON FUNCTION public.pg_llm_autograd_enabled() IS
    'Whether this session records its ops on the tape.';

CREATE FUNCTION public.pg_llm_set_recording(flag boolean, is_local boolean DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_set_recording';
COMMENT ON FUNCTION public.pg_llm_set_recording(boolean, boolean) IS
    'Sets pg_llm.autograd for the session, or like SET LOCAL for the transaction; a rollback restores the old value.';

CREATE FUNCTION public.pg_llm_callers_search_path() RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_callers_search_path';
COMMENT ON FUNCTION public.pg_llm_callers_search_path() IS
    'The search path of the user''s SQL: the one in effect when the outermost running llm-sql function was called.';

CREATE FUNCTION public.pg_llm_use_callers_search_path() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_use_callers_search_path';
COMMENT ON FUNCTION public.pg_llm_use_callers_search_path() IS
    'Sets search_path to pg_llm_callers_search_path() until the calling llm-sql function ends, so that the user''s SQL finds its names.';

CREATE FUNCTION public.pg_llm_require_autocommit(procedure text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_require_autocommit';
COMMENT ON FUNCTION public.pg_llm_require_autocommit(text) IS
    'Raises 2D000 with a hint inside a transaction block, where a procedure that commits cannot run.';

CREATE FUNCTION public.pg_llm_pass_begin(seed bigint, step bigint, micro_batch integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_pass_begin';
COMMENT ON FUNCTION public.pg_llm_pass_begin(bigint, bigint, integer) IS
    'Sets the random key of dropout for the rest of this transaction.';

CREATE FUNCTION public.pg_llm_tape_clear() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_clear';
COMMENT ON FUNCTION public.pg_llm_tape_clear() IS
    'Empties the tape.';

CREATE FUNCTION public.pg_llm_tape_quiet(quiet boolean) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_quiet';
COMMENT ON FUNCTION public.pg_llm_tape_quiet(boolean) IS
    'Whether recorded passes are not written to llm_tape, so that no norms need to be computed.';

CREATE FUNCTION public.pg_llm_tape_base(base bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_set_base';
COMMENT ON FUNCTION public.pg_llm_tape_base(bigint) IS
    'Sets the number that the ids of this pass start from.';

CREATE FUNCTION public.pg_llm_tape_base() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_base';
COMMENT ON FUNCTION public.pg_llm_tape_base() IS
    'The number that the ids of this pass start from.';

CREATE FUNCTION public.pg_llm_tape(detail boolean DEFAULT true, OUT id bigint, OUT "position" integer, OUT name text, OUT inputs bigint[], OUT output bigint, OUT extra jsonb)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape';
COMMENT ON FUNCTION public.pg_llm_tape(boolean) IS
    'The recorded ops of this session, newest first; the column extra is filled only with detail.';

CREATE FUNCTION public.pg_llm_tape_tensors(payload boolean DEFAULT false, OUT id bigint, OUT shape integer[], OUT requires_grad boolean, OUT norm double precision, OUT grad_norm double precision, OUT data public.tensor, OUT grad public.tensor)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_tensors';
COMMENT ON FUNCTION public.pg_llm_tape_tensors(boolean) IS
    'The tensors of the recorded pass. With payload also their elements, if pg_llm.record = full kept them.';

CREATE FUNCTION public.pg_llm_tape_params(OUT model text, OUT name text, OUT id bigint)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_tape_params';
COMMENT ON FUNCTION public.pg_llm_tape_params() IS
    'The parameters of the recorded pass.';

CREATE FUNCTION public.pg_llm_backward_begin(start_id bigint, scale double precision) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_backward_begin';
COMMENT ON FUNCTION public.pg_llm_backward_begin(bigint, double precision) IS
    'Starts the backward pass: sets the gradient of a recorded 0-d tensor (NULL: the newest) to scale (NULL: 1).';

CREATE FUNCTION public.pg_llm_backward(id bigint) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_backward';
COMMENT ON FUNCTION public.pg_llm_backward(bigint) IS
    'Differentiates one recorded op, once the gradient of its output is complete, and frees what the op held.';

CREATE FUNCTION public.pg_llm_autograd_track_tensor(t public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_autograd_track_tensor';
COMMENT ON FUNCTION public.pg_llm_autograd_track_tensor(public.tensor) IS
    'The same value; while recording, a leaf of the tape that receives a gradient.';

CREATE FUNCTION public.pg_llm_autograd_map_param(model text, name text, token_id integer, t public.tensor, shape integer[]) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_autograd_map_param';
COMMENT ON FUNCTION public.pg_llm_autograd_map_param(text, text, integer, public.tensor, integer[]) IS
    'The same value in the given shape; while recording, a leaf that the tape knows as the named parameter.';

CREATE FUNCTION public.pg_llm_tensor_id(t public.tensor) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_tensor_id';
COMMENT ON FUNCTION public.pg_llm_tensor_id(public.tensor) IS
    'The id of a tensor of the recorded pass; NULL for any other tensor.';

CREATE FUNCTION public.pg_llm_grad(t public.tensor) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_grad';
COMMENT ON FUNCTION public.pg_llm_grad(public.tensor) IS
    'The gradient of a tensor of the recorded pass; NULL if it has none.';

CREATE FUNCTION public.pg_llm_grad_by_id(id bigint) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_grad_by_id';
COMMENT ON FUNCTION public.pg_llm_grad_by_id(bigint) IS
    'The gradient of the tensor with this id; NULL if it has none.';

-- The ops on bytea: contiguous little-endian float32 with explicit dimensions. Nothing here is recorded.

CREATE FUNCTION public.pg_llm_matmul(a bytea, b bytea, m integer, k integer, n integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_matmul';
COMMENT ON FUNCTION public.pg_llm_matmul(bytea, bytea, integer, integer, integer) IS 'a (m,k) @ b (k,n) -> (m,n)';

CREATE FUNCTION public.pg_llm_linear(x bytea, w bytea, b bytea, n integer, i integer, o integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_linear';
COMMENT ON FUNCTION public.pg_llm_linear(bytea, bytea, bytea, integer, integer, integer) IS 'x (n,i) @ w (i,o) + b (o) -> (n,o)';

CREATE FUNCTION public.pg_llm_transpose(src bytea, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_transpose';
COMMENT ON FUNCTION public.pg_llm_transpose(bytea, integer, integer) IS '(rows,cols) -> (cols,rows)';

CREATE FUNCTION public.pg_llm_add(a bytea, b bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_add';
COMMENT ON FUNCTION public.pg_llm_add(bytea, bytea) IS 'elementwise sum of equal sizes';

CREATE FUNCTION public.pg_llm_gelu(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_gelu';
COMMENT ON FUNCTION public.pg_llm_gelu(bytea) IS 'GELU, tanh form, elementwise';

CREATE FUNCTION public.pg_llm_relu(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_relu';
COMMENT ON FUNCTION public.pg_llm_relu(bytea) IS 'max(x, 0), elementwise';

CREATE FUNCTION public.pg_llm_zeros_like(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_zeros_like';
COMMENT ON FUNCTION public.pg_llm_zeros_like(bytea) IS 'zeros of the size of x';

CREATE FUNCTION public.pg_llm_ones_like(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_ones_like';
COMMENT ON FUNCTION public.pg_llm_ones_like(bytea) IS 'ones of the size of x';

CREATE FUNCTION public.pg_llm_softmax(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_softmax';
COMMENT ON FUNCTION public.pg_llm_softmax(bytea) IS 'softmax over all elements as one row';

CREATE FUNCTION public.pg_llm_softmax(x bytea, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_softmax';
COMMENT ON FUNCTION public.pg_llm_softmax(bytea, integer, integer) IS 'softmax of each row';

CREATE FUNCTION public.pg_llm_layernorm(x bytea, gamma bytea, beta bytea, eps double precision DEFAULT 1e-5)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_layernorm';
COMMENT ON FUNCTION public.pg_llm_layernorm(bytea, bytea, bytea, double precision) IS 'layer normalisation of each row; a row is as long as gamma';

CREATE FUNCTION public.pg_llm_rmsnorm(x bytea, eps double precision DEFAULT 1e-5)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rmsnorm';
COMMENT ON FUNCTION public.pg_llm_rmsnorm(bytea, double precision) IS 'x / sqrt(mean(x^2) + eps) over all elements as one row';

CREATE FUNCTION public.pg_llm_rmsnorm(x bytea, eps double precision, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rmsnorm';
COMMENT ON FUNCTION public.pg_llm_rmsnorm(bytea, double precision, integer, integer) IS 'x / sqrt(mean(x^2) + eps) of each row';

CREATE FUNCTION public.pg_llm_embedding(w bytea, ids integer[], rows integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_embedding';
COMMENT ON FUNCTION public.pg_llm_embedding(bytea, integer[], integer, integer) IS 'rows of w (rows,d) at ids';

CREATE FUNCTION public.pg_llm_attention(x bytea, w_qkv bytea, b_qkv bytea, w_o bytea, b_o bytea, n_head integer, t integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_attention';
COMMENT ON FUNCTION public.pg_llm_attention(bytea, bytea, bytea, bytea, bytea, integer, integer, integer) IS 'causal multi-head self-attention of x (t,d) with its projections';

CREATE FUNCTION public.pg_llm_cross_entropy(logits bytea, target integer)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_cross_entropy';
COMMENT ON FUNCTION public.pg_llm_cross_entropy(bytea, integer) IS '-log softmax(logits)[target]; 0 for a target below 0';

CREATE FUNCTION public.pg_llm_cross_entropy(logits bytea, targets integer[], rows integer, vocab integer)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_cross_entropy_rows';
COMMENT ON FUNCTION public.pg_llm_cross_entropy(bytea, integer[], integer, integer) IS 'mean of -log softmax(logits)[target] over rows whose target is not below 0';

CREATE FUNCTION public.pg_llm_sub(a bytea, b bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sub';
COMMENT ON FUNCTION public.pg_llm_sub(bytea, bytea) IS 'elementwise difference of equal sizes';

CREATE FUNCTION public.pg_llm_mul(a bytea, b bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mul';
COMMENT ON FUNCTION public.pg_llm_mul(bytea, bytea) IS 'elementwise product of equal sizes';

CREATE FUNCTION public.pg_llm_div(a bytea, b bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_div';
COMMENT ON FUNCTION public.pg_llm_div(bytea, bytea) IS 'elementwise quotient of equal sizes';

CREATE FUNCTION public.pg_llm_neg(a bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_neg';
COMMENT ON FUNCTION public.pg_llm_neg(bytea) IS '-a, elementwise';

CREATE FUNCTION public.pg_llm_gelu_exact(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_gelu_exact';
COMMENT ON FUNCTION public.pg_llm_gelu_exact(bytea) IS 'exact GELU, x times Phi(x), the normal distribution function, elementwise';

CREATE FUNCTION public.pg_llm_activation(x bytea, name text)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_activation';
COMMENT ON FUNCTION public.pg_llm_activation(bytea, text) IS 'the activation with this name in Hugging Face configurations, elementwise';

CREATE FUNCTION public.pg_llm_dropout(x bytea, p double precision, training boolean DEFAULT false, site text DEFAULT '')
    RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_dropout';
COMMENT ON FUNCTION public.pg_llm_dropout(bytea, double precision, boolean, text) IS 'inverted dropout when training, otherwise x; the mask depends on the pass (pg_llm_pass_begin), the site and the element';

CREATE FUNCTION public.pg_llm_sum(x bytea)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sum';
COMMENT ON FUNCTION public.pg_llm_sum(bytea) IS 'sum of all elements';

CREATE FUNCTION public.pg_llm_mean(x bytea)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mean';
COMMENT ON FUNCTION public.pg_llm_mean(bytea) IS 'mean of all elements';

CREATE FUNCTION public.pg_llm_linear(x bytea, w bytea, n integer, i integer, o integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_linear_nobias';
COMMENT ON FUNCTION public.pg_llm_linear(bytea, bytea, integer, integer, integer) IS 'x (n,i) @ w (i,o) -> (n,o)';

CREATE FUNCTION public.pg_llm_causal_attention(q bytea, k bytea, v bytea, n_head integer, t integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_causal_attention';
COMMENT ON FUNCTION public.pg_llm_causal_attention(bytea, bytea, bytea, integer, integer, integer) IS 'causal multi-head attention over q, k, v (t,d) each -> (t,d)';

CREATE FUNCTION public.pg_llm_causal_attention(qkv bytea, n_head integer, t integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_causal_attention_qkv';
COMMENT ON FUNCTION public.pg_llm_causal_attention(bytea, integer, integer, integer) IS 'causal multi-head attention over qkv (t,3d) = [q | k | v] per token -> (t,d)';

CREATE FUNCTION public.pg_llm_lm_head(x bytea, w bytea, n integer, d integer, vocab integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_lm_head';
COMMENT ON FUNCTION public.pg_llm_lm_head(bytea, bytea, integer, integer, integer) IS 'x (n,d) @ transpose of w (vocab,d) -> (n,vocab)';

CREATE FUNCTION public.pg_llm_lm_head_loss(x bytea, w bytea, targets integer[], n integer, d integer, vocab integer)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_lm_head_loss';
COMMENT ON FUNCTION public.pg_llm_lm_head_loss(bytea, bytea, integer[], integer, integer, integer) IS 'mean cross-entropy of pg_llm_lm_head(x, w, n, d, vocab) against targets (below 0: ignored)';

CREATE FUNCTION public.pg_llm_sample(logits bytea, temperature double precision DEFAULT 1, top_k integer DEFAULT 0, top_p double precision DEFAULT 1, seed bigint DEFAULT NULL, step bigint DEFAULT 0)
    RETURNS integer
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sample';
COMMENT ON FUNCTION public.pg_llm_sample(bytea, double precision, integer, double precision, bigint, bigint) IS 'a token id drawn from one row of logits; temperature 0 is greedy, top_k 0 and top_p 1 are off, seed NULL is random';

-- Gradients and the optimizer

CREATE FUNCTION public.pg_llm_matmul_backward(
    dout bytea, a bytea, b bytea, m integer, k integer, n integer,
    OUT da bytea, OUT db bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_matmul_backward';
COMMENT ON FUNCTION public.pg_llm_matmul_backward(bytea, bytea, bytea, integer, integer, integer) IS 'gradients of pg_llm_matmul';

CREATE FUNCTION public.pg_llm_gelu_backward(dout bytea, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_gelu_backward';
COMMENT ON FUNCTION public.pg_llm_gelu_backward(bytea, bytea) IS 'gradient of pg_llm_gelu';

CREATE FUNCTION public.pg_llm_relu_backward(dout bytea, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_relu_backward';
COMMENT ON FUNCTION public.pg_llm_relu_backward(bytea, bytea) IS 'gradient of pg_llm_relu';

CREATE FUNCTION public.pg_llm_softmax_backward(dout bytea, x bytea, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_softmax_backward';
COMMENT ON FUNCTION public.pg_llm_softmax_backward(bytea, bytea, integer, integer) IS 'gradient of pg_llm_softmax';

CREATE FUNCTION public.pg_llm_layernorm_backward(
    dout bytea, x bytea, gamma bytea, beta bytea, eps double precision,
    OUT dx bytea, OUT dgamma bytea, OUT dbeta bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_layernorm_backward';
COMMENT ON FUNCTION public.pg_llm_layernorm_backward(bytea, bytea, bytea, bytea, double precision) IS 'gradients of pg_llm_layernorm';

CREATE FUNCTION public.pg_llm_add_backward(
    dout bytea, a bytea, b bytea,
    OUT da bytea, OUT db bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_add_backward';
COMMENT ON FUNCTION public.pg_llm_add_backward(bytea, bytea, bytea) IS 'gradients of pg_llm_add from that of its output';

CREATE FUNCTION public.pg_llm_sub_backward(
    dout bytea, a bytea, b bytea,
    OUT da bytea, OUT db bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sub_backward';
COMMENT ON FUNCTION public.pg_llm_sub_backward(bytea, bytea, bytea) IS 'gradients of pg_llm_sub from that of its output';

CREATE FUNCTION public.pg_llm_mul_backward(
    dout bytea, a bytea, b bytea,
    OUT da bytea, OUT db bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mul_backward';
COMMENT ON FUNCTION public.pg_llm_mul_backward(bytea, bytea, bytea) IS 'gradients of pg_llm_mul from that of its output';

CREATE FUNCTION public.pg_llm_div_backward(
    dout bytea, a bytea, b bytea,
    OUT da bytea, OUT db bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_div_backward';
COMMENT ON FUNCTION public.pg_llm_div_backward(bytea, bytea, bytea) IS 'gradients of pg_llm_div from that of its output';

CREATE FUNCTION public.pg_llm_neg_backward(dout bytea, a bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_neg_backward';
COMMENT ON FUNCTION public.pg_llm_neg_backward(bytea, bytea) IS 'gradient of pg_llm_neg from that of its output';

CREATE FUNCTION public.pg_llm_gelu_exact_backward(dout bytea, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_gelu_exact_backward';
COMMENT ON FUNCTION public.pg_llm_gelu_exact_backward(bytea, bytea) IS 'gradient of pg_llm_gelu_exact from that of its output';

CREATE FUNCTION public.pg_llm_activation_backward(dout bytea, x bytea, name text)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_activation_backward';
COMMENT ON FUNCTION public.pg_llm_activation_backward(bytea, bytea, text) IS 'gradient of pg_llm_activation from that of its output';

CREATE FUNCTION public.pg_llm_dropout_backward(dout bytea, x bytea, p double precision, training boolean DEFAULT false, site text DEFAULT '')
    RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_dropout_backward';
COMMENT ON FUNCTION public.pg_llm_dropout_backward(bytea, bytea, double precision, boolean, text) IS 'gradient of pg_llm_dropout from that of its output';

CREATE FUNCTION public.pg_llm_sum_backward(dout double precision, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sum_backward';
COMMENT ON FUNCTION public.pg_llm_sum_backward(double precision, bytea) IS 'gradient of pg_llm_sum from that of its output';

CREATE FUNCTION public.pg_llm_mean_backward(dout double precision, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mean_backward';
COMMENT ON FUNCTION public.pg_llm_mean_backward(double precision, bytea) IS 'gradient of pg_llm_mean from that of its output';

CREATE FUNCTION public.pg_llm_transpose_backward(dout bytea, src bytea, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_transpose_backward';
COMMENT ON FUNCTION public.pg_llm_transpose_backward(bytea, bytea, integer, integer) IS 'gradient of pg_llm_transpose from that of its output';

CREATE FUNCTION public.pg_llm_linear_backward(
    dout bytea, x bytea, w bytea, b bytea, n integer, i integer, o integer,
    OUT dx bytea, OUT dw bytea, OUT db bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_linear_backward';
COMMENT ON FUNCTION public.pg_llm_linear_backward(bytea, bytea, bytea, bytea, integer, integer, integer) IS 'gradients of pg_llm_linear from that of its output';

CREATE FUNCTION public.pg_llm_linear_backward(
    dout bytea, x bytea, w bytea, n integer, i integer, o integer,
    OUT dx bytea, OUT dw bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_linear_nobias_backward';
COMMENT ON FUNCTION public.pg_llm_linear_backward(bytea, bytea, bytea, integer, integer, integer) IS 'gradients of pg_llm_linear from that of its output';

CREATE FUNCTION public.pg_llm_rmsnorm_backward(dout bytea, x bytea, eps double precision, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rmsnorm_backward';
COMMENT ON FUNCTION public.pg_llm_rmsnorm_backward(bytea, bytea, double precision, integer, integer) IS 'gradient of pg_llm_rmsnorm from that of its output';

CREATE FUNCTION public.pg_llm_embedding_backward(dout bytea, w bytea, ids integer[], rows integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_embedding_backward';
COMMENT ON FUNCTION public.pg_llm_embedding_backward(bytea, bytea, integer[], integer, integer) IS 'gradient of pg_llm_embedding from that of its output';

CREATE FUNCTION public.pg_llm_attention_backward(
    dout bytea, x bytea, w_qkv bytea, b_qkv bytea, w_o bytea, b_o bytea, n_head integer, t integer, d integer,
    OUT dx bytea, OUT dw_qkv bytea, OUT db_qkv bytea, OUT dw_o bytea, OUT db_o bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_attention_backward';
COMMENT ON FUNCTION public.pg_llm_attention_backward(bytea, bytea, bytea, bytea, bytea, bytea, integer, integer, integer) IS 'gradients of pg_llm_attention from that of its output';

CREATE FUNCTION public.pg_llm_causal_attention_backward(
    dout bytea, q bytea, k bytea, v bytea, n_head integer, t integer, d integer,
    OUT dq bytea, OUT dk bytea, OUT dv bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_causal_attention_backward';
COMMENT ON FUNCTION public.pg_llm_causal_attention_backward(bytea, bytea, bytea, bytea, integer, integer, integer) IS 'gradients of pg_llm_causal_attention from that of its output';

CREATE FUNCTION public.pg_llm_causal_attention_backward(dout bytea, qkv bytea, n_head integer, t integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_causal_attention_qkv_backward';
COMMENT ON FUNCTION public.pg_llm_causal_attention_backward(bytea, bytea, integer, integer, integer) IS 'gradient of pg_llm_causal_attention from that of its output';

CREATE FUNCTION public.pg_llm_lm_head_backward(
    dout bytea, x bytea, w bytea, n integer, d integer, vocab integer,
    OUT dx bytea, OUT dw bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_lm_head_backward';
COMMENT ON FUNCTION public.pg_llm_lm_head_backward(bytea, bytea, bytea, integer, integer, integer) IS 'gradients of pg_llm_lm_head from that of its output';

CREATE FUNCTION public.pg_llm_cross_entropy_backward(dout double precision, logits bytea, targets integer[], rows integer, vocab integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_cross_entropy_backward';
COMMENT ON FUNCTION public.pg_llm_cross_entropy_backward(double precision, bytea, integer[], integer, integer) IS 'gradient of pg_llm_cross_entropy from that of its output';

CREATE FUNCTION public.pg_llm_lm_head_loss_backward(
    dout double precision, x bytea, w bytea, targets integer[], n integer, d integer, vocab integer,
    OUT dx bytea, OUT dw bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_lm_head_loss_backward';
COMMENT ON FUNCTION public.pg_llm_lm_head_loss_backward(double precision, bytea, bytea, integer[], integer, integer, integer) IS 'gradients of pg_llm_lm_head_loss from that of its output';

CREATE FUNCTION public.pg_llm_grad_clip(grad bytea, clip double precision)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_grad_clip';
COMMENT ON FUNCTION public.pg_llm_grad_clip(bytea, double precision) IS 'the gradient scaled so that its norm is at most clip';

CREATE FUNCTION public.pg_llm_adamw_step(
    INOUT weight bytea, grad bytea, INOUT m bytea, INOUT v bytea, lr double precision, beta1 double precision,
    beta2 double precision, eps double precision, weight_decay double precision, step bigint
)
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_adamw_step';
COMMENT ON FUNCTION public.pg_llm_adamw_step(
    bytea, bytea, bytea, bytea, double precision, double precision, double precision, double precision,
    double precision, bigint
) IS 'one AdamW step; with a NULL gradient nothing changes, NULL moments start from zero';
-- A session's memory: parameters, generations, sampling, optimizer steps, batches, progress.

CREATE FUNCTION public.pg_llm_fingerprint_add(state internal, name text, number bigint, tableoid oid, ctid tid, xmin xid) RETURNS internal
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_fingerprint_add';
COMMENT ON FUNCTION public.pg_llm_fingerprint_add(internal, text, bigint, oid, tid, xid) IS
    'transition function of pg_llm_fingerprint';
CREATE FUNCTION public.pg_llm_fingerprint_final(state internal) RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_fingerprint_final';
COMMENT ON FUNCTION public.pg_llm_fingerprint_final(internal) IS 'final function of pg_llm_fingerprint';
CREATE AGGREGATE public.pg_llm_fingerprint(name text, number bigint, tableoid oid, ctid tid, xmin xid) (
    SFUNC = public.pg_llm_fingerprint_add, STYPE = internal, FINALFUNC = public.pg_llm_fingerprint_final, PARALLEL = RESTRICTED);
COMMENT ON AGGREGATE public.pg_llm_fingerprint(text, bigint, oid, tid, xid) IS
    'Fingerprint of the row versions of ordinary tables in a query''s result: equal exactly when the row versions are the same; NULL without rows. Comparable within one session only.';

CREATE FUNCTION public.pg_llm_arena_open(model text, fingerprint bytea, training boolean) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_open';
COMMENT ON FUNCTION public.pg_llm_arena_open(text, bytea, boolean) IS
    'Pins a version of a model''s parameters; false if it is not in memory and must be fed.';

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
    'Releases the pin of the newest pg_llm_arena_open of the model.';

CREATE FUNCTION public.pg_llm_arena_pinned(model text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_arena_pinned';
COMMENT ON FUNCTION public.pg_llm_arena_pinned(text) IS
    'Whether a version of the model is pinned for the caller.';

CREATE FUNCTION public.pg_llm_arena_pin_statement(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_pin_statement';
COMMENT ON FUNCTION public.pg_llm_arena_pin_statement(text) IS
    'Keeps the newest pin until the running statement ends or this session writes.';

CREATE FUNCTION public.pg_llm_param(model text, name text) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_param';
COMMENT ON FUNCTION public.pg_llm_param(text, text) IS
    'A parameter of the pinned version, with its parts joined; while recording, a leaf of the tape.';

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
    'One part of a parameter in memory: its gradient; NULL if it has none.';

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
    'Clears all gradients.';

CREATE FUNCTION public.pg_llm_arena_grad_norm(model text) RETURNS double precision
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_grad_norm';
COMMENT ON FUNCTION public.pg_llm_arena_grad_norm(text) IS
    'L2 norm over the gradients of all parameters.';

CREATE FUNCTION public.pg_llm_arena_grad_norms(model text) RETURNS jsonb
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_grad_norms';
COMMENT ON FUNCTION public.pg_llm_arena_grad_norms(text) IS
    'L2 norm of each parameter''s gradient, by name.';

CREATE FUNCTION public.pg_llm_arena_adamw(model text, lr double precision, beta1 double precision, beta2 double precision, eps double precision, weight_decay double precision, step bigint, grad_clip double precision, decay_matrices_only boolean) RETURNS double precision
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_adamw';
COMMENT ON FUNCTION public.pg_llm_arena_adamw(text, double precision, double precision, double precision, double precision, double precision, bigint, double precision, boolean) IS
    'One AdamW step on all parameters in memory, clipped by global norm unless grad_clip is NULL; returns the norm before clipping.';

CREATE FUNCTION public.pg_llm_arena_saved(model text, fingerprint bytea) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_saved';
COMMENT ON FUNCTION public.pg_llm_arena_saved(text, bytea) IS
    'Called after write-back: marks the version in memory as the one that the rows now hold.';

CREATE FUNCTION public.pg_llm_command_id() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_command_id';
COMMENT ON FUNCTION public.pg_llm_command_id() IS
    'The number of the running command, which becomes cmin of the rows that it inserts. Commands share a number until one writes.';

CREATE FUNCTION public.pg_llm_arena_same(model text, name text, token_id integer, data public.tensor, m public.tensor, v public.tensor) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_same';
COMMENT ON FUNCTION public.pg_llm_arena_same(text, text, integer, public.tensor, public.tensor, public.tensor) IS
    'Whether the pinned version is bit-identical to this row of llm_param; NULL moments count as zeros.';

CREATE FUNCTION public.pg_llm_arena_rows(model text) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_rows';
COMMENT ON FUNCTION public.pg_llm_arena_rows(text) IS
    'The number of llm_param rows that the pinned version was read from.';

CREATE FUNCTION public.pg_llm_arena_sum_grad(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_sum_grad';
COMMENT ON FUNCTION public.pg_llm_arena_sum_grad(text) IS
    'Adds the gradients of a micro-batch to the sum of those before it; the next micro-batch starts from zero.';

CREATE FUNCTION public.pg_llm_arena_take_sum(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_take_sum';
COMMENT ON FUNCTION public.pg_llm_arena_take_sum(text) IS
    'Makes the summed gradients of the micro-batches the gradients of the step.';

CREATE FUNCTION public.pg_llm_arena_discard(model text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_arena_discard';
COMMENT ON FUNCTION public.pg_llm_arena_discard(text) IS
    'Marks the pinned version as not to be used again.';

CREATE FUNCTION public.pg_llm_release() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_release';
COMMENT ON FUNCTION public.pg_llm_release() IS
    'Frees the memory of versions that are not in use and of cached buffers; returns the number of bytes.';

CREATE FUNCTION public.pg_llm_disk_free(relation regclass) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_disk_free';
COMMENT ON FUNCTION public.pg_llm_disk_free(regclass) IS
    'Free bytes on the file system of the relation''s tablespace; NULL if unknown.';

CREATE FUNCTION public.pg_llm_memory_free() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_memory_free';
COMMENT ON FUNCTION public.pg_llm_memory_free() IS
    'Bytes of memory available to this session''s tensors, including what they already use; NULL if unknown.';

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
    'Begins a generation with a copy of another''s tokens and key/value cache, on the same weights, without sampling settings.';

CREATE FUNCTION public.pg_llm_gen_reset(handle integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_reset';
COMMENT ON FUNCTION public.pg_llm_gen_reset(integer) IS
    'Empties a generation''s key/value cache.';

CREATE FUNCTION public.pg_llm_gen_tokens(handle integer) RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_tokens';
COMMENT ON FUNCTION public.pg_llm_gen_tokens(integer) IS
    'The tokens of a generation: prompt and generated ones.';

CREATE FUNCTION public.pg_llm_gen_last(handle integer, n integer) RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_last';
COMMENT ON FUNCTION public.pg_llm_gen_last(integer, integer) IS
    'The last n tokens of a generation, or all if it has fewer.';

CREATE FUNCTION public.pg_llm_gen_sampling(handle integer, end_tokens integer[], VARIADIC settings "any") RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_sampling';
COMMENT ON FUNCTION public.pg_llm_gen_sampling(integer, integer[], "any") IS
    'Sets how a generation chooses its next tokens and when its text ends: names and values in turn, as jsonb_build_object takes them. The text begins anew.';

CREATE FUNCTION public.pg_llm_gen_sample(handle integer, logits public.tensor) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_sample';
COMMENT ON FUNCTION public.pg_llm_gen_sample(integer, public.tensor) IS
    'Chooses the next token of a generation by its sampling settings and appends it.';

CREATE FUNCTION public.pg_llm_gen_write(handle integer, bytes bytea, OUT step integer, OUT token text, OUT text text, OUT is_complete boolean)
    RETURNS record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_write';
COMMENT ON FUNCTION public.pg_llm_gen_write(integer, bytea) IS
    'The text of a generation after its newest token, whose bytes are given, and the piece of it that is new. After the last token the generation is closed.';

CREATE FUNCTION public.pg_llm_visible_text(bytes bytea, stop text[], is_final boolean, OUT visible text, OUT stopped boolean)
    RETURNS record LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_visible_text';
COMMENT ON FUNCTION public.pg_llm_visible_text(bytea, text[], boolean) IS
    'The part of generated bytes that can be shown as text: nothing from a stop text on and, unless it is final, no incomplete UTF-8 character and no possible beginning of a stop text. U+FFFD replaces bytes that are not valid UTF-8. stopped: a stop text was found.';

CREATE FUNCTION public.pg_llm_gen_length(handle integer) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_length';
COMMENT ON FUNCTION public.pg_llm_gen_length(integer) IS
    'The number of positions in a generation''s key/value cache.';

CREATE FUNCTION public.pg_llm_gen_use(handles integer[]) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_use';
COMMENT ON FUNCTION public.pg_llm_gen_use(integer[]) IS
    'Begins a forward pass over the same number of new positions of each generation; attention and pg_llm_positions then use their caches.';

CREATE FUNCTION public.pg_llm_gen_push(handle integer, token integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_push';
COMMENT ON FUNCTION public.pg_llm_gen_push(integer, integer) IS
    'Appends a token to a generation.';

CREATE FUNCTION public.pg_llm_gen_done() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_gen_done';
COMMENT ON FUNCTION public.pg_llm_gen_done() IS
    'Ends the forward pass and commits its positions to the caches.';

CREATE FUNCTION public.pg_llm_positions(ids integer[]) RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_positions';
COMMENT ON FUNCTION public.pg_llm_positions(integer[]) IS
    '0, 1, ... along the last axis; in a generation''s forward pass, counted from the end of each sequence''s cache.';

CREATE FUNCTION public.pg_llm_sample(logits public.tensor, temperature double precision DEFAULT 1, top_k integer DEFAULT 0, top_p double precision DEFAULT 1, seed bigint DEFAULT NULL, step bigint DEFAULT 0) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_sample';
COMMENT ON FUNCTION public.pg_llm_sample(public.tensor, double precision, integer, double precision, bigint, bigint) IS
    'A token id drawn from the last row of logits; temperature 0 is greedy, top_k 0 and top_p 1 are off, seed NULL is random.';

CREATE FUNCTION public.pg_llm_top_tokens(logits public.tensor, k integer, OUT token_ids integer[], OUT log_probs double precision[])
    RETURNS record LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_top_tokens';
COMMENT ON FUNCTION public.pg_llm_top_tokens(public.tensor, integer) IS
    'The k most likely tokens for the last row of logits, ties by id, with their log probabilities.';

CREATE FUNCTION public.pg_llm_penalize(logits public.tensor, seen integer[], repetition double precision, presence double precision, frequency double precision) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_penalize';
COMMENT ON FUNCTION public.pg_llm_penalize(public.tensor, integer[], double precision, double precision, double precision) IS
    'The last row of logits after penalties on the tokens already seen.';

CREATE FUNCTION public.pg_llm_adamw_step(weight public.tensor, grad public.tensor, m public.tensor, v public.tensor, lr double precision,
    beta1 double precision, beta2 double precision, eps double precision, weight_decay double precision, step bigint,
    OUT new_weight public.tensor, OUT new_m public.tensor, OUT new_v public.tensor) RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_adamw_step';
COMMENT ON FUNCTION public.pg_llm_adamw_step(public.tensor, public.tensor, public.tensor, public.tensor, double precision, double precision,
    double precision, double precision, double precision, bigint) IS
    'One AdamW step (Loshchilov & Hutter 2019). With a NULL gradient nothing changes; NULL moments are zeros.';

CREATE FUNCTION public.pg_llm_grad_clip(grad public.tensor, clip double precision) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_grad_clip';
COMMENT ON FUNCTION public.pg_llm_grad_clip(public.tensor, double precision) IS
    'The gradient scaled so that its L2 norm is at most clip.';

CREATE FUNCTION public.pg_llm_lr_schedule(step bigint, warmup bigint, total bigint, lr_max double precision, schedule text DEFAULT 'cosine', min_lr double precision DEFAULT 0) RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_lr_schedule';
COMMENT ON FUNCTION public.pg_llm_lr_schedule(bigint, bigint, bigint, double precision, text, double precision) IS
    'Learning rate at a step counted from 1: linear warm-up, then cosine, linear or constant.';

CREATE FUNCTION public.pg_llm_permutation(n bigint, seed bigint, epoch bigint) RETURNS bigint[]
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_permutation';
COMMENT ON FUNCTION public.pg_llm_permutation(bigint, bigint, bigint) IS
    'The numbers 0 to n - 1 in the order of an epoch.';

CREATE FUNCTION public.pg_llm_batch(n bigint, seed bigint, first bigint, size integer) RETURNS bigint[]
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_batch';
COMMENT ON FUNCTION public.pg_llm_batch(bigint, bigint, bigint, integer) IS
    'Row ordinals, counted from 1, of the batch that starts at position first of the epochs'' permutations joined end to end.';

CREATE FUNCTION public.pg_llm_progress(model text, run_id bigint, step bigint, total bigint, loss double precision, lr double precision, tokens bigint) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_progress';
COMMENT ON FUNCTION public.pg_llm_progress(text, bigint, bigint, bigint, double precision, double precision, bigint) IS
    'Publishes this session''s training progress to other sessions.';

CREATE FUNCTION public.pg_llm_progress_clear() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_progress_clear';
COMMENT ON FUNCTION public.pg_llm_progress_clear() IS
    'Clears this session''s training progress.';

CREATE FUNCTION public.pg_llm_train_progress(OUT pid integer, OUT datid oid, OUT model text, OUT run_id bigint, OUT step bigint, OUT total bigint, OUT loss double precision, OUT lr double precision, OUT tokens bigint, OUT started_at timestamptz, OUT updated_at timestamptz)
    RETURNS SETOF record LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_train_progress';
COMMENT ON FUNCTION public.pg_llm_train_progress() IS
    'Progress of the trainings that are running in this database.';

CREATE FUNCTION public.pg_llm_try_lock(relation regclass, name text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_try_lock';
COMMENT ON FUNCTION public.pg_llm_try_lock(regclass, text) IS
    'Takes the exclusive lock of this name until the transaction ends; returns false without waiting if another session holds it.';

CREATE FUNCTION public.pg_llm_lock_holder(relation regclass, name text) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_lock_holder';
COMMENT ON FUNCTION public.pg_llm_lock_holder(regclass, text) IS
    'The process id of the session that holds pg_llm_try_lock''s lock of this name; NULL if none does.';

CREATE FUNCTION public.pg_llm_numerics_version() RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_numerics_version';
COMMENT ON FUNCTION public.pg_llm_numerics_version() IS
    'The version of the numerical rules that make results reproducible.';

-- Byte-level byte pair encoding: tokenizers in memory, their files, learning merges.

CREATE FUNCTION public.pg_llm_relation_version(relations regclass[]) RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_relation_version';
COMMENT ON FUNCTION public.pg_llm_relation_version(regclass[]) IS
    'Fingerprint of the rows of the tables that the snapshot sees: equal exactly when the row versions are the same. Comparable within one session only. 42501: the role may not read all rows and columns.';

CREATE FUNCTION public.pg_llm_bpe_open(model text, version bytea) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_open';
COMMENT ON FUNCTION public.pg_llm_bpe_open(text, bytea) IS
    'The handle of a tokenizer in this session''s memory; NULL if this version is not there.';

CREATE FUNCTION public.pg_llm_bpe_create(model text, version bytea) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_create';
COMMENT ON FUNCTION public.pg_llm_bpe_create(text, bytea) IS
    'Creates an empty tokenizer and returns its handle; feed it tokens, then merges, then seal it.';

CREATE FUNCTION public.pg_llm_bpe_put_token(handle integer, token_id integer, bytes bytea, flags integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_put_token';
COMMENT ON FUNCTION public.pg_llm_bpe_put_token(integer, integer, bytea, integer) IS
    'Adds a token to a tokenizer that is being fed; flags is the sum of 1 (an added token), 2 (special), 4 (lstrip), 8 (rstrip), 16 (single_word), 32 (normalized), 64 (base).';

CREATE FUNCTION public.pg_llm_bpe_put_merge(handle integer, rank integer, left_token text, right_token text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_put_merge';
COMMENT ON FUNCTION public.pg_llm_bpe_put_merge(integer, integer, text, text) IS
    'Adds a merge rule to a tokenizer that is being fed; its tokens must have been added before.';

CREATE FUNCTION public.pg_llm_bpe_seal(handle integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_seal';
COMMENT ON FUNCTION public.pg_llm_bpe_seal(integer) IS
    'Completes a tokenizer; from now on pg_llm_bpe_open finds it.';

CREATE FUNCTION public.pg_llm_bpe_encode(handle integer, text text, special boolean) RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_encode';
COMMENT ON FUNCTION public.pg_llm_bpe_encode(integer, text, boolean) IS
    'Token ids of a text. Text that matches an added token becomes that token; special tokens are matched only with special.';

CREATE FUNCTION public.pg_llm_characters(text text) RETURNS SETOF text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_characters';
COMMENT ON FUNCTION public.pg_llm_characters(text) IS
    'The characters of a text, which in a database of encoding SQL_ASCII is read as UTF-8; 22021: it is not valid UTF-8.';

CREATE FUNCTION public.pg_llm_bpe_decode(handle integer, ids integer[]) RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_decode';
COMMENT ON FUNCTION public.pg_llm_bpe_decode(integer, integer[]) IS
    'The bytes of the tokens, concatenated.';

CREATE FUNCTION public.pg_llm_utf8_text(bytes bytea, final boolean DEFAULT true) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_utf8_text';
COMMENT ON FUNCTION public.pg_llm_utf8_text(bytea, boolean) IS
    'UTF-8 as text, with U+FFFD for each malformed part and for NUL. Unless final, an incomplete character at the end is left out.';

CREATE FUNCTION public.pg_llm_bpe_alphabet(bytes bytea) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_alphabet';
COMMENT ON FUNCTION public.pg_llm_bpe_alphabet(bytea) IS
    'Bytes in GPT-2''s printable alphabet, one character each.';

CREATE FUNCTION public.pg_llm_bpe_bytes(token text) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_bytes';
COMMENT ON FUNCTION public.pg_llm_bpe_bytes(text) IS
    'The bytes of a token in GPT-2''s printable alphabet; NULL if a character is not in it.';

CREATE FUNCTION public.pg_llm_bpe_read_vocab(contents bytea, OUT token_id integer, OUT token text, OUT bytes bytea) RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_vocab';
COMMENT ON FUNCTION public.pg_llm_bpe_read_vocab(bytea) IS
    'The tokens of vocab.json or encoder.json; 22023, with the line, if the contents are not such a file.';

CREATE FUNCTION public.pg_llm_bpe_read_merges(contents bytea, OUT rank integer, OUT left_token text, OUT right_token text) RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_merges';
COMMENT ON FUNCTION public.pg_llm_bpe_read_merges(bytea) IS
    'The merge rules of merges.txt or vocab.bpe; 22023, with the line, if the contents are not such a file.';

CREATE FUNCTION public.pg_llm_bpe_read_tiktoken(contents bytea, OUT token_id integer, OUT token text, OUT bytes bytea) RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_tiktoken';
COMMENT ON FUNCTION public.pg_llm_bpe_read_tiktoken(bytea) IS
    'The tokens of a .tiktoken file; 22023, with the line, if the contents are not such a file.';

CREATE FUNCTION public.pg_llm_bpe_read_tiktoken_merges(contents bytea, OUT rank integer, OUT left_token text, OUT right_token text) RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_tiktoken_merges';
COMMENT ON FUNCTION public.pg_llm_bpe_read_tiktoken_merges(bytea) IS
    'The merge rules that the ranks of a .tiktoken file imply.';

CREATE FUNCTION public.pg_llm_bpe_learn_add(state internal, document text, n_merges integer, min_count bigint) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_learn_add';
COMMENT ON FUNCTION public.pg_llm_bpe_learn_add(internal, text, integer, bigint) IS 'transition function of pg_llm_bpe_learn';
CREATE FUNCTION public.pg_llm_bpe_learn_final(state internal) RETURNS integer[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_learn_final';
COMMENT ON FUNCTION public.pg_llm_bpe_learn_final(internal) IS 'final function of pg_llm_bpe_learn';
CREATE AGGREGATE public.pg_llm_bpe_learn(document text, n_merges integer, min_count bigint) (
    SFUNC = public.pg_llm_bpe_learn_add, STYPE = internal, FINALFUNC = public.pg_llm_bpe_learn_final,
    FINALFUNC_MODIFY = READ_WRITE, PARALLEL = SAFE);
COMMENT ON AGGREGATE public.pg_llm_bpe_learn(text, integer, bigint) IS
    'Learns byte pair encoding from documents: left and right id of each merge. Ids below 256 are bytes in GPT-2''s order, 256 + i is merge i. Pairs seen fewer than min_count times are not merged.';

CREATE FUNCTION public.pg_llm_read_file(path text, max_bytes bigint) RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_read_file';
COMMENT ON FUNCTION public.pg_llm_read_file(text, bigint) IS
    'The contents of a file on the server, for roles with the privileges of pg_read_server_files; 58P01: no such file.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_read_file(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.pg_llm_read_file(text, bigint) TO pg_read_server_files;
-- Weight files on the server. Functions that take a path check roles themselves, as COPY does:
-- pg_read_server_files and pg_write_server_files. Those of checkpoints take a row's id or a model, never a path: EXECUTE
-- on them decides, which provisioning grants to llm_trainer.

CREATE FUNCTION public.pg_llm_file_tensors(path text, max_bytes bigint, checkpoint boolean DEFAULT false,
    OUT "position" bigint, OUT name text, OUT dtype text, OUT shape bigint[], OUT format text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_tensors';
COMMENT ON FUNCTION public.pg_llm_file_tensors(text, bigint, boolean) IS
    'The tensors of a .safetensors, .npz or gzip file on the server, which may declare at most max_bytes of data. Requires pg_read_server_files, like all pg_llm_file_ functions that read. checkpoint: path is FOLDER/FILE below pg_llm.checkpoint_dir.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_tensors(text, bigint, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_tensor(path text, name text, first_row bigint DEFAULT 0, rows bigint DEFAULT -1, checkpoint boolean DEFAULT false) RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_tensor';
COMMENT ON FUNCTION public.pg_llm_file_tensor(text, text, bigint, bigint, boolean) IS
    'Rows of a tensor in a file, as float32, from first_row on; rows below 0: all remaining.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_tensor(text, text, bigint, bigint, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_bytes(path text, name text, checkpoint boolean DEFAULT false) RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_bytes';
COMMENT ON FUNCTION public.pg_llm_file_bytes(text, text, boolean) IS
    'The contents of a byte tensor in a file.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_bytes(text, text, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_metadata(path text, key text, checkpoint boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_metadata';
COMMENT ON FUNCTION public.pg_llm_file_metadata(text, text, boolean) IS
    'The value of a key in a .safetensors file''s __metadata__; NULL if it has no such key.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_metadata(text, text, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_sha256(path text, checkpoint boolean DEFAULT false, OUT bytes bigint, OUT sha256 text) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_sha256';
COMMENT ON FUNCTION public.pg_llm_file_sha256(text, boolean) IS
    'The size and SHA-256 of a file.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_sha256(text, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_write(path text, format text, tensors text, data text, argument text, metadata text[], checkpoint boolean DEFAULT false, OUT bytes bigint, OUT sha256 text) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_write';
COMMENT ON FUNCTION public.pg_llm_file_write(text, text, text, text, text, text[], boolean) IS
    'Writes a file atomically from two queries with the parameter $1 = argument: tensors gives (name text, dtype text, shape int[]), data gives (data tensor, bytes bytea), one of them NULL. Requires pg_write_server_files. 42804: a query has other columns; 22004: a value is NULL.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_write(text, text, text, text, text, text[], boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_write(model text, OUT file text, OUT bytes bigint, OUT sha256 text) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_write';
COMMENT ON FUNCTION public.pg_llm_checkpoint_write(text) IS
    'Writes the model, as llm_checkpoint_tensors, _data and _metadata give it, to a new checkpoint file; the file is removed unless the transaction commits. Returns its name below the checkpoint directory, its size and SHA-256.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_write(text) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_tensors(id bigint,
    OUT "position" bigint, OUT name text, OUT dtype text, OUT shape bigint[], OUT format text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_tensors';
COMMENT ON FUNCTION public.pg_llm_checkpoint_tensors(bigint) IS
    'The tensors of a checkpoint. Errors, as for all pg_llm_checkpoint_ functions that take an id: 42704: no such row is visible to the caller; 22000: the file differs from what the row says; 58P01: the file is missing.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_tensors(bigint) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_tensor(id bigint, name text, first_row bigint DEFAULT 0, rows bigint DEFAULT -1) RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_tensor';
COMMENT ON FUNCTION public.pg_llm_checkpoint_tensor(bigint, text, bigint, bigint) IS
    'Rows of a tensor in a checkpoint from first_row on; rows below 0: all remaining.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_tensor(bigint, text, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_bytes(id bigint, name text) RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_bytes';
COMMENT ON FUNCTION public.pg_llm_checkpoint_bytes(bigint, text) IS
    'The contents of a byte tensor in a checkpoint.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_bytes(bigint, text) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_metadata(id bigint, key text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_metadata';
COMMENT ON FUNCTION public.pg_llm_checkpoint_metadata(bigint, text) IS
    'The value of a key in a checkpoint''s __metadata__; NULL if it has no such key.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_metadata(bigint, text) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_sweep() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_sweep';
COMMENT ON FUNCTION public.pg_llm_checkpoint_sweep() IS
    'When the transaction commits, removes this database''s files in the checkpoint directories that no row of llm_checkpoint names and whose writers have ended. Rows that row policies hide from the caller count, too.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_sweep() FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_files() RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_files';
COMMENT ON FUNCTION public.pg_llm_checkpoint_files() IS
    'Files of this database in the checkpoint directories, for roles with the privileges of pg_read_server_files.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_files() FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_name(file text) RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_name';
COMMENT ON FUNCTION public.pg_llm_checkpoint_name(text) IS
    'The name, below the checkpoint directory, of a file in the folder of this database.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_name(text) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_orphans(remove boolean, OUT folder text, OUT files bigint, OUT bytes bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_orphans';
COMMENT ON FUNCTION public.pg_llm_checkpoint_orphans(boolean) IS
    'Folders in the checkpoint directories that belong to databases that no longer exist, for superusers. remove: delete them immediately.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_orphans(boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_megatron_order(x public.tensor, n_head integer, version_2 boolean) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_megatron_order';
COMMENT ON FUNCTION public.pg_llm_megatron_order(public.tensor, integer, boolean) IS
    'The rows of Megatron-LM''s fused query_key_value, reordered as queries, keys, values with heads in order. version_2: the rows are heads x 3 x d_head, otherwise heads x d_head x 3.';

-- Privileges. Functions that compute only with their arguments keep PUBLIC's EXECUTE, where the database has it. Functions
-- that read or change the state of a session, the server or its files are granted by an administrator or by provisioning;
-- the owner of the database may grant them.
DO $grants$
DECLARE
    routine record;
    -- Input, output, casts, comparison, accessors, constructors, aggregates, ops and their gradients, choosing a token
    -- from given logits, an optimizer's step on given tensors.
    computes CONSTANT text := '^(tensor|shape|ndims|norm|sum|avg|pg_llm_tensor_(?!id$)\w+|pg_llm_('
        'item|full|normal|zeros_like|ones_like|sum_accum|sum_final|avg_final|'
        '(embedding|linear|matmul|add|sub|mul|div|neg|layernorm|rmsnorm|gelu|gelu_exact|activation|relu|softmax|dropout|'
        'causal_attention|lm_head|lm_head_loss|cross_entropy|transpose|reshape|slice|concat|last|sum|mean|attention)'
        '(_backward)?|'
        '(add|sub|mul|div)_number|number_(add|sub|mul|div)|'
        'sample|penalize|top_tokens|adamw_step|grad_clip|lr_schedule|megatron_order))$';
BEGIN
    FOR routine IN
        SELECT p.oid::pg_catalog.regprocedure AS signature, p.proname AS name
        FROM pg_catalog.pg_depend d
        INNER JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_llm'
        INNER JOIN pg_catalog.pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND d.deptype = 'e' AND p.proname <> 'pg_llm_read_file'
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO pg_database_owner WITH GRANT OPTION', routine.signature);
        IF routine.name !~ computes THEN
            EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', routine.signature);
        END IF;
        IF pg_catalog.starts_with(routine.name, 'pg_llm_file_') THEN
            EXECUTE pg_catalog.format(
                'GRANT EXECUTE ON ROUTINE %s TO pg_read_server_files, pg_write_server_files', routine.signature
            );
        END IF;
    END LOOP;
END
$grants$;
