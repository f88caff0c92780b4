-- The type tensor: input and output, casts, comparison, accessors, constructors, aggregates.

CREATE TYPE public.tensor;

CREATE FUNCTION public.pg_llm_tensor_in(cstring, oid, integer)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_in';
COMMENT ON FUNCTION public.pg_llm_tensor_in(cstring, oid, integer) IS
    'text to tensor: [[1,2],[3,4]], a number, or {0,3}[] for a shape without elements';

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
COMMENT ON TYPE public.tensor IS
    'n-dimensional array of float32, row-major, with its shape in the value, stored as float32 or '
    'bf16; text [[1,2],[3,4]], a bare number for 0 '
    'dimensions, {0,3}[] where lists do not show the shape of a tensor without elements';

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
COMMENT ON FUNCTION public.pg_llm_tensor_to_real_array(public.tensor) IS
    'array of the tensor''s shape; a 0-d tensor gives one element';
CREATE CAST (public.tensor AS real[]) WITH FUNCTION public.pg_llm_tensor_to_real_array(public.tensor);
COMMENT ON CAST (public.tensor AS real[]) IS 'array of the tensor''s shape; a 0-d tensor gives one element';

CREATE FUNCTION public.pg_llm_tensor_to_double_array(public.tensor)
    RETURNS double precision[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_to_float8_array';
COMMENT ON FUNCTION public.pg_llm_tensor_to_double_array(public.tensor) IS
    'array of the tensor''s shape; a 0-d tensor gives one element';
CREATE CAST (public.tensor AS double precision[]) WITH FUNCTION public.pg_llm_tensor_to_double_array(public.tensor);
COMMENT ON CAST (public.tensor AS double precision[]) IS 'array of the tensor''s shape; a 0-d tensor gives one element';

CREATE FUNCTION public.pg_llm_tensor_to_bytea(public.tensor)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_to_bytea';
COMMENT ON FUNCTION public.pg_llm_tensor_to_bytea(public.tensor) IS
    'the elements as contiguous little-endian float32, without the shape';
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

CREATE FUNCTION public.tensor(data bytea, shape integer[], dtype text)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_from_bytea_of';
COMMENT ON FUNCTION public.tensor(bytea, integer[], text) IS
    'tensor of a shape from contiguous little-endian elements of the type dtype, float32 or bf16, stored as that type';

-- Comparison

CREATE FUNCTION public.pg_llm_tensor_eq(public.tensor, public.tensor)
    RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_tensor_eq';
COMMENT ON FUNCTION public.pg_llm_tensor_eq(public.tensor, public.tensor) IS
    'equal shapes and elements; NaN equals NaN, -0 equals 0';

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
COMMENT ON FUNCTION public.pg_llm_tensor_hash_extended(public.tensor, bigint) IS
    '64-bit hash of shape and elements, seeded';

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

CREATE FUNCTION public.dtype(x public.tensor)
    RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_dtype';
COMMENT ON FUNCTION public.dtype(public.tensor) IS
    'as what the elements of a tensor are stored: float32, or bf16 in half the room, which is read as float32';

CREATE FUNCTION public.pg_llm_to_bf16(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_to_bf16';
COMMENT ON FUNCTION public.pg_llm_to_bf16(public.tensor) IS
    'the tensor with its elements rounded to the nearest bf16 (ties to even) and stored as such; 22003: out of range';

CREATE FUNCTION public.pg_llm_to_float32(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_to_float32';
COMMENT ON FUNCTION public.pg_llm_to_float32(public.tensor) IS 'the same tensor, its elements stored as float32';

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

CREATE FUNCTION public.pg_llm_normal(
    shape integer[], mean double precision, std double precision, seed bigint, stream bigint
)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_normal';
COMMENT ON FUNCTION public.pg_llm_normal(integer[], double precision, double precision, bigint, bigint) IS
    'normally distributed numbers; element i depends on (seed, stream, i) only';

CREATE FUNCTION public.pg_llm_uniform(
    shape integer[], low double precision, high double precision, seed bigint, stream bigint
)
    RETURNS public.tensor
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_uniform';
COMMENT ON FUNCTION public.pg_llm_uniform(integer[], double precision, double precision, bigint, bigint) IS
    'numbers uniformly distributed between low and high; element i depends on (seed, stream, i) only';

-- Aggregates

CREATE FUNCTION public.pg_llm_sum_accum(internal, public.tensor)
    RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_sum_accum';
COMMENT ON FUNCTION public.pg_llm_sum_accum(internal, public.tensor) IS
    'transition function of sum(tensor) and avg(tensor)';

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

CREATE FUNCTION public.pg_llm_disk_free(relation regclass)
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_disk_free';
COMMENT ON FUNCTION public.pg_llm_disk_free(regclass) IS
    'Free bytes on the file system of the relation''s tablespace; NULL if unknown.';

CREATE FUNCTION public.pg_llm_wal_free(relation regclass, OUT free bigint, OUT ahead bigint, OUT shared boolean)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_wal_free';
COMMENT ON FUNCTION public.pg_llm_wal_free(regclass) IS
    'Room for WAL: bytes free on its file system (NULL if unknown), bytes of WAL files that are ready to be used, and '
    'whether the relation lies on the same file system.';

CREATE FUNCTION public.pg_llm_memory_free()
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_memory_free';
COMMENT ON FUNCTION public.pg_llm_memory_free() IS
    'Bytes of memory available to this session''s tensors, including what they already use; NULL if unknown.';
