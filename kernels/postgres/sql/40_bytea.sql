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
) IS 'one AdamW step; a NULL gradient changes nothing, NULL moments start from zero';
