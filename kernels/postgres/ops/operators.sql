-- Other ways to call the ops: with numbers, one row, an activation or a pooling by name, a complete attention layer;
-- the operators; the op table.

CREATE FUNCTION public.pg_llm_activation(x public.tensor, name text)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_activation';
COMMENT ON FUNCTION public.pg_llm_activation(public.tensor, text) IS
    'The activation with this name in Hugging Face configurations: gelu_new, gelu_pytorch_tanh and gelu_fast are '
    'pg_llm_gelu, gelu and gelu_python are pg_llm_gelu_exact, relu is pg_llm_relu, silu and swish are pg_llm_silu. '
    '22023: any other name.';

CREATE FUNCTION public.pg_llm_activation_backward(dout public.tensor, x public.tensor, name text)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_activation_backward';
COMMENT ON FUNCTION public.pg_llm_activation_backward(public.tensor, public.tensor, text) IS
    'Gradient of pg_llm_activation from that of its output.';

CREATE FUNCTION public.pg_llm_pool(x public.tensor, lengths integer[], pooling text)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_pool';
COMMENT ON FUNCTION public.pg_llm_pool(public.tensor, integer[], text) IS
    'One row for each sequence: pg_llm_mean_pool(x, lengths) for the pooling ''mean'', pg_llm_cls_pool(x, lengths) for '
    '''cls''. 22023: any other name.';

CREATE FUNCTION public.pg_llm_pool_backward(
    dout public.tensor, x public.tensor, lengths integer[], pooling text
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_pool_backward';
COMMENT ON FUNCTION public.pg_llm_pool_backward(public.tensor, public.tensor, integer[], text) IS
    'Gradient of pg_llm_pool from that of its output.';

CREATE FUNCTION public.pg_llm_cross_entropy(logits public.tensor, target integer)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_cross_entropy_row';
COMMENT ON FUNCTION public.pg_llm_cross_entropy(public.tensor, integer) IS
    '-log softmax(logits)[target] of one row of logits.';

CREATE FUNCTION public.pg_llm_transpose(src public.tensor, rows integer, cols integer)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_transpose_checked';
COMMENT ON FUNCTION public.pg_llm_transpose(public.tensor, integer, integer) IS
    'The transpose of a matrix [rows, cols].';

CREATE FUNCTION public.pg_llm_attention(
    x public.tensor, w_qkv public.tensor, b_qkv public.tensor, w_o public.tensor, b_o public.tensor, n_head integer,
    t integer, d integer
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_attention';
COMMENT ON FUNCTION public.pg_llm_attention(
    public.tensor, public.tensor, public.tensor, public.tensor, public.tensor, integer, integer, integer
) IS
    'A complete attention layer: projection to q, k, v, causal attention, output projection; x [..., t, d], w_qkv [d, '
    '3 d], w_o [d, d].';

CREATE FUNCTION public.pg_llm_attention_backward(
    dout public.tensor, x public.tensor, w_qkv public.tensor, b_qkv public.tensor, w_o public.tensor, b_o public.tensor,
    n_head integer, t integer, d integer, OUT dx public.tensor, OUT dw_qkv public.tensor, OUT db_qkv public.tensor,
    OUT dw_o public.tensor, OUT db_o public.tensor
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_attention_backward';
COMMENT ON FUNCTION public.pg_llm_attention_backward(
    public.tensor, public.tensor, public.tensor, public.tensor, public.tensor, public.tensor, integer, integer, integer
) IS
    'Gradients of pg_llm_attention from that of its output.';

CREATE FUNCTION public.pg_llm_add_number(a public.tensor, b double precision)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_add_number';
COMMENT ON FUNCTION public.pg_llm_add_number(public.tensor, double precision) IS
    'a + b, element by element; b is a number.';

CREATE FUNCTION public.pg_llm_number_add(a double precision, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_number_add';
COMMENT ON FUNCTION public.pg_llm_number_add(double precision, public.tensor) IS
    'a + b, element by element; a is a number.';

CREATE FUNCTION public.pg_llm_sub_number(a public.tensor, b double precision)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_sub_number';
COMMENT ON FUNCTION public.pg_llm_sub_number(public.tensor, double precision) IS
    'a - b, element by element; b is a number.';

CREATE FUNCTION public.pg_llm_number_sub(a double precision, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_number_sub';
COMMENT ON FUNCTION public.pg_llm_number_sub(double precision, public.tensor) IS
    'a - b, element by element; a is a number.';

CREATE FUNCTION public.pg_llm_mul_number(a public.tensor, b double precision)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_mul_number';
COMMENT ON FUNCTION public.pg_llm_mul_number(public.tensor, double precision) IS
    'a * b, element by element; b is a number.';

CREATE FUNCTION public.pg_llm_number_mul(a double precision, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_number_mul';
COMMENT ON FUNCTION public.pg_llm_number_mul(double precision, public.tensor) IS
    'a * b, element by element; a is a number.';

CREATE FUNCTION public.pg_llm_div_number(a public.tensor, b double precision)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_div_number';
COMMENT ON FUNCTION public.pg_llm_div_number(public.tensor, double precision) IS
    'a / b, element by element; b is a number.';

CREATE FUNCTION public.pg_llm_number_div(a double precision, b public.tensor)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_number_div';
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

CREATE FUNCTION public.pg_llm_ops(OUT name text, OUT arguments text)
    RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_ops';
COMMENT ON FUNCTION public.pg_llm_ops() IS
    'The op table: names on the tape, and kinds of arguments (t tensor, i int[], n integer, r number, b boolean, s '
    'text).';
