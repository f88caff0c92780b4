/*
 * op_rotary.c -- rotary position embedding: positions as turns of the pairs in each head.
 */
#include "postgres.h"

#include <float.h>

#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "ops.h"

enum
{
    N_HEAD,
    DIMS
};

enum
{
    SAVED_COSINE,
    SAVED_SINE
};

/* ---- scaling: a configuration's rope_scaling ---- */

static void __attribute__((noreturn))
scaling_error(const OpCall *call, const char *problem)
{
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s: scaling %s", call->op->name, problem),
            errhint("Known are {}, {\"rope_type\": \"linear\", \"factor\": f} and {\"rope_type\": \"llama3\", "
                    "\"factor\": f, \"low_freq_factor\": l, \"high_freq_factor\": h, "
                    "\"original_max_position_embeddings\": n}."));
}

/* A number, at least `least`, that float32 holds. */
static double
scaling_number(const OpCall *call, const char *key, double least)
{
    JsonbValue *v = getKeyJsonValueFromContainer(&call->settings->root, key, strlen(key), NULL);
    double      number;

    if (v == NULL || v->type != jbvNumeric)
        scaling_error(call, psprintf("has no number \"%s\"", key));
    number = DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric)));
    if (!(number >= least && number <= FLT_MAX))
        scaling_error(call, psprintf("has the %s %g, which is not at least %g", key, number, least));
    return number;
}

/* Ensure that nothing is given which would have no effect. */
static void
require_keys(const OpCall *call, const char *const *known, int n_known)
{
    JsonbIterator *at = JsonbIteratorInit(&call->settings->root);
    JsonbValue     key;

    for (JsonbIteratorToken token; (token = JsonbIteratorNext(&at, &key, true)) != WJB_DONE;)
    {
        bool found = token != WJB_KEY;

        for (int i = 0; i < n_known && !found; i++)
            found = (size_t) key.val.string.len == strlen(known[i]) &&
                    memcmp(key.val.string.val, known[i], key.val.string.len) == 0;
        if (!found)
            scaling_error(call, psprintf("has an unknown key \"%.*s\"", key.val.string.len, key.val.string.val));
    }
}

static llm_rotary_scaling
read_scaling(const OpCall *call)
{
    static const char *const keys[] = {"rope_type",        "type",
                                       "factor",           "low_freq_factor",
                                       "high_freq_factor", "original_max_position_embeddings"};
    llm_rotary_scaling       scaling = {.kind = LLM_ROTARY_UNSCALED};
    JsonbValue              *type, *older;
    const char              *name;

    if (!JB_ROOT_IS_OBJECT(call->settings))
        scaling_error(call, "is not a JSON object");
    type = getKeyJsonValueFromContainer(&call->settings->root, "rope_type", strlen("rope_type"), NULL);
    /* the key in older configurations */
    older = getKeyJsonValueFromContainer(&call->settings->root, "type", strlen("type"), NULL);
    if (type != NULL && older != NULL)
        scaling_error(call, "has both \"rope_type\" and \"type\"");
    if (type == NULL)
        type = older;
    if (type != NULL && type->type != jbvString)
        scaling_error(call, "has a rope_type that is not a string");
    name = type == NULL ? "default" : pnstrdup(type->val.string.val, type->val.string.len);
    if (strcmp(name, "default") == 0)
        require_keys(call, keys, 2);
    else if (strcmp(name, "linear") == 0)
    {
        require_keys(call, keys, 3);
        scaling.kind = LLM_ROTARY_LINEAR;
        scaling.factor = scaling_number(call, "factor", 1.0);
    }
    else if (strcmp(name, "llama3") == 0)
    {
        require_keys(call, keys, lengthof(keys));
        scaling.kind = LLM_ROTARY_LLAMA3;
        scaling.factor = scaling_number(call, "factor", 1.0);
        scaling.low_freq_factor = scaling_number(call, "low_freq_factor", 0.001);
        scaling.high_freq_factor = scaling_number(call, "high_freq_factor", 0.001);
        scaling.context = scaling_number(call, "original_max_position_embeddings", 1.0);
        if ((float) scaling.low_freq_factor >= (float) scaling.high_freq_factor)
            scaling_error(call, "has a low_freq_factor that is not below its high_freq_factor");
    }
    else
        scaling_error(call, psprintf("is of the unknown type \"%s\"", name));
    return scaling;
}

/* ---- the op; ints: n_head, dims; reals: theta ---- */

static llm_rotary_shape
rotary_shape(const OpCall *call)
{
    const OpValue   *x = &call->in[0];
    int64            d_head = op_last_dim(x) / call->ints[N_HEAD];
    llm_rotary_shape s;

    s.n = op_rows(x);
    s.n_positions = call->ids.n;
    s.n_head = call->ints[N_HEAD];
    s.d_head = d_head;
    s.half = (call->ints[DIMS] == 0 ? d_head : call->ints[DIMS]) / 2;
    return s;
}

static void
require_arguments(const OpCall *call)
{
    const OpValue *x = &call->in[0];
    int64          width = x->ndim == 0 ? 0 : x->dims[x->ndim - 1];
    int64          n_head = call->ints[N_HEAD];
    int64          dims = call->ints[DIMS];
    double         theta = call->reals[0];
    size_t         length = x->ndim < 2 ? 1 : x->dims[x->ndim - 2];

    op_require_ndim(call, 0, 1);
    if (n_head < 1 || width % n_head != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: the width " INT64_FORMAT " is not divisible by " INT64_FORMAT " heads", call->op->name,
                       width, n_head));
    if (dims == 0)
        dims = width / n_head;
    if (dims < 0 || dims % 2 != 0 || dims > width / n_head)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: cannot turn " INT64_FORMAT " of the " INT64_FORMAT " numbers of a head", call->op->name,
                       dims, width / n_head),
                errhint("dims is an even number, at most a head's size; 0 stands for all of it."));
    if (!(theta >= 1.0 && theta <= FLT_MAX))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: theta must be at least 1 and a float32, not %g", call->op->name, theta));
    if (call->ids.n != length && call->ids.n != op_rows(x))
        op_shape_error(call, "x [..., t, d], and t positions or one for each row of x");
    op_require_ids(call, (int64) PG_INT32_MAX + 1, false);
}

static void
rotary_forward(OpCall *call)
{
    llm_rotary_scaling scaling;
    llm_rotary_shape   s;
    float             *cosine, *sine;

    require_arguments(call);
    scaling = read_scaling(call);
    s = rotary_shape(call);
    op_output_like(call, 0);
    cosine = op_save(call, SAVED_COSINE, s.n_positions * s.half);
    sine = op_save(call, SAVED_SINE, s.n_positions * s.half);
    if (call->in[0].n > 0)
        llm_rotary_forward(pg_llm_engine(), call->out.data, cosine, sine, call->in[0].data, call->ids.values,
                           call->reals[0], &scaling, &s);
}

static void
rotary_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    llm_rotary_shape s = rotary_shape(call);

    if (din[0].data != NULL && call->in[0].n > 0)
        llm_rotary_backward(pg_llm_engine(), din[0].data, din[0].acc, dout, call->saved[SAVED_COSINE].data,
                            call->saved[SAVED_SINE].data, &s);
}

OP(rotary, .name = "rotary",
   .args = {TENSOR("x", "t, d"), INTEGER("n_head"), REAL("theta"), INTEGER("dims"), INTEGERS("positions"),
            SETTINGS("scaling", "'{}'")},
   .doc =
       "Rotary position embedding (Su et al. 2021) of x [..., t, d], queries or keys of n_head heads: the first dims "
       "numbers of each head (0: all) are turned in pairs (i, i + dims/2), Hugging Face's half-split form, by "
       "positions * theta^(-2i/dims). scaling is a configuration's rope_scaling: {}, linear or llama3.",
   .bytea_doc = "rotary position embedding of x (t,d) in Hugging Face's half-split form", .forward = rotary_forward,
   .backward = rotary_backward);
