/*
 * op_attention.c -- embeddings, causal multi-head attention over separate or interleaved q, k, v, and bidirectional
 * attention within sequences that may lie end to end.
 *
 * While a key/value cache is in use (generate.c), causal attention stores its keys and values there and attends to
 * everything stored before: the same function serves training, prefill and decoding.
 */
#include "postgres.h"

#include "generation/generate.h"
#include "ops.h"
#include "tensor/tensor_view.h"

/* ---- embedding: out (ids..., d) = w (rows, d) at ids ---- */

static void
embedding_forward(OpCall *call)
{
    const OpValue *w = &call->in[0];
    int32          dims[TENSOR_MAX_NDIM];

    if (w->ndim != 2 || call->ids.ndim + 1 > TENSOR_MAX_NDIM)
        op_shape_error(call, "w [rows, d] and ids of at most 7 dimensions");
    op_require_ids(call, w->dims[0], false);
    memcpy(dims, call->ids.dims, sizeof(int32) * call->ids.ndim);
    dims[call->ids.ndim] = w->dims[1];
    op_output(call, call->ids.ndim + 1, dims);
    if (w->buffer != NULL && w->buffer->unfilled && w->data == w->buffer->data)
    {
        const uint16 *halves = tensor_buffer_halves(w->buffer);
        size_t        d = (size_t) w->dims[1];

        for (size_t i = 0; i < call->ids.n; i++)
            tensor_widen(call->out.data + i * d, halves + (size_t) call->ids.values[i] * d, d);
        return;
    }
    op_need(w);
    llm_embedding_forward(pg_llm_engine(), call->out.data, w->data, call->ids.values, call->ids.n, w->dims[1]);
}

static void
embedding_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    llm_engine *e = pg_llm_engine();

    if (din[0].data == NULL)
        return;
    if (!din[0].acc)
        llm_fill(e, din[0].data, 0.0f, call->in[0].n);
    llm_embedding_backward(e, din[0].data, dout, call->ids.values, call->ids.n, call->in[0].dims[0],
                           call->in[0].dims[1]);
}

/*
 * ---- attention; ints: n_head, then n_kv_head unless q, k and v are one tensor, then sliding_window; reals: dropout_p;
 * ids: lengths ----
 */

enum
{
    SAVED_MAX,
    SAVED_SUM,
    SAVED_MASK
};

/* How many heads k and v have: n_kv_head, or n_head. */
static int64
kv_heads(const OpCall *call)
{
    return call->op == &op_causal_attention && call->ints[1] != NO_INTEGER ? call->ints[1] : call->ints[0];
}

/* 0: none */
static int64
sliding_window(const OpCall *call)
{
    int64 window = call->op == &op_causal_attention       ? call->ints[2]
                   : call->op == &op_causal_attention_qkv ? call->ints[1]
                                                          : 0;

    return window == NO_INTEGER ? 0 : window;
}

/* Geometry of a call whose tokens are rows of `width` floats holding d of q, k and v each. */
static llm_attention_shape
attention_shape(const OpCall *call, size_t d)
{
    const OpValue      *q = &call->in[0];
    llm_attention_shape s = {0};

    s.bidirectional = call->op == &op_bidirectional_attention;
    if (call->ids.n > 0)
    {
        s.lengths = call->ids.values;
        s.B = call->ids.n;
        for (size_t b = 0; b < s.B; b++)
            s.T = Max(s.T, (size_t) s.lengths[b]);
    }
    else
    {
        s.T = q->dims[q->ndim - 2];
        s.B = 1;
        for (int i = 0; i < q->ndim - 2; i++)
            s.B *= q->dims[i];
    }
    s.D = d;
    s.n_head = (size_t) call->ints[0];
    s.n_kv_head = (size_t) kv_heads(call);
    s.window = (size_t) sliding_window(call);
    s.q_stride = q->dims[q->ndim - 1];
    s.k_stride = s.v_stride = call->n_inputs == 1 ? s.q_stride : d / s.n_head * s.n_kv_head;
    s.dropout_p = (float) call->reals[0];
    s.key = call->key;
    s.first = call->first;
    s.kept = op_saved_mask(call, SAVED_MASK);
    return s;
}

/*
 * A masked weight is 0, and 0 times an infinite value is NaN: what a later token holds would reach rows that must
 * not see it. Every row attends to itself, so a value that is not finite shows in its own row of the output.
 */
static void
require_finite(const OpCall *call)
{
    if (!pg_llm_all_finite(pg_llm_engine(), call->out.data, call->out.n))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                errmsg("%s: the input is not finite, or its scores overflow", call->op->name),
                errhint("Infinity and NaN in q, k or v would reach %s.",
                        call->op == &op_bidirectional_attention ? "all tokens of their sequence" : "earlier tokens"));
}

/* Ensure that d is divided among the heads of q, and these among those of k and v. */
static void
require_heads(const OpCall *call, size_t d)
{
    int64  n_kv_head = kv_heads(call);
    double p = call->reals[0];

    if (call->ints[0] < 1 || d % call->ints[0] != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: the width %zu is not divisible by " INT64_FORMAT " heads", call->op->name, d,
                       call->ints[0]));
    if (n_kv_head < 1 || call->ints[0] % n_kv_head != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: " INT64_FORMAT " query heads cannot share " INT64_FORMAT " heads of keys and values",
                       call->op->name, call->ints[0], n_kv_head),
                errhint("n_kv_head must divide n_head."));
    if (sliding_window(call) < 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: a window of " INT64_FORMAT " tokens", call->op->name, sliding_window(call)),
                errhint("A window of w lets a token see itself and the w - 1 before it; NULL: all before it."));
    if (!(p >= 0.0 && p < 1.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: the dropout probability must be at least 0 and below 1, not %g", call->op->name, p));
}

static void
attend(OpCall *call, const float *q, const float *k, const float *v, size_t d)
{
    llm_engine         *e = pg_llm_engine();
    llm_attention_shape s;
    size_t              rows;
    float              *row_max;
    float              *row_sum;

    if (!call->flag)
        call->reals[0] = 0.0;
    if (call->reals[0] > 0.0)
        op_dropout_key(call);
    s = attention_shape(call, d);
    rows = op_rows(&call->in[0]) * s.n_head;
    row_max = op_save(call, SAVED_MAX, rows);
    row_sum = op_save(call, SAVED_SUM, rows);
    if (s.dropout_p > 0)
        s.kept = op_save_mask(call, SAVED_MASK, llm_attention_mask_words(&s));
    if (s.T == 0 || s.B == 0 || d == 0)
        return;
    if (generate_in_use() && !call->pure)
    {
        llm_kv_cache **caches = palloc(sizeof(llm_kv_cache *) * s.B);
        size_t        *past = palloc(sizeof(size_t) * s.B);

        generate_next_caches(caches, past, s.B, s.n_kv_head, d / s.n_head, s.T);
        llm_attention_cached(e, call->out.data, caches, past, s.B, q, k, v, s.T, s.q_stride, s.k_stride, s.v_stride,
                             s.n_head, s.window);
    }
    else
        llm_attention_forward(e, call->out.data, row_max, row_sum, q, k, v, &s);
    pg_llm_check(e);
    if (!call->flag) /* in training the loss tells, and the step with it */
        require_finite(call);
}

static void
attention_forward(OpCall *call)
{
    const OpValue *q = &call->in[0];
    int32          d;

    op_require_ndim(call, 0, 2);
    d = q->dims[q->ndim - 1];
    require_heads(call, d);
    for (int i = 1; i < 3; i++)
        if (call->in[i].ndim != q->ndim || memcmp(call->in[i].dims, q->dims, sizeof(int32) * (q->ndim - 1)) != 0 ||
            call->in[i].dims[q->ndim - 1] != d / call->ints[0] * kv_heads(call))
            op_shape_error(call, kv_heads(call) == call->ints[0]
                                     ? "q, k and v of one shape [..., t, d]"
                                     : "q [..., t, n_head * d_head], k and v [..., t, n_kv_head * d_head]");
    op_output_like(call, 0);
    attend(call, q->data, call->in[1].data, call->in[2].data, d);
}

static void
bidirectional_forward(OpCall *call)
{
    if (generate_in_use() && !call->pure)
        ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                errmsg("%s cannot go on from a key/value cache", call->op->name),
                errhint("A generation's tokens attend to earlier ones alone: its model needs causal attention."));
    if (call->ids.values != NULL)
    {
        if (call->in[0].ndim != 2)
            op_shape_error(call, "q, k and v [n, d] with lengths, [..., t, d] without");
        tensor_require_lengths(call->op->name, &call->ids, op_rows(&call->in[0]));
    }
    attention_forward(call);
}

static void
attention_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    const OpValue      *q = &call->in[0];
    llm_attention_shape s = attention_shape(call, q->dims[q->ndim - 1]);
    llm_engine         *e = pg_llm_engine();
    float              *d[3];
    bool                direct = true;

    if (q->n == 0)
        return;
    for (int i = 0; i < 3; i++)
        direct = direct && din[i].data != NULL && din[i].acc == din[0].acc;
    for (int i = 0; i < 3; i++)
        d[i] = direct ? din[i].data : op_scratch(call->in[i].n);
    llm_attention_backward(e, d[0], d[1], d[2], direct && din[0].acc, dout, call->out.data, call->saved[SAVED_MAX].data,
                           call->saved[SAVED_SUM].data, q->data, call->in[1].data, call->in[2].data, &s);
    for (int i = 0; i < 3 && !direct; i++)
        if (din[i].data != NULL)
            llm_copy(e, din[i].data, d[i], din[i].acc, call->in[i].n);
}

static void
attention_qkv_forward(OpCall *call)
{
    const OpValue *qkv = &call->in[0];
    int32          dims[TENSOR_MAX_NDIM];
    int32          d;

    op_require_ndim(call, 0, 2);
    if (qkv->dims[qkv->ndim - 1] % 3 != 0)
        op_shape_error(call, "qkv [..., t, 3 d]");
    d = qkv->dims[qkv->ndim - 1] / 3;
    require_heads(call, d);
    memcpy(dims, qkv->dims, sizeof(int32) * qkv->ndim);
    dims[qkv->ndim - 1] = d;
    op_output(call, qkv->ndim, dims);
    attend(call, qkv->data, qkv->data + d, qkv->data + 2 * (size_t) d, d);
}

static void
attention_qkv_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    const OpValue      *qkv = &call->in[0];
    size_t              d = qkv->dims[qkv->ndim - 1] / 3;
    llm_attention_shape s = attention_shape(call, d);
    float              *g = din[0].data;

    if (g == NULL || qkv->n == 0)
        return;
    llm_attention_backward(pg_llm_engine(), g, g + d, g + 2 * d, din[0].acc, dout, call->out.data,
                           call->saved[SAVED_MAX].data, call->saved[SAVED_SUM].data, qkv->data, qkv->data + d,
                           qkv->data + 2 * d, &s);
}

OP(embedding, .name = "embedding", .args = {TENSOR("w", "rows, d"), INTEGERS("ids")},
   .doc = "Rows of w [rows, d] at ids: [ids..., d]. 22003: an id is out of range.",
   .bytea_doc = "rows of w (rows,d) at ids", .lazy = KEEPS_IN(0), .forward = embedding_forward,
   .backward = embedding_backward);
OP(causal_attention, .name = "causal_attention",
   .args = {TENSOR("q", "t, d"), TENSOR("k", "t, d"), TENSOR("v", "t, d"), INTEGER("n_head"), REAL("dropout_p", "0"),
            BOOLEAN("training", "false"), SITE("site", "''"), INTEGER("n_kv_head", "NULL"),
            INTEGER("sliding_window", "NULL")},
   .doc =
       "Causal multi-head attention over q [..., t, d], k and v [..., t, d * n_kv_head / n_head], scores scaled by "
       "1/sqrt(d / n_head). n_kv_head: k and v have so many heads, each for n_head / n_kv_head of q's in a row; NULL: "
       "n_head. sliding_window: a token sees itself and so many less one before it; NULL or 0: all before it.",
   .bytea_doc = "causal multi-head attention over q, k, v (t,d) each -> (t,d)", .forward = attention_forward,
   .backward = attention_backward, .keeps = KEEPS_IN(0) | KEEPS_IN(1) | KEEPS_IN(2) | KEEPS_OUT, .bytea_args = 4);
OP(bidirectional_attention, .name = "bidirectional_attention",
   .args = {TENSOR("q", "n, d"), TENSOR("k", "n, d"), TENSOR("v", "n, d"), INTEGER("n_head"), REAL("dropout_p", "0"),
            BOOLEAN("training", "false"), SITE("site", "''"), INTEGERS("lengths", "NULL")},
   .doc =
       "Multi-head attention of every token to all of its sequence, as encoders have it. lengths: q, k, v [n, d] hold "
       "sequences of so many tokens end to end; NULL: each [t, d] of q, k, v [..., t, d] is one. 22023: lengths do "
       "not add up to n.",
   .bytea_doc = "multi-head attention of every token to all of its sequence; q, k, v (n,d) each hold sequences of "
                "lengths tokens end to end, or one (NULL) -> (n,d)",
   .forward = bidirectional_forward, .backward = attention_backward,
   .keeps = KEEPS_IN(0) | KEEPS_IN(1) | KEEPS_IN(2) | KEEPS_OUT);
OP(causal_attention_qkv, .name = "causal_attention",
   .args = {TENSOR("qkv", "t, 3 d"), INTEGER("n_head"), REAL("dropout_p", "0"), BOOLEAN("training", "false"),
            SITE("site", "''"), INTEGER("sliding_window", "NULL")},
   .doc =
       "Causal multi-head attention over qkv [..., t, 3 d] = [q | k | v] per token: [..., t, d], scores scaled by "
       "1/sqrt(d / n_head). sliding_window: a token sees itself and so many less one before it; NULL or 0: all before "
       "it.",
   .bytea_doc = "causal multi-head attention over qkv (t,3d) = [q | k | v] per token -> (t,d)",
   .forward = attention_qkv_forward, .backward = attention_qkv_backward, .keeps = KEEPS_IN(0) | KEEPS_OUT,
   .bytea_args = 2);
