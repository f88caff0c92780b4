/*
 * op_linear.c -- products: matmul, linear layers, the language-model head and its fused loss.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "ops.h"
#include "autograd/pass.h"
#include "autograd/tape.h"
#include "precision.h"

/* ---- linear: out (..., o) = x (..., i) @ w (i, o) + b (o) ---- */

static void
linear_shapes(OpCall *call, int32 *dims)
{
    const OpValue *x = &call->in[0];
    const OpValue *w = &call->in[1];

    if (x->ndim < 1 || w->ndim != 2 || x->dims[x->ndim - 1] != w->dims[0] ||
        (call->n_inputs == 3 && (call->in[2].ndim != 1 || call->in[2].dims[0] != w->dims[1])))
        op_shape_error(call, "x [..., i], w [i, o] and, if given, b [o]");
    memcpy(dims, x->dims, sizeof(int32) * x->ndim);
    dims[x->ndim - 1] = w->dims[1];
}

static void
linear_forward(OpCall *call)
{
    int32             dims[TENSOR_MAX_NDIM];
    const llm_packed *packed;
    const float      *b = call->n_inputs == 3 ? call->in[2].data : NULL;
    float            *out;

    linear_shapes(call, dims);
    packed = precision_packed(call, &call->in[1], false);
    if (packed == NULL)
        op_need(&call->in[1]);
    out = op_output(call, call->in[0].ndim, dims);
    if (packed != NULL)
        llm_packed_forward(pg_llm_engine(), out, call->in[0].data, packed, b, op_rows(&call->in[0]));
    else
        llm_linear_forward(pg_llm_engine(), out, call->in[0].data, call->in[1].data, b, op_rows(&call->in[0]),
                           call->in[1].dims[0], call->in[1].dims[1]);
}

static void
linear_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    OpGrad none = {NULL, false, NULL};
    OpGrad db = call->n_inputs == 3 ? din[2] : none;

    llm_linear_backward(pg_llm_engine(), din[0].data, din[0].acc, din[1].data, din[1].acc, db.data, db.acc, dout,
                        call->in[0].data, call->in[1].data, op_rows(&call->in[0]), call->in[1].dims[0],
                        call->in[1].dims[1]);
}

/* With w + scale a b: x @ w + b, and (x @ a) scale @ b (Hu et al. 2021). */
static Tensor *
linear_adapted(OpCall *call)
{
    OpCall *down = palloc0(sizeof(OpCall));
    OpCall *scaled = palloc0(sizeof(OpCall));
    OpCall *up = palloc0(sizeof(OpCall));
    OpCall *sum = palloc0(sizeof(OpCall));
    OpValue x = call->in[0];
    Tensor *result = op_run(call);

    down->op = &op_matmul;
    down->in[0] = x;
    op_set_input(down, 1, call->low->a);
    scaled->op = &op_mul;
    op_set_input(scaled, 0, op_run(down));
    op_set_input(scaled, 1, tensor_scalar(call->low->scale));
    up->op = &op_matmul;
    op_set_input(up, 0, op_run(scaled));
    op_set_input(up, 1, call->low->b);
    sum->op = &op_add;
    op_set_input(sum, 0, result);
    op_set_input(sum, 1, op_run(up));
    return op_run(sum);
}

/* ---- matmul: NumPy's, batched over leading axes ---- */

/* A product's geometry: batch shape, and how far each operand moves from one batch entry to the next. */
typedef struct Product
{
    int    ndim;
    int32  batch[TENSOR_MAX_NDIM];
    int32  out[TENSOR_MAX_NDIM];
    int    out_ndim;
    size_t m, k, n;
    size_t count;
} Product;

/* Axes of v that are batch axes; a vector has none. */
static int
batch_ndim(const OpValue *v)
{
    return v->ndim > 2 ? v->ndim - 2 : 0;
}

static void
product_shapes(const OpCall *call, Product *p)
{
    const OpValue *a = &call->in[0];
    const OpValue *b = &call->in[1];
    const char    *expects = "a [..., m, k] and b [..., k, n] with broadcastable leading axes";
    int            na = batch_ndim(a);
    int            nb = batch_ndim(b);

    if (a->ndim < 1 || b->ndim < 1)
        op_shape_error(call, expects);
    p->m = a->ndim == 1 ? 1 : a->dims[a->ndim - 2];
    p->k = a->dims[a->ndim - 1];
    p->n = b->ndim == 1 ? 1 : b->dims[b->ndim - 1];
    if (p->k != (size_t) (b->ndim == 1 ? b->dims[0] : b->dims[b->ndim - 2]))
        op_shape_error(call, expects);
    p->ndim = Max(na, nb);
    p->count = 1;
    for (int i = 0; i < p->ndim; i++)
    {
        int32 da = i < p->ndim - na ? 1 : a->dims[i - (p->ndim - na)];
        int32 db = i < p->ndim - nb ? 1 : b->dims[i - (p->ndim - nb)];

        if (da != db && da != 1 && db != 1)
            op_shape_error(call, expects);
        p->batch[i] = da == 1 ? db : da;
        p->count *= p->batch[i];
        p->out[i] = p->batch[i];
    }
    p->out_ndim = p->ndim;
    if (a->ndim > 1)
        p->out[p->out_ndim++] = (int32) p->m;
    if (b->ndim > 1)
        p->out[p->out_ndim++] = (int32) p->n;
}

/* The matrix of v that takes part in batch entry `entry`, counted in matrices. */
static size_t
matrix_of(const Product *p, const OpValue *v, size_t entry)
{
    int    nv = batch_ndim(v);
    size_t matrix = 0;
    size_t stride = 1;

    for (int i = p->ndim - 1; i >= 0; i--)
    {
        size_t at = entry % p->batch[i];
        int    vi = i - (p->ndim - nv);

        entry /= p->batch[i];
        if (vi < 0)
            continue;
        if (v->dims[vi] != 1)
            matrix += at * stride;
        stride *= v->dims[vi];
    }
    return matrix;
}

static void
matmul_forward(OpCall *call)
{
    Product     p;
    float      *out;
    llm_engine *e = pg_llm_engine();

    product_shapes(call, &p);
    out = op_output(call, p.out_ndim, p.out);
    if (call->in[1].ndim <= 2 && call->in[0].ndim > 1)
    {
        p.m *= p.count; /* one matrix for all: one product */
        p.count = 1;
    }
    for (size_t i = 0; i < p.count && llm_engine_status(e) == LLM_OK; i++)
    {
        size_t ia = p.count == 1 ? 0 : matrix_of(&p, &call->in[0], i);
        size_t ib = p.count == 1 ? 0 : matrix_of(&p, &call->in[1], i);

        CHECK_FOR_INTERRUPTS();
        llm_gemm(e, out + i * p.m * p.n, call->in[0].data + ia * p.m * p.k, call->in[1].data + ib * p.k * p.n, p.m, p.n,
                 p.k, p.n, p.k, p.n, false, false, false);
    }
}

/* da = dout @ b^T, db = a^T @ dout, added up where a matrix took part more than once. */
static void
matmul_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    Product     p;
    llm_engine *e = pg_llm_engine();

    product_shapes(call, &p);
    if (call->in[1].ndim <= 2 && call->in[0].ndim > 1)
    {
        p.m *= p.count;
        p.count = 1;
    }
    for (int side = 0; side < 2; side++)
        if (din[side].data != NULL && !din[side].acc)
            llm_fill(e, din[side].data, 0.0f, call->in[side].n);
    for (size_t i = 0; i < p.count && llm_engine_status(e) == LLM_OK; i++)
    {
        size_t       ia = p.count == 1 ? 0 : matrix_of(&p, &call->in[0], i);
        size_t       ib = p.count == 1 ? 0 : matrix_of(&p, &call->in[1], i);
        const float *d = dout + i * p.m * p.n;

        CHECK_FOR_INTERRUPTS();
        if (din[0].data != NULL)
            llm_gemm(e, din[0].data + ia * p.m * p.k, d, call->in[1].data + ib * p.k * p.n, p.m, p.k, p.n, p.k, p.n,
                     p.n, false, true, true);
        if (din[1].data != NULL)
            llm_gemm(e, din[1].data + ib * p.k * p.n, call->in[0].data + ia * p.m * p.k, d, p.k, p.n, p.m, p.n, p.k,
                     p.n, true, false, true);
    }
}

/* ---- head: logits (..., vocab) = x (..., d) @ w (vocab, d)^T ---- */

static void
head_shapes(OpCall *call)
{
    const OpValue *x = &call->in[0];
    const OpValue *w = &call->in[1];

    if (x->ndim < 1 || w->ndim != 2 || x->dims[x->ndim - 1] != w->dims[1])
        op_shape_error(call, "x [..., d] and w [vocab, d]");
}

static void
lm_head_forward(OpCall *call)
{
    const OpValue    *x = &call->in[0];
    const OpValue    *w = &call->in[1];
    const llm_packed *packed;
    int32             dims[TENSOR_MAX_NDIM];
    float            *out;

    head_shapes(call);
    packed = precision_packed(call, w, true);
    if (packed == NULL)
        op_need(w);
    memcpy(dims, x->dims, sizeof(int32) * x->ndim);
    dims[x->ndim - 1] = w->dims[0];
    out = op_output(call, x->ndim, dims);
    if (packed != NULL)
        llm_packed_forward(pg_llm_engine(), out, x->data, packed, NULL, op_rows(x));
    else
        llm_gemm(pg_llm_engine(), out, x->data, w->data, op_rows(x), w->dims[0], w->dims[1], w->dims[0], w->dims[1],
                 w->dims[1], false, true, false);
}

static void
lm_head_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    llm_engine *e = pg_llm_engine();
    size_t      n = op_rows(&call->in[0]);
    size_t      vocab = call->in[1].dims[0];
    size_t      d = call->in[1].dims[1];

    if (din[0].data != NULL)
        llm_gemm(e, din[0].data, dout, call->in[1].data, n, d, vocab, d, vocab, d, false, false, din[0].acc);
    if (din[1].data != NULL)
        llm_gemm(e, din[1].data, dout, call->in[0].data, vocab, d, n, d, vocab, d, true, false, din[1].acc);
}

/*
 * The loss and its gradients need the same logits, the head's largest product. While recording, the forward
 * computes the gradients too, for the upstream gradient it expects: the one the last backward was given, which
 * in a training run is 1 / grad_accum. The backward hands them over if it was right and computes them if not;
 * the bits are the same.
 */
static float expected_upstream = 1.0f;

enum
{
    SAVED_LOG_SUM,
    SAVED_DX,
    SAVED_DW
};

static size_t
count_targets(const IntArray *targets)
{
    size_t count = 0;

    for (size_t i = 0; i < targets->n; i++)
        count += targets->values[i] >= 0;
    return count;
}

static void
lm_head_loss_forward(OpCall *call)
{
    const OpValue    *x = &call->in[0];
    const OpValue    *w = &call->in[1];
    llm_engine       *e = pg_llm_engine();
    size_t            n = op_rows(x);
    float            *losses = op_scratch(n);
    const llm_packed *packed;
    float            *log_sum;

    head_shapes(call);
    if (call->ids.n != n || w->dims[0] == 0)
        op_shape_error(call, "x [..., d], w [vocab, d] with at least one row, and one target per row of x");
    op_require_ids(call, w->dims[0], true);
    packed = precision_packed(call, w, true);
    if (packed == NULL || pass_recording())
        op_need(w);
    log_sum = op_save(call, SAVED_LOG_SUM, n);
    call->count = count_targets(&call->ids);
    if (pass_recording() && call->count > 0 && (tape_wants_grad(x->value) || tape_wants_grad(w->value)))
    {
        call->dout = expected_upstream;
        llm_lm_head_loss_forward_backward(e, losses, log_sum,
                                          tape_wants_grad(x->value) ? op_save(call, SAVED_DX, x->n) : NULL,
                                          tape_wants_grad(w->value) ? op_save(call, SAVED_DW, w->n) : NULL,
                                          expected_upstream / (float) call->count, x->data, w->data, call->ids.values,
                                          n, w->dims[1], w->dims[0]);
        call->saved[SAVED_DW].value = w->value; /* to the tape as much as the weights: nothing that it could let go */
    }
    else if (packed != NULL)
        llm_packed_head_loss_forward(e, losses, log_sum, x->data, packed, call->ids.values, n);
    else
        llm_lm_head_loss_forward(e, losses, log_sum, x->data, w->data, call->ids.values, n, w->dims[1], w->dims[0]);
    *op_output(call, 0, NULL) = (float) llm_mean_loss(losses, call->ids.values, n, NULL);
}

/* A finished gradient goes where it is wanted: as it is, or added to what is there. */
static void
hand_over(const OpGrad *to, TensorBuffer *buffer, size_t n)
{
    if (to->data == NULL)
        return;
    if (to->acc || to->buffer == NULL)
        llm_copy(pg_llm_engine(), to->data, buffer->data, to->acc, n);
    else
    {
        tensor_buffer_retain(buffer);
        tensor_buffer_release(*to->buffer);
        *to->buffer = buffer;
    }
}

static void
lm_head_loss_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    const OpValue *x = &call->in[0];
    const OpValue *w = &call->in[1];
    const OpValue *dx = &call->saved[SAVED_DX];
    const OpValue *dw = &call->saved[SAVED_DW];
    llm_engine    *e = pg_llm_engine();
    float          scale = call->count == 0 ? 0.0f : dout[0] / (float) call->count;
    float         *own_dx;
    float         *own_dw;

    if (call->dout == dout[0] && (din[0].data == NULL || dx->buffer != NULL) &&
        (din[1].data == NULL || dw->buffer != NULL))
    {
        hand_over(&din[0], dx->buffer, x->n);
        hand_over(&din[1], dw->buffer, w->n);
        return;
    }
    expected_upstream = dout[0];
    /* what is added to something is finished first: the sum is then that of a gradient handed over */
    own_dx = din[0].acc ? op_scratch(x->n) : din[0].data;
    own_dw = din[1].acc ? op_scratch(w->n) : din[1].data;
    llm_lm_head_loss_backward(e, own_dx, false, own_dw, false, scale, x->data, w->data, call->saved[SAVED_LOG_SUM].data,
                              call->ids.values, op_rows(x), w->dims[1], w->dims[0]);
    if (din[0].acc)
        llm_copy(e, din[0].data, own_dx, true, x->n);
    if (din[1].acc)
        llm_copy(e, din[1].data, own_dw, true, w->n);
}

OP(linear, .name = "linear", .args = {TENSOR("x", "n, i"), TENSOR("w", "i, o"), TENSOR("b", "o")},
   .doc = "x [..., i] @ w [i, o] + b [o].", .bytea_doc = "x (n,i) @ w (i,o) + b (o) -> (n,o)",
   .forward = linear_forward, .backward = linear_backward, .adapted = linear_adapted, .lazy = KEEPS_IN(1),
   .keeps = KEEPS_IN(0) | KEEPS_IN(1));
OP(linear_nobias, .name = "linear", .args = {TENSOR("x", "n, i"), TENSOR("w", "i, o")}, .doc = "x [..., i] @ w [i, o].",
   .bytea_doc = "x (n,i) @ w (i,o) -> (n,o)", .forward = linear_forward, .backward = linear_backward,
   .adapted = linear_adapted, .lazy = KEEPS_IN(1), .keeps = KEEPS_IN(0) | KEEPS_IN(1));
OP(matmul, .name = "matmul", .args = {TENSOR("a", "m, k"), TENSOR("b", "k, n")},
   .doc = "Matrix product as NumPy's matmul: batched over leading axes, which broadcast.",
   .bytea_doc = "a (m,k) @ b (k,n) -> (m,n)", .forward = matmul_forward, .backward = matmul_backward,
   .keeps = KEEPS_IN(0) | KEEPS_IN(1));
OP(lm_head, .name = "lm_head", .args = {TENSOR("x", "n, d"), TENSOR("w", "vocab, d")},
   .doc = "Logits x [..., d] @ w [vocab, d] transposed: [..., vocab].",
   .bytea_doc = "x (n,d) @ transpose of w (vocab,d) -> (n,vocab)", .forward = lm_head_forward,
   .backward = lm_head_backward, .lazy = KEEPS_IN(1), .keeps = KEEPS_IN(0) | KEEPS_IN(1));
OP(lm_head_loss, .name = "lm_head_loss", .args = {TENSOR("x", "n, d"), TENSOR("w", "vocab, d"), INTEGERS("targets")},
   .doc = "Mean cross-entropy of pg_llm_lm_head(x, w) against targets (below 0: ignored), computed without storing all "
          "logits.",
   .bytea_doc = "mean cross-entropy of pg_llm_lm_head(x, w, n, d, vocab) against targets (below 0: ignored)",
   .forward = lm_head_loss_forward, .backward = lm_head_loss_backward, .lazy = KEEPS_IN(1),
   .keeps = KEEPS_IN(0) | KEEPS_IN(1), .is_number = true);
