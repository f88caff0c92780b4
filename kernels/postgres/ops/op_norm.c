/*
 * op_norm.c -- ops on the rows of the last axis: layernorm, rmsnorm, l2 normalisation, softmax, cross-entropy.
 */
#include "postgres.h"

#include "autograd/pass.h"
#include "ops.h"

static void
require_eps(const OpCall *call)
{
    if (!(call->reals[0] >= 0.0 && call->reals[0] <= 1.0))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: eps must be between 0 and 1, not %g", call->op->name, call->reals[0]));
}

static void
layernorm_forward(OpCall *call)
{
    const OpValue *x = &call->in[0];
    size_t         n = op_rows(x);
    size_t         d = op_last_dim(x);
    float         *mean;
    float         *rstd;

    op_require_ndim(call, 0, 1);
    for (int i = 1; i <= 2; i++)
        if (call->in[i].ndim != 1 || (size_t) call->in[i].dims[0] != d)
            op_shape_error(call, "x [..., d], gamma [d] and beta [d]");
    require_eps(call);
    op_output_like(call, 0);
    mean = op_save(call, 0, n);
    rstd = op_save(call, 1, n);
    llm_layernorm_forward(pg_llm_engine(), call->out.data, mean, rstd, x->data, call->in[1].data, call->in[2].data,
                          (float) call->reals[0], n, d);
}

static void
layernorm_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    llm_layernorm_backward(pg_llm_engine(), din[0].data, din[0].acc, din[1].data, din[1].acc, din[2].data, din[2].acc,
                           dout, call->in[0].data, call->in[1].data, call->saved[0].data, call->saved[1].data,
                           op_rows(&call->in[0]), op_last_dim(&call->in[0]));
}

static void
rmsnorm_forward(OpCall *call)
{
    const OpValue *x = &call->in[0];
    size_t         n = op_rows(x);
    float         *rstd;

    op_require_ndim(call, 0, 1);
    require_eps(call);
    op_output_like(call, 0);
    rstd = op_save(call, 0, n);
    llm_rmsnorm_forward(pg_llm_engine(), call->out.data, rstd, x->data, NULL, (float) call->reals[0], n,
                        op_last_dim(x));
}

static void
rmsnorm_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_rmsnorm_backward(pg_llm_engine(), din[0].data, din[0].acc, NULL, false, dout, call->in[0].data, NULL,
                             call->saved[0].data, op_rows(&call->in[0]), op_last_dim(&call->in[0]));
}

/* Groups of as many numbers as the gain has lie end to end, so each is a row. */
static void
rmsnorm_gain_forward(OpCall *call)
{
    const OpValue *x = &call->in[0];
    const OpValue *gain = &call->in[1];
    float         *rstd;

    op_require_ndim(call, 0, 1);
    if (gain->ndim != 1 || (gain->n == 0 ? op_last_dim(x) != 0 : op_last_dim(x) % gain->n != 0))
        op_shape_error(call, "x [..., d] and gain [g], of which g divides d");
    require_eps(call);
    op_output_like(call, 0);
    rstd = op_save(call, 0, gain->n == 0 ? 0 : x->n / gain->n);
    if (x->n > 0)
        llm_rmsnorm_forward(pg_llm_engine(), call->out.data, rstd, x->data, gain->data, (float) call->reals[0],
                            x->n / gain->n, gain->n);
}

static void
rmsnorm_gain_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    const OpValue *x = &call->in[0];
    const OpValue *gain = &call->in[1];

    if (gain->n > 0)
        llm_rmsnorm_backward(pg_llm_engine(), din[0].data, din[0].acc, din[1].data, din[1].acc, dout, x->data,
                             gain->data, call->saved[0].data, x->n / gain->n, gain->n);
}

/* Where nothing is normalized or recorded, a value that nobody else holds goes through as it is. */
static bool
normalizes_nothing(FunctionCallInfo fcinfo)
{
    Datum x = PG_GETARG_DATUM(0);

    return !PG_GETARG_BOOL(1) && !pass_recording() && VARATT_IS_EXTERNAL_EXPANDED_RW(DatumGetPointer(x)) &&
           PG_GETARG_TENSOR(0)->ndim > 0;
}

static void
l2_normalize_forward(OpCall *call)
{
    const OpValue *x = &call->in[0];
    size_t         n = op_rows(x);
    float         *out;

    op_require_ndim(call, 0, 1);
    out = op_output_like(call, 0);
    if (call->flag)
        llm_l2_normalize_forward(pg_llm_engine(), out, op_save(call, 0, n), x->data, n, op_last_dim(x));
    else
        llm_copy(pg_llm_engine(), out, x->data, false, x->n);
}

static void
l2_normalize_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    const OpValue *x = &call->in[0];

    if (din[0].data == NULL)
        return;
    if (call->flag)
        llm_l2_normalize_backward(pg_llm_engine(), din[0].data, din[0].acc, dout, call->out.data, call->saved[0].data,
                                  op_rows(x), op_last_dim(x));
    else
        llm_copy(pg_llm_engine(), din[0].data, dout, din[0].acc, x->n);
}

static void
softmax_forward(OpCall *call)
{
    op_require_ndim(call, 0, 1);
    llm_softmax_forward(pg_llm_engine(), op_output_like(call, 0), call->in[0].data, op_rows(&call->in[0]),
                        op_last_dim(&call->in[0]));
}

static void
softmax_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_softmax_backward(pg_llm_engine(), din[0].data, din[0].acc, dout, call->out.data, op_rows(&call->in[0]),
                             op_last_dim(&call->in[0]));
}

/* Mean over the targets that are not negative of -log softmax(logits)[target]; a 0-d tensor. */
static void
cross_entropy_forward(OpCall *call)
{
    const OpValue *logits = &call->in[0];
    size_t         n = op_rows(logits);
    float         *losses = op_scratch(n);
    float         *log_sum;

    op_require_ndim(call, 0, 1);
    if (call->ids.n != n || logits->dims[logits->ndim - 1] == 0)
        op_shape_error(call, "logits [..., vocab] and one target per row");
    op_require_ids(call, op_last_dim(logits), true);
    log_sum = op_save(call, 0, n);
    llm_cross_entropy_forward(pg_llm_engine(), losses, log_sum, logits->data, call->ids.values, n, op_last_dim(logits));
    *op_output(call, 0, NULL) = (float) llm_mean_loss(losses, call->ids.values, n, &call->count);
}

static void
cross_entropy_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    if (din[0].data != NULL)
        llm_cross_entropy_backward(pg_llm_engine(), din[0].data, din[0].acc,
                                   call->count == 0 ? 0.0f : dout[0] / (float) call->count, call->in[0].data,
                                   call->saved[0].data, call->ids.values, op_rows(&call->in[0]),
                                   op_last_dim(&call->in[0]));
}

OP(layernorm, .name = "layernorm",
   .args = {TENSOR("x", "*, d"), TENSOR("gamma", "= d"), TENSOR("beta", "d"), REAL("eps", "1e-5")},
   .doc = "(x - mean) / sqrt(variance + eps) * gamma + beta per row of the last axis (Ba et al. 2016).",
   .bytea_doc = "layer normalisation of each row; a row is as long as gamma", .forward = layernorm_forward,
   .backward = layernorm_backward, .keeps = KEEPS_IN(0) | KEEPS_IN(1));
OP(rmsnorm, .name = "rmsnorm", .args = {TENSOR("x", "rows, cols"), REAL("eps", "1e-5")},
   .doc = "x / sqrt(mean(x^2) + eps) per row of the last axis, without a gain (Zhang & Sennrich 2019).",
   .bytea_doc = "x / sqrt(mean(x^2) + eps) of each row", .forward = rmsnorm_forward, .backward = rmsnorm_backward,
   .keeps = KEEPS_IN(0));
OP(rmsnorm_gain, .name = "rmsnorm", .args = {TENSOR("x", "*, g"), TENSOR("gain", "= g"), REAL("eps", "1e-5")},
   .doc =
       "x / sqrt(mean(x^2) + eps) * gain per row of the last axis (Zhang & Sennrich 2019). A gain of g numbers, where "
       "g divides the axis: each g numbers of a row are normalised by themselves, as heads are.",
   .bytea_doc = "x / sqrt(mean(x^2) + eps) * gain of each row; a row is as long as gain",
   .forward = rmsnorm_gain_forward, .backward = rmsnorm_gain_backward, .keeps = KEEPS_IN(0) | KEEPS_IN(1));
OP(l2_normalize, .name = "l2_normalize", .args = {TENSOR("x", "rows, cols"), BOOLEAN("enabled", "true")},
   .doc = "x / max(|x|, 1e-12) per row of the last axis, |x| its 2-norm; x itself when not enabled.",
   .bytea_doc = "x / max(|x|, 1e-12) of each row, |x| its 2-norm; x itself when not enabled",
   .forward = l2_normalize_forward, .backward = l2_normalize_backward, .keeps = KEEPS_OUT,
   .is_identity = normalizes_nothing);
OP(softmax, .name = "softmax", .args = {TENSOR("x", "rows, cols")}, .doc = "Softmax per row of the last axis.",
   .bytea_doc = "softmax of each row", .forward = softmax_forward, .backward = softmax_backward, .keeps = KEEPS_OUT);
OP(cross_entropy, .name = "cross_entropy", .args = {TENSOR("logits", "rows, vocab"), INTEGERS("target", "targets:")},
   .doc = "Mean over targets (below 0: ignored) of -log softmax(logits)[target]; logits [..., vocab].",
   .bytea_doc = "mean of -log softmax(logits)[target] over rows whose target is not below 0",
   .forward = cross_entropy_forward, .backward = cross_entropy_backward, .keeps = KEEPS_IN(0), .is_number = true);

/* pg_llm_cross_entropy(logits [vocab], target): one row. */
PG_FUNCTION_INFO_V1(pg_llm_cross_entropy_row);
Datum
pg_llm_cross_entropy_row(PG_FUNCTION_ARGS)
{
    OpCall *call = palloc0(sizeof(OpCall));
    int32  *target = palloc(sizeof(int32));

    *target = PG_GETARG_INT32(1);
    call->op = &op_cross_entropy;
    op_set_input(call, 0, PG_GETARG_TENSOR(0));
    call->ids.ndim = 1;
    call->ids.dims[0] = 1;
    call->ids.n = 1;
    call->ids.values = target;
    PG_RETURN_TENSOR(op_run(call));
}
