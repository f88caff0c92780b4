-- The ops and their gradients.
-- Written by ops/make_ops.py from the declarations in ops/op_*.c: change those.
-- Ops are VOLATILE: while a pass is recorded, each call is put on the tape, so it must run exactly once.
-- Hence they cannot be used in generated columns or indexes.

CREATE FUNCTION public.pg_llm_embedding(w public.tensor, ids integer[])
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_embedding';
COMMENT ON FUNCTION public.pg_llm_embedding(public.tensor, integer[]) IS
    'Rows of w [rows, d] at ids: [ids..., d]. 22003: an id is out of range.';

CREATE FUNCTION public.pg_llm_embedding_backward(dout public.tensor, w public.tensor, ids integer[])
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_embedding_backward';
COMMENT ON FUNCTION public.pg_llm_embedding_backward(public.tensor, public.tensor, integer[]) IS
    'Gradient of pg_llm_embedding from that of its output.';

CREATE FUNCTION public.pg_llm_causal_attention(
    q public.tensor, k public.tensor, v public.tensor, n_head integer, dropout_p double precision DEFAULT 0,
    training boolean DEFAULT false, site text DEFAULT '', n_kv_head integer DEFAULT NULL,
    sliding_window integer DEFAULT NULL
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_causal_attention';
COMMENT ON FUNCTION public.pg_llm_causal_attention(
    public.tensor, public.tensor, public.tensor, integer, double precision, boolean, text, integer, integer
) IS
    'Causal multi-head attention over q [..., t, d], k and v [..., t, d * n_kv_head / n_head], scores scaled by '
    '1/sqrt(d / n_head). n_kv_head: k and v have so many heads, each for n_head / n_kv_head of q''s in a row; NULL: '
    'n_head. sliding_window: a token sees itself and so many less one before it; NULL or 0: all before it.';

CREATE FUNCTION public.pg_llm_causal_attention_backward(
    dout public.tensor, q public.tensor, k public.tensor, v public.tensor, n_head integer,
    dropout_p double precision DEFAULT 0, training boolean DEFAULT false, site text DEFAULT '',
    n_kv_head integer DEFAULT NULL, sliding_window integer DEFAULT NULL, OUT dq public.tensor, OUT dk public.tensor, OUT
    dv public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_causal_attention_backward';
COMMENT ON FUNCTION public.pg_llm_causal_attention_backward(
    public.tensor, public.tensor, public.tensor, public.tensor, integer, double precision, boolean, text, integer,
    integer
) IS
    'Gradients of pg_llm_causal_attention from that of its output: dq, dk, dv.';

CREATE FUNCTION public.pg_llm_bidirectional_attention(
    q public.tensor, k public.tensor, v public.tensor, n_head integer, dropout_p double precision DEFAULT 0,
    training boolean DEFAULT false, site text DEFAULT '', lengths integer[] DEFAULT NULL
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bidirectional_attention';
COMMENT ON FUNCTION public.pg_llm_bidirectional_attention(
    public.tensor, public.tensor, public.tensor, integer, double precision, boolean, text, integer[]
) IS
    'Multi-head attention of every token to all of its sequence, as encoders have it. lengths: q, k, v [n, d] hold '
    'sequences of so many tokens end to end; NULL: each [t, d] of q, k, v [..., t, d] is one. 22023: lengths do not '
    'add up to n.';

CREATE FUNCTION public.pg_llm_bidirectional_attention_backward(
    dout public.tensor, q public.tensor, k public.tensor, v public.tensor, n_head integer,
    dropout_p double precision DEFAULT 0, training boolean DEFAULT false, site text DEFAULT '',
    lengths integer[] DEFAULT NULL, OUT dq public.tensor, OUT dk public.tensor, OUT dv public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bidirectional_attention_backward';
COMMENT ON FUNCTION public.pg_llm_bidirectional_attention_backward(
    public.tensor, public.tensor, public.tensor, public.tensor, integer, double precision, boolean, text, integer[]
) IS
    'Gradients of pg_llm_bidirectional_attention from that of its output: dq, dk, dv.';

CREATE FUNCTION public.pg_llm_causal_attention(
    qkv public.tensor, n_head integer, dropout_p double precision DEFAULT 0, training boolean DEFAULT false,
    site text DEFAULT '', sliding_window integer DEFAULT NULL
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_causal_attention_qkv';
COMMENT ON FUNCTION public.pg_llm_causal_attention(public.tensor, integer, double precision, boolean, text, integer) IS
    'Causal multi-head attention over qkv [..., t, 3 d] = [q | k | v] per token: [..., t, d], scores scaled by '
    '1/sqrt(d / n_head). sliding_window: a token sees itself and so many less one before it; NULL or 0: all before '
    'it.';

CREATE FUNCTION public.pg_llm_causal_attention_backward(
    dout public.tensor, qkv public.tensor, n_head integer, dropout_p double precision DEFAULT 0,
    training boolean DEFAULT false, site text DEFAULT '', sliding_window integer DEFAULT NULL
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_causal_attention_qkv_backward';
COMMENT ON FUNCTION public.pg_llm_causal_attention_backward(
    public.tensor, public.tensor, integer, double precision, boolean, text, integer
) IS
    'Gradient of pg_llm_causal_attention from that of its output.';

CREATE FUNCTION public.pg_llm_add(a public.tensor, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_add';
COMMENT ON FUNCTION public.pg_llm_add(public.tensor, public.tensor) IS
    'a + b, element by element, with NumPy''s broadcasting.';

CREATE FUNCTION public.pg_llm_add_backward(
    dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_add_backward';
COMMENT ON FUNCTION public.pg_llm_add_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_add from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_sub(a public.tensor, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_sub';
COMMENT ON FUNCTION public.pg_llm_sub(public.tensor, public.tensor) IS
    'a - b, element by element, with NumPy''s broadcasting.';

CREATE FUNCTION public.pg_llm_sub_backward(
    dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_sub_backward';
COMMENT ON FUNCTION public.pg_llm_sub_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_sub from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_mul(a public.tensor, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_mul';
COMMENT ON FUNCTION public.pg_llm_mul(public.tensor, public.tensor) IS
    'a * b, element by element, with NumPy''s broadcasting.';

CREATE FUNCTION public.pg_llm_mul_backward(
    dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_mul_backward';
COMMENT ON FUNCTION public.pg_llm_mul_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_mul from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_div(a public.tensor, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_div';
COMMENT ON FUNCTION public.pg_llm_div(public.tensor, public.tensor) IS
    'a / b, element by element, with NumPy''s broadcasting.';

CREATE FUNCTION public.pg_llm_div_backward(
    dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_div_backward';
COMMENT ON FUNCTION public.pg_llm_div_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_div from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_neg(a public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_neg';
COMMENT ON FUNCTION public.pg_llm_neg(public.tensor) IS '-a.';

CREATE FUNCTION public.pg_llm_neg_backward(dout public.tensor, a public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_neg_backward';
COMMENT ON FUNCTION public.pg_llm_neg_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_neg from that of its output.';

CREATE FUNCTION public.pg_llm_gelu(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_gelu';
COMMENT ON FUNCTION public.pg_llm_gelu(public.tensor) IS
    'GELU in the tanh form, as GPT-2 has it (Hendrycks & Gimpel 2016).';

CREATE FUNCTION public.pg_llm_gelu_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_gelu_backward';
COMMENT ON FUNCTION public.pg_llm_gelu_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_gelu from that of its output.';

CREATE FUNCTION public.pg_llm_gelu_exact(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_gelu_exact';
COMMENT ON FUNCTION public.pg_llm_gelu_exact(public.tensor) IS
    'Exact GELU, x times Phi(x), the normal distribution function (Hendrycks & Gimpel 2016).';

CREATE FUNCTION public.pg_llm_gelu_exact_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_gelu_exact_backward';
COMMENT ON FUNCTION public.pg_llm_gelu_exact_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_gelu_exact from that of its output.';

CREATE FUNCTION public.pg_llm_relu(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_relu';
COMMENT ON FUNCTION public.pg_llm_relu(public.tensor) IS 'max(x, 0).';

CREATE FUNCTION public.pg_llm_relu_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_relu_backward';
COMMENT ON FUNCTION public.pg_llm_relu_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_relu from that of its output.';

CREATE FUNCTION public.pg_llm_silu(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_silu';
COMMENT ON FUNCTION public.pg_llm_silu(public.tensor) IS
    'SiLU, x times its sigmoid (Hendrycks & Gimpel 2016), also called swish.';

CREATE FUNCTION public.pg_llm_silu_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_silu_backward';
COMMENT ON FUNCTION public.pg_llm_silu_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_silu from that of its output.';

CREATE FUNCTION public.pg_llm_swiglu(gate public.tensor, up public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_swiglu';
COMMENT ON FUNCTION public.pg_llm_swiglu(public.tensor, public.tensor) IS
    'SwiGLU, silu(gate) * up, element by element: the middle of a gated feed-forward layer (Shazeer 2020).';

CREATE FUNCTION public.pg_llm_swiglu_backward(
    dout public.tensor, gate public.tensor, up public.tensor, OUT dgate public.tensor, OUT dup public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_swiglu_backward';
COMMENT ON FUNCTION public.pg_llm_swiglu_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_swiglu from that of its output: dgate, dup.';

CREATE FUNCTION public.pg_llm_dropout(
    x public.tensor, p double precision, training boolean DEFAULT false, site text DEFAULT ''
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_dropout';
COMMENT ON FUNCTION public.pg_llm_dropout(public.tensor, double precision, boolean, text) IS
    'Inverted dropout when training, otherwise x. The mask depends on the pass (pg_llm_pass_begin), the site and the '
    'element.';

CREATE FUNCTION public.pg_llm_dropout_backward(
    dout public.tensor, x public.tensor, p double precision, training boolean DEFAULT false, site text DEFAULT ''
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_dropout_backward';
COMMENT ON FUNCTION public.pg_llm_dropout_backward(public.tensor, public.tensor, double precision, boolean, text) IS
    'Gradient of pg_llm_dropout from that of its output.';

CREATE FUNCTION public.pg_llm_linear(x public.tensor, w public.tensor, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_linear';
COMMENT ON FUNCTION public.pg_llm_linear(public.tensor, public.tensor, public.tensor) IS
    'x [..., i] @ w [i, o] + b [o].';

CREATE FUNCTION public.pg_llm_linear_backward(
    dout public.tensor, x public.tensor, w public.tensor, b public.tensor, OUT dx public.tensor, OUT dw public.tensor,
    OUT db public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_linear_backward';
COMMENT ON FUNCTION public.pg_llm_linear_backward(public.tensor, public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_linear from that of its output: dx, dw, db.';

CREATE FUNCTION public.pg_llm_linear(x public.tensor, w public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_linear_nobias';
COMMENT ON FUNCTION public.pg_llm_linear(public.tensor, public.tensor) IS 'x [..., i] @ w [i, o].';

CREATE FUNCTION public.pg_llm_linear_backward(
    dout public.tensor, x public.tensor, w public.tensor, OUT dx public.tensor, OUT dw public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_linear_nobias_backward';
COMMENT ON FUNCTION public.pg_llm_linear_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_linear from that of its output: dx, dw.';

CREATE FUNCTION public.pg_llm_matmul(a public.tensor, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_matmul';
COMMENT ON FUNCTION public.pg_llm_matmul(public.tensor, public.tensor) IS
    'Matrix product as NumPy''s matmul: batched over leading axes, which broadcast.';

CREATE FUNCTION public.pg_llm_matmul_backward(
    dout public.tensor, a public.tensor, b public.tensor, OUT da public.tensor, OUT db public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_matmul_backward';
COMMENT ON FUNCTION public.pg_llm_matmul_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_matmul from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_lm_head(x public.tensor, w public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_lm_head';
COMMENT ON FUNCTION public.pg_llm_lm_head(public.tensor, public.tensor) IS
    'Logits x [..., d] @ w [vocab, d] transposed: [..., vocab].';

CREATE FUNCTION public.pg_llm_lm_head_backward(
    dout public.tensor, x public.tensor, w public.tensor, OUT dx public.tensor, OUT dw public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_lm_head_backward';
COMMENT ON FUNCTION public.pg_llm_lm_head_backward(public.tensor, public.tensor, public.tensor) IS
    'Gradients of pg_llm_lm_head from that of its output: dx, dw.';

CREATE FUNCTION public.pg_llm_lm_head_loss(x public.tensor, w public.tensor, targets integer[])
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_lm_head_loss';
COMMENT ON FUNCTION public.pg_llm_lm_head_loss(public.tensor, public.tensor, integer[]) IS
    'Mean cross-entropy of pg_llm_lm_head(x, w) against targets (below 0: ignored), computed without storing all '
    'logits.';

CREATE FUNCTION public.pg_llm_lm_head_loss_backward(
    dout public.tensor, x public.tensor, w public.tensor, targets integer[], OUT dx public.tensor, OUT dw public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_lm_head_loss_backward';
COMMENT ON FUNCTION public.pg_llm_lm_head_loss_backward(public.tensor, public.tensor, public.tensor, integer[]) IS
    'Gradients of pg_llm_lm_head_loss from that of its output: dx, dw.';

CREATE FUNCTION public.pg_llm_layernorm(
    x public.tensor, gamma public.tensor, beta public.tensor, eps double precision DEFAULT 1e-5
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_layernorm';
COMMENT ON FUNCTION public.pg_llm_layernorm(public.tensor, public.tensor, public.tensor, double precision) IS
    '(x - mean) / sqrt(variance + eps) * gamma + beta per row of the last axis (Ba et al. 2016).';

CREATE FUNCTION public.pg_llm_layernorm_backward(
    dout public.tensor, x public.tensor, gamma public.tensor, beta public.tensor, eps double precision DEFAULT 1e-5, OUT
    dx public.tensor, OUT dgamma public.tensor, OUT dbeta public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_layernorm_backward';
COMMENT ON FUNCTION public.pg_llm_layernorm_backward(
    public.tensor, public.tensor, public.tensor, public.tensor, double precision
) IS
    'Gradients of pg_llm_layernorm from that of its output: dx, dgamma, dbeta.';

CREATE FUNCTION public.pg_llm_rmsnorm(x public.tensor, eps double precision DEFAULT 1e-5)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_rmsnorm';
COMMENT ON FUNCTION public.pg_llm_rmsnorm(public.tensor, double precision) IS
    'x / sqrt(mean(x^2) + eps) per row of the last axis, without a gain (Zhang & Sennrich 2019).';

CREATE FUNCTION public.pg_llm_rmsnorm_backward(dout public.tensor, x public.tensor, eps double precision DEFAULT 1e-5)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_rmsnorm_backward';
COMMENT ON FUNCTION public.pg_llm_rmsnorm_backward(public.tensor, public.tensor, double precision) IS
    'Gradient of pg_llm_rmsnorm from that of its output.';

CREATE FUNCTION public.pg_llm_rmsnorm(x public.tensor, gain public.tensor, eps double precision DEFAULT 1e-5)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_rmsnorm_gain';
COMMENT ON FUNCTION public.pg_llm_rmsnorm(public.tensor, public.tensor, double precision) IS
    'x / sqrt(mean(x^2) + eps) * gain per row of the last axis (Zhang & Sennrich 2019). A gain of g numbers, where g '
    'divides the axis: each g numbers of a row are normalised by themselves, as heads are.';

CREATE FUNCTION public.pg_llm_rmsnorm_backward(
    dout public.tensor, x public.tensor, gain public.tensor, eps double precision DEFAULT 1e-5, OUT dx public.tensor,
    OUT dgain public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_rmsnorm_gain_backward';
COMMENT ON FUNCTION public.pg_llm_rmsnorm_backward(public.tensor, public.tensor, public.tensor, double precision) IS
    'Gradients of pg_llm_rmsnorm from that of its output: dx, dgain.';

CREATE FUNCTION public.pg_llm_l2_normalize(x public.tensor, enabled boolean DEFAULT true)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_l2_normalize';
COMMENT ON FUNCTION public.pg_llm_l2_normalize(public.tensor, boolean) IS
    'x / max(|x|, 1e-12) per row of the last axis, |x| its 2-norm; x itself when not enabled.';

CREATE FUNCTION public.pg_llm_l2_normalize_backward(dout public.tensor, x public.tensor, enabled boolean DEFAULT true)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_l2_normalize_backward';
COMMENT ON FUNCTION public.pg_llm_l2_normalize_backward(public.tensor, public.tensor, boolean) IS
    'Gradient of pg_llm_l2_normalize from that of its output.';

CREATE FUNCTION public.pg_llm_softmax(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_softmax';
COMMENT ON FUNCTION public.pg_llm_softmax(public.tensor) IS 'Softmax per row of the last axis.';

CREATE FUNCTION public.pg_llm_softmax_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_softmax_backward';
COMMENT ON FUNCTION public.pg_llm_softmax_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_softmax from that of its output.';

CREATE FUNCTION public.pg_llm_cross_entropy(logits public.tensor, target integer[])
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_cross_entropy';
COMMENT ON FUNCTION public.pg_llm_cross_entropy(public.tensor, integer[]) IS
    'Mean over targets (below 0: ignored) of -log softmax(logits)[target]; logits [..., vocab].';

CREATE FUNCTION public.pg_llm_cross_entropy_backward(dout public.tensor, logits public.tensor, target integer[])
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_cross_entropy_backward';
COMMENT ON FUNCTION public.pg_llm_cross_entropy_backward(public.tensor, public.tensor, integer[]) IS
    'Gradient of pg_llm_cross_entropy from that of its output.';

CREATE FUNCTION public.pg_llm_mean_pool(x public.tensor, lengths integer[] DEFAULT NULL)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_mean_pool';
COMMENT ON FUNCTION public.pg_llm_mean_pool(public.tensor, integer[]) IS
    'The mean of each sequence''s rows: [sequences, d] of x [n, d], which holds sequences of lengths tokens end to '
    'end; lengths NULL: [..., d] of x [..., t, d]. 22023: lengths do not add up to n.';

CREATE FUNCTION public.pg_llm_mean_pool_backward(dout public.tensor, x public.tensor, lengths integer[] DEFAULT NULL)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_mean_pool_backward';
COMMENT ON FUNCTION public.pg_llm_mean_pool_backward(public.tensor, public.tensor, integer[]) IS
    'Gradient of pg_llm_mean_pool from that of its output.';

CREATE FUNCTION public.pg_llm_cls_pool(x public.tensor, lengths integer[] DEFAULT NULL)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_cls_pool';
COMMENT ON FUNCTION public.pg_llm_cls_pool(public.tensor, integer[]) IS
    'Each sequence''s first row: [sequences, d] of x [n, d], which holds sequences of lengths tokens end to end; '
    'lengths NULL: [..., d] of x [..., t, d]. 22023: lengths do not add up to n.';

CREATE FUNCTION public.pg_llm_cls_pool_backward(dout public.tensor, x public.tensor, lengths integer[] DEFAULT NULL)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_cls_pool_backward';
COMMENT ON FUNCTION public.pg_llm_cls_pool_backward(public.tensor, public.tensor, integer[]) IS
    'Gradient of pg_llm_cls_pool from that of its output.';

CREATE FUNCTION public.pg_llm_rotary(
    x public.tensor, n_head integer, theta double precision, dims integer, positions integer[],
    scaling jsonb DEFAULT '{}'
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_rotary';
COMMENT ON FUNCTION public.pg_llm_rotary(public.tensor, integer, double precision, integer, integer[], jsonb) IS
    'Rotary position embedding (Su et al. 2021) of x [..., t, d], queries or keys of n_head heads: the first dims '
    'numbers of each head (0: all) are turned in pairs (i, i + dims/2), Hugging Face''s half-split form, by positions '
    '* theta^(-2i/dims). scaling is a configuration''s rope_scaling: {}, linear or llama3.';

CREATE FUNCTION public.pg_llm_rotary_backward(
    dout public.tensor, x public.tensor, n_head integer, theta double precision, dims integer, positions integer[],
    scaling jsonb DEFAULT '{}'
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_rotary_backward';
COMMENT ON FUNCTION public.pg_llm_rotary_backward(
    public.tensor, public.tensor, integer, double precision, integer, integer[], jsonb
) IS
    'Gradient of pg_llm_rotary from that of its output.';

CREATE FUNCTION public.pg_llm_reshape(x public.tensor, shape integer[])
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_reshape';
COMMENT ON FUNCTION public.pg_llm_reshape(public.tensor, integer[]) IS
    'The same elements in another shape; one size may be -1 and is then inferred.';

CREATE FUNCTION public.pg_llm_reshape_backward(dout public.tensor, x public.tensor, shape integer[])
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_reshape_backward';
COMMENT ON FUNCTION public.pg_llm_reshape_backward(public.tensor, public.tensor, integer[]) IS
    'Gradient of pg_llm_reshape from that of its output.';

CREATE FUNCTION public.pg_llm_transpose(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_transpose';
COMMENT ON FUNCTION public.pg_llm_transpose(public.tensor) IS 'x with its last two axes swapped.';

CREATE FUNCTION public.pg_llm_transpose_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_transpose_backward';
COMMENT ON FUNCTION public.pg_llm_transpose_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_transpose from that of its output.';

CREATE FUNCTION public.pg_llm_slice(x public.tensor, axis integer, start integer, stop integer)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_slice';
COMMENT ON FUNCTION public.pg_llm_slice(public.tensor, integer, integer, integer) IS
    'x[start:stop] along an axis; negative and out-of-range bounds as in Python.';

CREATE FUNCTION public.pg_llm_slice_backward(
    dout public.tensor, x public.tensor, axis integer, start integer, stop integer
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_slice_backward';
COMMENT ON FUNCTION public.pg_llm_slice_backward(public.tensor, public.tensor, integer, integer, integer) IS
    'Gradient of pg_llm_slice from that of its output.';

CREATE FUNCTION public.pg_llm_concat(a public.tensor, b public.tensor, axis integer)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_concat';
COMMENT ON FUNCTION public.pg_llm_concat(public.tensor, public.tensor, integer) IS 'a and b joined along an axis.';

CREATE FUNCTION public.pg_llm_concat_backward(
    dout public.tensor, a public.tensor, b public.tensor, axis integer, OUT da public.tensor, OUT db public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_concat_backward';
COMMENT ON FUNCTION public.pg_llm_concat_backward(public.tensor, public.tensor, public.tensor, integer) IS
    'Gradients of pg_llm_concat from that of its output: da, db.';

CREATE FUNCTION public.pg_llm_last(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_last';
COMMENT ON FUNCTION public.pg_llm_last(public.tensor) IS 'The last position: x [..., t, d] to [..., 1, d].';

CREATE FUNCTION public.pg_llm_last_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_last_backward';
COMMENT ON FUNCTION public.pg_llm_last_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_last from that of its output.';

CREATE FUNCTION public.pg_llm_sum(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_sum';
COMMENT ON FUNCTION public.pg_llm_sum(public.tensor) IS 'Sum of all elements, 0-d.';

CREATE FUNCTION public.pg_llm_sum_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_sum_backward';
COMMENT ON FUNCTION public.pg_llm_sum_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_sum from that of its output.';

CREATE FUNCTION public.pg_llm_mean(x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_mean';
COMMENT ON FUNCTION public.pg_llm_mean(public.tensor) IS 'Mean of all elements, 0-d.';

CREATE FUNCTION public.pg_llm_mean_backward(dout public.tensor, x public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_mean_backward';
COMMENT ON FUNCTION public.pg_llm_mean_backward(public.tensor, public.tensor) IS
    'Gradient of pg_llm_mean from that of its output.';
