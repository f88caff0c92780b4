\echo Use "CREATE EXTENSION pg_llm_vector" to load this file. \quit

-- Bodies are parsed here, where the search path holds the schemas of the required extensions, pgvector's whichever it
-- is: what a caller's search path holds does not matter.

CREATE FUNCTION public.pg_llm_tensor_to_vector(t public.tensor, typmod integer, is_explicit boolean) RETURNS vector
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    -- The subquery keeps it from being inlined, which would lose the length of CREATE TABLE ... AS SELECT t::vector(3).
    RETURN (SELECT array_to_vector(public.pg_llm_tensor_to_real_array(t), typmod, is_explicit));
COMMENT ON FUNCTION public.pg_llm_tensor_to_vector(public.tensor, integer, boolean) IS
    'The numbers of a tensor of one dimension as pgvector''s vector; 22000 for other shapes and for non-finite '
    'numbers.';

CREATE CAST (public.tensor AS vector) WITH FUNCTION public.pg_llm_tensor_to_vector(public.tensor, integer, boolean);
COMMENT ON CAST (public.tensor AS vector) IS 'a tensor of one dimension as pgvector''s vector';

CREATE FUNCTION public.pg_llm_vector_to_tensor(v vector) RETURNS public.tensor
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN public.tensor(vector_to_float4(v, -1, true));
COMMENT ON FUNCTION public.pg_llm_vector_to_tensor(vector) IS
    'pgvector''s vector as a tensor of one dimension.';

CREATE CAST (vector AS public.tensor) WITH FUNCTION public.pg_llm_vector_to_tensor(vector);
COMMENT ON CAST (vector AS public.tensor) IS 'pgvector''s vector as a tensor of one dimension';
