-- The ops and their gradients on bytea.
-- Written by ops/make_ops.py from the declarations in ops/op_*.c: change those.
-- Contiguous little-endian float32 whose sizes are arguments. Nothing here is recorded.

CREATE FUNCTION public.pg_llm_embedding(w bytea, ids integer[], rows integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_embedding';
COMMENT ON FUNCTION public.pg_llm_embedding(bytea, integer[], integer, integer) IS 'rows of w (rows,d) at ids';

CREATE FUNCTION public.pg_llm_embedding_backward(dout bytea, w bytea, ids integer[], rows integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_embedding_backward';
COMMENT ON FUNCTION public.pg_llm_embedding_backward(bytea, bytea, integer[], integer, integer) IS
    'gradient of pg_llm_embedding from that of its output';

CREATE FUNCTION public.pg_llm_causal_attention(q bytea, k bytea, v bytea, n_head integer, t integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_causal_attention';
COMMENT ON FUNCTION public.pg_llm_causal_attention(bytea, bytea, bytea, integer, integer, integer) IS
    'causal multi-head attention over q, k, v (t,d) each -> (t,d)';

CREATE FUNCTION public.pg_llm_causal_attention_backward(
    dout bytea, q bytea, k bytea, v bytea, n_head integer, t integer, d integer, OUT dq bytea, OUT dk bytea, OUT
    dv bytea
)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_causal_attention_backward';
COMMENT ON FUNCTION public.pg_llm_causal_attention_backward(bytea, bytea, bytea, bytea, integer, integer, integer) IS
    'gradients of pg_llm_causal_attention from that of its output';

CREATE FUNCTION public.pg_llm_bidirectional_attention(
    q bytea, k bytea, v bytea, n_head integer, dropout_p double precision, training boolean, site text,
    lengths integer[], n integer, d integer
)
    RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_bidirectional_attention';
COMMENT ON FUNCTION public.pg_llm_bidirectional_attention(
    bytea, bytea, bytea, integer, double precision, boolean, text, integer[], integer, integer
) IS
    'multi-head attention of every token to all of its sequence; q, k, v (n,d) each hold sequences of lengths tokens '
    'end to end, or one (NULL) -> (n,d)';

CREATE FUNCTION public.pg_llm_bidirectional_attention_backward(
    dout bytea, q bytea, k bytea, v bytea, n_head integer, dropout_p double precision, training boolean, site text,
    lengths integer[], n integer, d integer, OUT dq bytea, OUT dk bytea, OUT dv bytea
)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_bidirectional_attention_backward';
COMMENT ON FUNCTION public.pg_llm_bidirectional_attention_backward(
    bytea, bytea, bytea, bytea, integer, double precision, boolean, text, integer[], integer, integer
) IS
    'gradients of pg_llm_bidirectional_attention from that of its output';

CREATE FUNCTION public.pg_llm_causal_attention(qkv bytea, n_head integer, t integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_causal_attention_qkv';
COMMENT ON FUNCTION public.pg_llm_causal_attention(bytea, integer, integer, integer) IS
    'causal multi-head attention over qkv (t,3d) = [q | k | v] per token -> (t,d)';

CREATE FUNCTION public.pg_llm_causal_attention_backward(dout bytea, qkv bytea, n_head integer, t integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_causal_attention_qkv_backward';
COMMENT ON FUNCTION public.pg_llm_causal_attention_backward(bytea, bytea, integer, integer, integer) IS
    'gradient of pg_llm_causal_attention from that of its output';

CREATE FUNCTION public.pg_llm_add(a bytea, b bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_add';
COMMENT ON FUNCTION public.pg_llm_add(bytea, bytea) IS 'elementwise sum of equal sizes';

CREATE FUNCTION public.pg_llm_add_backward(dout bytea, a bytea, b bytea, OUT da bytea, OUT db bytea)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_add_backward';
COMMENT ON FUNCTION public.pg_llm_add_backward(bytea, bytea, bytea) IS
    'gradients of pg_llm_add from that of its output';

CREATE FUNCTION public.pg_llm_sub(a bytea, b bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sub';
COMMENT ON FUNCTION public.pg_llm_sub(bytea, bytea) IS 'elementwise difference of equal sizes';

CREATE FUNCTION public.pg_llm_sub_backward(dout bytea, a bytea, b bytea, OUT da bytea, OUT db bytea)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sub_backward';
COMMENT ON FUNCTION public.pg_llm_sub_backward(bytea, bytea, bytea) IS
    'gradients of pg_llm_sub from that of its output';

CREATE FUNCTION public.pg_llm_mul(a bytea, b bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mul';
COMMENT ON FUNCTION public.pg_llm_mul(bytea, bytea) IS 'elementwise product of equal sizes';

CREATE FUNCTION public.pg_llm_mul_backward(dout bytea, a bytea, b bytea, OUT da bytea, OUT db bytea)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mul_backward';
COMMENT ON FUNCTION public.pg_llm_mul_backward(bytea, bytea, bytea) IS
    'gradients of pg_llm_mul from that of its output';

CREATE FUNCTION public.pg_llm_div(a bytea, b bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_div';
COMMENT ON FUNCTION public.pg_llm_div(bytea, bytea) IS 'elementwise quotient of equal sizes';

CREATE FUNCTION public.pg_llm_div_backward(dout bytea, a bytea, b bytea, OUT da bytea, OUT db bytea)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_div_backward';
COMMENT ON FUNCTION public.pg_llm_div_backward(bytea, bytea, bytea) IS
    'gradients of pg_llm_div from that of its output';

CREATE FUNCTION public.pg_llm_neg(a bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_neg';
COMMENT ON FUNCTION public.pg_llm_neg(bytea) IS '-a, elementwise';

CREATE FUNCTION public.pg_llm_neg_backward(dout bytea, a bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_neg_backward';
COMMENT ON FUNCTION public.pg_llm_neg_backward(bytea, bytea) IS 'gradient of pg_llm_neg from that of its output';

CREATE FUNCTION public.pg_llm_gelu(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_gelu';
COMMENT ON FUNCTION public.pg_llm_gelu(bytea) IS 'GELU, tanh form, elementwise';

CREATE FUNCTION public.pg_llm_gelu_backward(dout bytea, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_gelu_backward';
COMMENT ON FUNCTION public.pg_llm_gelu_backward(bytea, bytea) IS 'gradient of pg_llm_gelu from that of its output';

CREATE FUNCTION public.pg_llm_gelu_exact(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_gelu_exact';
COMMENT ON FUNCTION public.pg_llm_gelu_exact(bytea) IS
    'exact GELU, x times Phi(x), the normal distribution function, elementwise';

CREATE FUNCTION public.pg_llm_gelu_exact_backward(dout bytea, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_gelu_exact_backward';
COMMENT ON FUNCTION public.pg_llm_gelu_exact_backward(bytea, bytea) IS
    'gradient of pg_llm_gelu_exact from that of its output';

CREATE FUNCTION public.pg_llm_relu(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_relu';
COMMENT ON FUNCTION public.pg_llm_relu(bytea) IS 'max(x, 0), elementwise';

CREATE FUNCTION public.pg_llm_relu_backward(dout bytea, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_relu_backward';
COMMENT ON FUNCTION public.pg_llm_relu_backward(bytea, bytea) IS 'gradient of pg_llm_relu from that of its output';

CREATE FUNCTION public.pg_llm_silu(x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_silu';
COMMENT ON FUNCTION public.pg_llm_silu(bytea) IS 'SiLU, x times its sigmoid, elementwise';

CREATE FUNCTION public.pg_llm_silu_backward(dout bytea, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_silu_backward';
COMMENT ON FUNCTION public.pg_llm_silu_backward(bytea, bytea) IS 'gradient of pg_llm_silu from that of its output';

CREATE FUNCTION public.pg_llm_swiglu(gate bytea, up bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_swiglu';
COMMENT ON FUNCTION public.pg_llm_swiglu(bytea, bytea) IS 'silu(gate) * up, elementwise, of equal sizes';

CREATE FUNCTION public.pg_llm_swiglu_backward(dout bytea, gate bytea, up bytea, OUT dgate bytea, OUT dup bytea)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_swiglu_backward';
COMMENT ON FUNCTION public.pg_llm_swiglu_backward(bytea, bytea, bytea) IS
    'gradients of pg_llm_swiglu from that of its output';

CREATE FUNCTION public.pg_llm_dropout(x bytea, p double precision, training boolean DEFAULT false, site text DEFAULT '')
    RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_dropout';
COMMENT ON FUNCTION public.pg_llm_dropout(bytea, double precision, boolean, text) IS
    'inverted dropout when training, otherwise x; the mask depends on the pass (pg_llm_pass_begin), the site and the '
    'element';

CREATE FUNCTION public.pg_llm_dropout_backward(
    dout bytea, x bytea, p double precision, training boolean DEFAULT false, site text DEFAULT ''
)
    RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_dropout_backward';
COMMENT ON FUNCTION public.pg_llm_dropout_backward(bytea, bytea, double precision, boolean, text) IS
    'gradient of pg_llm_dropout from that of its output';

CREATE FUNCTION public.pg_llm_linear(x bytea, w bytea, b bytea, n integer, i integer, o integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_linear';
COMMENT ON FUNCTION public.pg_llm_linear(bytea, bytea, bytea, integer, integer, integer) IS
    'x (n,i) @ w (i,o) + b (o) -> (n,o)';

CREATE FUNCTION public.pg_llm_linear_backward(
    dout bytea, x bytea, w bytea, b bytea, n integer, i integer, o integer, OUT dx bytea, OUT dw bytea, OUT db bytea
)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_linear_backward';
COMMENT ON FUNCTION public.pg_llm_linear_backward(bytea, bytea, bytea, bytea, integer, integer, integer) IS
    'gradients of pg_llm_linear from that of its output';

CREATE FUNCTION public.pg_llm_linear(x bytea, w bytea, n integer, i integer, o integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_linear_nobias';
COMMENT ON FUNCTION public.pg_llm_linear(bytea, bytea, integer, integer, integer) IS 'x (n,i) @ w (i,o) -> (n,o)';

CREATE FUNCTION public.pg_llm_linear_backward(
    dout bytea, x bytea, w bytea, n integer, i integer, o integer, OUT dx bytea, OUT dw bytea
)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_linear_nobias_backward';
COMMENT ON FUNCTION public.pg_llm_linear_backward(bytea, bytea, bytea, integer, integer, integer) IS
    'gradients of pg_llm_linear from that of its output';

CREATE FUNCTION public.pg_llm_matmul(a bytea, b bytea, m integer, k integer, n integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_matmul';
COMMENT ON FUNCTION public.pg_llm_matmul(bytea, bytea, integer, integer, integer) IS 'a (m,k) @ b (k,n) -> (m,n)';

CREATE FUNCTION public.pg_llm_matmul_backward(
    dout bytea, a bytea, b bytea, m integer, k integer, n integer, OUT da bytea, OUT db bytea
)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_matmul_backward';
COMMENT ON FUNCTION public.pg_llm_matmul_backward(bytea, bytea, bytea, integer, integer, integer) IS
    'gradients of pg_llm_matmul from that of its output';

CREATE FUNCTION public.pg_llm_lm_head(x bytea, w bytea, n integer, d integer, vocab integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_lm_head';
COMMENT ON FUNCTION public.pg_llm_lm_head(bytea, bytea, integer, integer, integer) IS
    'x (n,d) @ transpose of w (vocab,d) -> (n,vocab)';

CREATE FUNCTION public.pg_llm_lm_head_backward(
    dout bytea, x bytea, w bytea, n integer, d integer, vocab integer, OUT dx bytea, OUT dw bytea
)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_lm_head_backward';
COMMENT ON FUNCTION public.pg_llm_lm_head_backward(bytea, bytea, bytea, integer, integer, integer) IS
    'gradients of pg_llm_lm_head from that of its output';

CREATE FUNCTION public.pg_llm_lm_head_loss(x bytea, w bytea, targets integer[], n integer, d integer, vocab integer)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_lm_head_loss';
COMMENT ON FUNCTION public.pg_llm_lm_head_loss(bytea, bytea, integer[], integer, integer, integer) IS
    'mean cross-entropy of pg_llm_lm_head(x, w, n, d, vocab) against targets (below 0: ignored)';

CREATE FUNCTION public.pg_llm_lm_head_loss_backward(
    dout double precision, x bytea, w bytea, targets integer[], n integer, d integer, vocab integer, OUT dx bytea, OUT
    dw bytea
)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_lm_head_loss_backward';
COMMENT ON FUNCTION public.pg_llm_lm_head_loss_backward(
    double precision, bytea, bytea, integer[], integer, integer, integer
) IS
    'gradients of pg_llm_lm_head_loss from that of its output';

CREATE FUNCTION public.pg_llm_layernorm(x bytea, gamma bytea, beta bytea, eps double precision DEFAULT 1e-5)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_layernorm';
COMMENT ON FUNCTION public.pg_llm_layernorm(bytea, bytea, bytea, double precision) IS
    'layer normalisation of each row; a row is as long as gamma';

CREATE FUNCTION public.pg_llm_layernorm_backward(
    dout bytea, x bytea, gamma bytea, beta bytea, eps double precision DEFAULT 1e-5, OUT dx bytea, OUT dgamma bytea, OUT
    dbeta bytea
)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_layernorm_backward';
COMMENT ON FUNCTION public.pg_llm_layernorm_backward(bytea, bytea, bytea, bytea, double precision) IS
    'gradients of pg_llm_layernorm from that of its output';

CREATE FUNCTION public.pg_llm_rmsnorm(x bytea, eps double precision, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rmsnorm';
COMMENT ON FUNCTION public.pg_llm_rmsnorm(bytea, double precision, integer, integer) IS
    'x / sqrt(mean(x^2) + eps) of each row';

CREATE FUNCTION public.pg_llm_rmsnorm_backward(dout bytea, x bytea, eps double precision, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rmsnorm_backward';
COMMENT ON FUNCTION public.pg_llm_rmsnorm_backward(bytea, bytea, double precision, integer, integer) IS
    'gradient of pg_llm_rmsnorm from that of its output';

CREATE FUNCTION public.pg_llm_rmsnorm(x bytea, gain bytea, eps double precision DEFAULT 1e-5)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rmsnorm_gain';
COMMENT ON FUNCTION public.pg_llm_rmsnorm(bytea, bytea, double precision) IS
    'x / sqrt(mean(x^2) + eps) * gain of each row; a row is as long as gain';

CREATE FUNCTION public.pg_llm_rmsnorm_backward(
    dout bytea, x bytea, gain bytea, eps double precision DEFAULT 1e-5, OUT dx bytea, OUT dgain bytea
)
    RETURNS record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rmsnorm_gain_backward';
COMMENT ON FUNCTION public.pg_llm_rmsnorm_backward(bytea, bytea, bytea, double precision) IS
    'gradients of pg_llm_rmsnorm from that of its output';

CREATE FUNCTION public.pg_llm_l2_normalize(x bytea, enabled boolean, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_l2_normalize';
COMMENT ON FUNCTION public.pg_llm_l2_normalize(bytea, boolean, integer, integer) IS
    'x / max(|x|, 1e-12) of each row, |x| its 2-norm; x itself when not enabled';

CREATE FUNCTION public.pg_llm_l2_normalize_backward(dout bytea, x bytea, enabled boolean, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_l2_normalize_backward';
COMMENT ON FUNCTION public.pg_llm_l2_normalize_backward(bytea, bytea, boolean, integer, integer) IS
    'gradient of pg_llm_l2_normalize from that of its output';

CREATE FUNCTION public.pg_llm_softmax(x bytea, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_softmax';
COMMENT ON FUNCTION public.pg_llm_softmax(bytea, integer, integer) IS 'softmax of each row';

CREATE FUNCTION public.pg_llm_softmax_backward(dout bytea, x bytea, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_softmax_backward';
COMMENT ON FUNCTION public.pg_llm_softmax_backward(bytea, bytea, integer, integer) IS
    'gradient of pg_llm_softmax from that of its output';

CREATE FUNCTION public.pg_llm_cross_entropy(logits bytea, targets integer[], rows integer, vocab integer)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_cross_entropy';
COMMENT ON FUNCTION public.pg_llm_cross_entropy(bytea, integer[], integer, integer) IS
    'mean of -log softmax(logits)[target] over rows whose target is not below 0';

CREATE FUNCTION public.pg_llm_cross_entropy_backward(
    dout double precision, logits bytea, targets integer[], rows integer, vocab integer
)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_cross_entropy_backward';
COMMENT ON FUNCTION public.pg_llm_cross_entropy_backward(double precision, bytea, integer[], integer, integer) IS
    'gradient of pg_llm_cross_entropy from that of its output';

CREATE FUNCTION public.pg_llm_mean_pool(x bytea, lengths integer[], n integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mean_pool';
COMMENT ON FUNCTION public.pg_llm_mean_pool(bytea, integer[], integer, integer) IS
    'the mean of each sequence''s rows; x (n,d) holds sequences of lengths tokens end to end, or one (NULL)';

CREATE FUNCTION public.pg_llm_mean_pool_backward(dout bytea, x bytea, lengths integer[], n integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mean_pool_backward';
COMMENT ON FUNCTION public.pg_llm_mean_pool_backward(bytea, bytea, integer[], integer, integer) IS
    'gradient of pg_llm_mean_pool from that of its output';

CREATE FUNCTION public.pg_llm_cls_pool(x bytea, lengths integer[], n integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_cls_pool';
COMMENT ON FUNCTION public.pg_llm_cls_pool(bytea, integer[], integer, integer) IS
    'each sequence''s first row; x (n,d) holds sequences of lengths tokens end to end, or one (NULL)';

CREATE FUNCTION public.pg_llm_cls_pool_backward(dout bytea, x bytea, lengths integer[], n integer, d integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_cls_pool_backward';
COMMENT ON FUNCTION public.pg_llm_cls_pool_backward(bytea, bytea, integer[], integer, integer) IS
    'gradient of pg_llm_cls_pool from that of its output';

CREATE FUNCTION public.pg_llm_rotary(
    x bytea, n_head integer, theta double precision, dims integer, positions integer[], scaling jsonb, t integer,
    d integer
)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rotary';
COMMENT ON FUNCTION public.pg_llm_rotary(
    bytea, integer, double precision, integer, integer[], jsonb, integer, integer
) IS
    'rotary position embedding of x (t,d) in Hugging Face''s half-split form';

CREATE FUNCTION public.pg_llm_rotary_backward(
    dout bytea, x bytea, n_head integer, theta double precision, dims integer, positions integer[], scaling jsonb,
    t integer, d integer
)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_rotary_backward';
COMMENT ON FUNCTION public.pg_llm_rotary_backward(
    bytea, bytea, integer, double precision, integer, integer[], jsonb, integer, integer
) IS
    'gradient of pg_llm_rotary from that of its output';

CREATE FUNCTION public.pg_llm_transpose(src bytea, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_transpose';
COMMENT ON FUNCTION public.pg_llm_transpose(bytea, integer, integer) IS '(rows,cols) -> (cols,rows)';

CREATE FUNCTION public.pg_llm_transpose_backward(dout bytea, src bytea, rows integer, cols integer)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_transpose_backward';
COMMENT ON FUNCTION public.pg_llm_transpose_backward(bytea, bytea, integer, integer) IS
    'gradient of pg_llm_transpose from that of its output';

CREATE FUNCTION public.pg_llm_sum(x bytea)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sum';
COMMENT ON FUNCTION public.pg_llm_sum(bytea) IS 'sum of all elements';

CREATE FUNCTION public.pg_llm_sum_backward(dout double precision, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_sum_backward';
COMMENT ON FUNCTION public.pg_llm_sum_backward(double precision, bytea) IS
    'gradient of pg_llm_sum from that of its output';

CREATE FUNCTION public.pg_llm_mean(x bytea)
    RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mean';
COMMENT ON FUNCTION public.pg_llm_mean(bytea) IS 'mean of all elements';

CREATE FUNCTION public.pg_llm_mean_backward(dout double precision, x bytea)
    RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bytea_mean_backward';
COMMENT ON FUNCTION public.pg_llm_mean_backward(double precision, bytea) IS
    'gradient of pg_llm_mean from that of its output';
