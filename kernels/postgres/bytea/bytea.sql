-- What else has an overload on bytea: constants, activations and poolings by name, a complete attention layer,
-- sampling, the optimizer.

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

CREATE FUNCTION public.pg_llm_attention(
    x bytea, w_qkv bytea, b_qkv bytea, w_o bytea, b_o bytea, n_head integer, t integer, d integer
)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_attention';
COMMENT ON FUNCTION public.pg_llm_attention(bytea, bytea, bytea, bytea, bytea, integer, integer, integer) IS
    'causal multi-head self-attention of x (t,d) with its projections';

CREATE FUNCTION public.pg_llm_activation(x bytea, name text)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_activation';
COMMENT ON FUNCTION public.pg_llm_activation(bytea, text) IS
    'the activation with this name in Hugging Face configurations, elementwise';

CREATE FUNCTION public.pg_llm_pool(x bytea, lengths integer[], pooling text, n integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_pool';
COMMENT ON FUNCTION public.pg_llm_pool(bytea, integer[], text, integer, integer) IS
    'one row for each sequence of x (n,d): pg_llm_mean_pool or pg_llm_cls_pool, by pooling, mean or cls';

CREATE FUNCTION public.pg_llm_pool_backward(
    dout bytea, x bytea, lengths integer[], pooling text, n integer, d integer
)
    RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_pool_backward';
COMMENT ON FUNCTION public.pg_llm_pool_backward(bytea, bytea, integer[], text, integer, integer) IS
    'gradient of pg_llm_pool from that of its output';

CREATE FUNCTION public.pg_llm_sample(
    logits bytea, temperature double precision DEFAULT 1, top_k integer DEFAULT 0, top_p double precision DEFAULT 1,
    seed bigint DEFAULT NULL, step bigint DEFAULT 0
)
    RETURNS integer
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sample';
COMMENT ON FUNCTION public.pg_llm_sample(bytea, double precision, integer, double precision, bigint, bigint) IS
    'a token id drawn from one row of logits; temperature 0 is greedy, top_k 0 and top_p 1 are off, seed NULL is '
    'random';

CREATE FUNCTION public.pg_llm_activation_backward(dout bytea, x bytea, name text)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_activation_backward';
COMMENT ON FUNCTION public.pg_llm_activation_backward(bytea, bytea, text) IS
    'gradient of pg_llm_activation from that of its output';

CREATE FUNCTION public.pg_llm_attention_backward(
    dout bytea, x bytea, w_qkv bytea, b_qkv bytea, w_o bytea, b_o bytea, n_head integer, t integer, d integer,
    OUT dx bytea, OUT dw_qkv bytea, OUT db_qkv bytea, OUT dw_o bytea, OUT db_o bytea
)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_attention_backward';
COMMENT ON FUNCTION public.pg_llm_attention_backward(
    bytea, bytea, bytea, bytea, bytea, bytea, integer, integer, integer
) IS
    'gradients of pg_llm_attention from that of its output';

CREATE FUNCTION public.pg_llm_grad_clip(grad bytea, clip double precision)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_grad_clip';
COMMENT ON FUNCTION public.pg_llm_grad_clip(bytea, double precision) IS
    'the gradient scaled so that its norm is at most clip';

CREATE FUNCTION public.pg_llm_adamw_step(
    INOUT weight bytea, grad bytea, INOUT m bytea, INOUT v bytea, lr double precision, beta1 double precision,
    beta2 double precision, eps double precision, weight_decay double precision, step bigint
)
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_adamw_step';
COMMENT ON FUNCTION public.pg_llm_adamw_step(
    bytea, bytea, bytea, bytea, double precision, double precision, double precision, double precision,
    double precision, bigint
) IS
    'one AdamW step; with a NULL gradient nothing changes, NULL moments start from zero';

-- Ops on one row, whose length the bytea tells.

CREATE FUNCTION public.pg_llm_softmax(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_softmax';
COMMENT ON FUNCTION public.pg_llm_softmax(bytea) IS 'softmax over all elements as one row';

CREATE FUNCTION public.pg_llm_rmsnorm(x bytea, eps double precision DEFAULT 1e-5)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rmsnorm';
COMMENT ON FUNCTION public.pg_llm_rmsnorm(bytea, double precision) IS
    'x / sqrt(mean(x^2) + eps) over all elements as one row';

CREATE FUNCTION public.pg_llm_cross_entropy(logits bytea, target integer)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_cross_entropy_row';
COMMENT ON FUNCTION public.pg_llm_cross_entropy(bytea, integer) IS
    '-log softmax(logits)[target]; 0 for a target below 0';
