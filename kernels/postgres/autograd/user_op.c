/*
 * user_op.c -- an op that a user writes as two SQL functions, on the tape beside the built-in ones.
 *
 * pg_llm_apply(forward, backward, x1, ..., xn) is forward(x1, ..., xn). While recording, it is one op of the tape; what
 * forward calls is no part of it. The backward pass calls backward(dout, x1, ..., xn, y), dout being the gradient of the
 * output y, for the gradients of the inputs. The caller must be allowed to execute both, whenever they are called.
 *
 * While such a function runs nothing is recorded, and the tape stays as it is: another op, a clearing, a backward pass
 * would change what the op in progress stands on.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "generation/generate.h"
#include "session/suspended.h"
#include "pass.h"
#include "tape_internal.h"
#include "user_op.h"

static void user_forward(OpCall *call);
static void user_prepare(OpCall *call, const float *dout);
static void user_backward(const OpCall *call, const float *dout, OpGrad *din);

static const OpDef op_user = {
    .name = "apply",
    .forward = user_forward,
    .backward = user_backward,
    .prepare = user_prepare,
    .keeps = KEEPS_IN(0) | KEEPS_IN(1) | KEEPS_IN(2) | KEEPS_IN(3) | KEEPS_IN(4) | KEEPS_OUT,
};

const char *
op_label(const OpCall *call)
{
    return call->op == &op_user ? call->site : call->op->name;
}

/* ---- which functions ---- */

#if PG_VERSION_NUM < 160000
#define may_execute(function) (pg_proc_aclcheck(function, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK)
#else
#define may_execute(function) (object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK)
#endif

/* Ensure that this function takes n tensors, gives one (or an array of them), and may be called. */
static void
require_function(Oid function, int n, Oid tensor, bool is_backward)
{
    HeapTuple    tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
    Form_pg_proc proc;
    bool         fits;

    if (!HeapTupleIsValid(tuple))
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("the %s function of an op does not exist: it has the OID %u",
                       is_backward ? "backward" : "forward", function),
                errhint(
                    "It was dropped since the op was recorded, or since the session planned this call, even if it was "
                    "created again. DISCARD PLANS, then compute the loss again."));
    proc = (Form_pg_proc) GETSTRUCT(tuple);
    fits = proc->prokind == PROKIND_FUNCTION && !proc->proretset && proc->pronargs == n &&
           ((proc->prorettype == tensor && (!is_backward || n == 3)) ||
            (is_backward && proc->prorettype == get_array_type(tensor)));
    for (int i = 0; fits && i < n; i++)
        fits = proc->proargtypes.values[i] == tensor;
    ReleaseSysCache(tuple);
    if (!fits && is_backward)
        ereport(ERROR, errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
                errmsg("%s cannot be the backward function of this op", format_procedure(function)),
                errhint("It takes %d tensors: the gradient of the output, the input%s, the output. It returns %s.", n,
                        n == 3 ? "" : "s",
                        n == 3 ? "the input's gradient as a tensor" : "the inputs' gradients as tensor[]"));
    if (!fits)
        ereport(ERROR, errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
                errmsg("%s cannot be the forward function of this op", format_procedure(function)),
                errhint("It takes the %d tensor%s of the call and returns a tensor.", n, n == 1 ? "" : "s"));
    if (!may_execute(function))
        aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(function));
}

static void
require_functions(const OpCall *call)
{
    require_function(call->functions[0], call->n_inputs, call->tensor_type, false);
    require_function(call->functions[1], call->n_inputs + 2, call->tensor_type, true);
}

/* ---- calling them ---- */

/* A tensor that the function may read, and keep; never the value on the tape itself. */
static Datum
argument(const OpValue *v)
{
    return EOHPGetRODatum(&tensor_wrap(v->ndim, v->dims, v->buffer, v->data)->hdr);
}

/*
 * Calls one with nothing recorded meanwhile. Each call draws the masks of dropout that the first one did, whatever pass
 * runs by then.
 */
static Datum
call_function(const OpCall *call, bool first, Oid function, const Datum *args, int n)
{
    LOCAL_FCINFO(fcinfo, OP_MAX_INPUTS + 2);
    FmgrInfo        info;
    const uint64    nonce = tape.nonce;
    const bool      mine = tape_is_mine();
    const PassState before = *pass_current();
    PassState       then = {.keyed = call->flag,
                            .seed = call->key.seed,
                            .step = call->key.step,
                            .micro_batch = call->first,
                            .sites = (int) call->ints[0]};
    Datum           result;

    check_stack_depth();
    /* the first call was recorded, so it saw no key/value cache */
    if (!first && generate_in_use())
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("%s, a function of an op, cannot be called in a generation's forward pass",
                       format_procedure(function)),
                errhint("Call pg_llm_gen_done() first."));
    fmgr_info(function, &info);
    InitFunctionCallInfoData(*fcinfo, &info, n, InvalidOid, NULL, NULL);
    for (int i = 0; i < n; i++)
        fcinfo->args[i] = (NullableDatum){args[i], false};
    suspend(true);
    PG_TRY();
    {
        pass_restore(&then);
        result = FunctionCallInvoke(fcinfo);
        if (fcinfo->isnull)
            ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                    errmsg("%s, a function of an op, returned NULL", format_procedure(function)));
    }
    PG_FINALLY();
    {
        then = before;
        if (first)
            then.sites = Max(then.sites, pass_current()->sites);
        pass_restore(&then);
        suspend(false);
    }
    PG_END_TRY();
    if (tape.nonce != nonce || tape_is_mine() != mine)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("%s, a function of an op, changed the role", format_procedure(function)),
                errhint("Let the role be set outside of it."));
    return result;
}

static void
user_forward(OpCall *call)
{
    Datum   args[OP_MAX_INPUTS];
    Tensor *y;

    require_functions(call);
    for (int i = 0; i < call->n_inputs; i++)
        args[i] = argument(&call->in[i]);
    y = tensor_from_datum(call_function(call, !call->again, call->functions[0], args, call->n_inputs));
    /* gradients of a shape are on the way, and ops after this one read as many numbers */
    if (call->again && (y->ndim != call->out.ndim || memcmp(y->dims, call->out.dims, sizeof(int32) * y->ndim) != 0))
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("%s returned shape %s when it was computed again, and %s before",
                       format_procedure(call->functions[0]), tensor_shape_text(y->ndim, y->dims), op_shape(&call->out)),
                errhint("The functions of an op must give the same result whenever they are called."));
    /* of its own, as what was returned may be an input, or be in the hands of others */
    call->result = tensor_wrap(y->ndim, y->dims, y->buffer, y->data);
    op_value_of(&call->out, call->result);
}

/* The gradients of all inputs; NULL: none, which is a gradient of zeros. */
static void
call_backward(const OpCall *call, const float *dout, Tensor **grads)
{
    Datum   args[OP_MAX_INPUTS + 2];
    Tensor *upstream = tensor_new(call->out.ndim, call->out.dims);
    bool    one = get_func_rettype(call->functions[1]) == call->tensor_type;
    int     n = 0;
    Datum   result;
    Datum  *elements;
    bool   *nulls;
    int     n_elements;

    if (call->out.n > 0)
        memcpy(upstream->data, dout, sizeof(float) * call->out.n);
    args[n++] = EOHPGetRODatum(&upstream->hdr);
    for (int i = 0; i < call->n_inputs; i++)
        args[n++] = argument(&call->in[i]);
    args[n++] = argument(&call->out);
    result = call_function(call, false, call->functions[1], args, n);
    if (one)
    {
        grads[0] = tensor_from_datum(result);
        return;
    }
    deconstruct_array(DatumGetArrayTypeP(result), call->tensor_type, -1, false, TYPALIGN_DOUBLE, &elements, &nulls,
                      &n_elements);
    if (n_elements != call->n_inputs)
        ereport(ERROR, errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
                errmsg("%s returned %d gradients for %d input%s", format_procedure(call->functions[1]), n_elements,
                       call->n_inputs, call->n_inputs == 1 ? "" : "s"));
    for (int i = 0; i < n_elements; i++)
        grads[i] = nulls[i] ? NULL : tensor_from_datum(elements[i]);
}

static void
user_prepare(OpCall *call, const float *dout)
{
    Tensor **grads = palloc0(sizeof(Tensor *) * OP_MAX_INPUTS);

    require_functions(call);
    call_backward(call, dout, grads);
    for (int i = 0; i < call->n_inputs; i++)
    {
        const OpValue *x = &call->in[i];

        if (grads[i] != NULL &&
            (grads[i]->ndim != x->ndim || memcmp(grads[i]->dims, x->dims, sizeof(int32) * x->ndim) != 0))
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("%s returned a gradient of shape %s for input %d of shape %s",
                           format_procedure(call->functions[1]), tensor_shape_text(grads[i]->ndim, grads[i]->dims),
                           i + 1, op_shape(x)));
    }
    call->gradients = grads;
}

static void
user_backward(const OpCall *call, const float *dout, OpGrad *din)
{
    llm_engine *e = pg_llm_engine();

    for (int i = 0; i < call->n_inputs; i++)
    {
        const Tensor *grad = call->gradients[i];

        if (din[i].data == NULL)
            continue;
        if (grad != NULL)
            llm_copy(e, din[i].data, grad->data, din[i].acc, grad->n);
        else if (!din[i].acc && call->in[i].n > 0)
            memset(din[i].data, 0, sizeof(float) * call->in[i].n);
    }
}

/* pg_llm_apply(forward, backward, x1, ..., xn) */
PG_FUNCTION_INFO_V1(pg_llm_apply);
Datum
pg_llm_apply(PG_FUNCTION_ARGS)
{
    OpCall           call = {.op = &op_user};
    const PassState *pass = pass_current();
    char            *name;

    call.functions[0] = PG_GETARG_OID(0);
    call.functions[1] = PG_GETARG_OID(1);
    call.tensor_type = get_func_rettype(fcinfo->flinfo->fn_oid);
    /* without a key, the masks of a recorded op's dropout are drawn by one of its own */
    call.flag = pass->keyed || pass_recording();
    call.key.seed = pass->keyed ? pass->seed : pg_prng_uint64(&pg_global_prng_state);
    call.key.step = pass->keyed ? pass->step : 0;
    call.first = pass->keyed ? pass->micro_batch : 0;
    call.ints[0] = pass->sites;
    for (int i = 2; i < PG_NARGS(); i++)
        op_set_input(&call, i - 2, PG_GETARG_TENSOR(i));
    name = get_func_name(call.functions[0]);
    strlcpy(call.site, name == NULL ? "" : name, OP_SITE_LEN);
    PG_RETURN_TENSOR(op_run(&call));
}
