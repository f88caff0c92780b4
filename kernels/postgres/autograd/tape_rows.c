/*
 * tape_rows.c -- the tape as rows of llm_tape, llm_tensor_rt and llm_tensor_map, and what a pass is numbered from.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "session/suspended.h"
#include "tape_internal.h"
#include "user_op.h"

static Datum
int8_array(const OpCall *c)
{
    Datum ids[OP_MAX_INPUTS];

    for (int i = 0; i < c->n_inputs; i++)
        ids[i] = Int64GetDatum(tape.base + c->in[i].value);
    return PointerGetDatum(construct_array(ids, c->n_inputs, INT8OID, sizeof(int64), true, TYPALIGN_DOUBLE));
}

static Datum
shape_array(int ndim, const int32 *dims)
{
    Datum sizes[TENSOR_MAX_NDIM];

    for (int i = 0; i < ndim; i++)
        sizes[i] = Int32GetDatum(dims[i]);
    return PointerGetDatum(construct_array(sizes, ndim, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* The shape and constants of a call under their names, as jsonb; of an array of numbers, how many there are. */
static Datum
extra_json(const OpCall *c)
{
    StringInfoData s;

    initStringInfo(&s);
    appendStringInfo(&s, "{\"shape\": %s", op_shape(&c->out));
    for (const OpArg *arg = c->op->args; arg->kind != '\0'; arg++)
    {
        int n = op_arg_rank(c->op, (int) (arg - c->op->args));

        if (arg->kind == 't' || (arg->kind == 's' && c->site[0] == '\0') || (arg->kind == 'j' && c->settings == NULL) ||
            (arg->kind == 'n' && c->ints[n] == NO_INTEGER))
            continue;
        appendStringInfo(&s, ", \"%s\": ", arg->name);
        if (arg->kind == 'n')
            appendStringInfo(&s, INT64_FORMAT, c->ints[n]);
        else if (arg->kind == 'r')
            appendStringInfo(&s, "%.9g", c->reals[n]);
        else if (arg->kind == 'b')
            appendStringInfoString(&s, c->flag ? "true" : "false");
        else if (arg->kind == 'i')
            appendStringInfo(&s, "%zu", c->ids.n);
        else if (arg->kind == 's')
            escape_json(&s, c->site);
        else
            (void) JsonbToCString(&s, &c->settings->root, VARSIZE(c->settings));
    }
    appendStringInfoChar(&s, '}');
    return DirectFunctionCall1(jsonb_in, CStringGetDatum(s.data));
}

/* pg_llm_tape(detail) -> rows of llm_tape, newest first; extra only with detail. */
PG_FUNCTION_INFO_V1(pg_llm_tape);
Datum
pg_llm_tape(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
    bool           detail = PG_GETARG_BOOL(0);

    InitMaterializedSRF(fcinfo, 0);
    for (uint32 i = tape_is_mine() ? tape.n_nodes : 0; i-- > 0;)
    {
        const OpCall *c = &tape.nodes[i].call;
        Datum         values[6];
        bool          nulls[6] = {false};

        values[0] = values[4] = Int64GetDatum(tape.base + c->out.value);
        values[1] = Int32GetDatum(i + 1);
        values[2] = CStringGetTextDatum(op_label(c));
        values[3] = int8_array(c);
        CHECK_FOR_INTERRUPTS();
        nulls[5] = !detail;
        values[5] = detail ? extra_json(c) : (Datum) 0;
        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
    }
    return (Datum) 0;
}

/* pg_llm_tape_tensors(payload) -> rows of llm_tensor_rt */
PG_FUNCTION_INFO_V1(pg_llm_tape_tensors);
Datum
pg_llm_tape_tensors(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
    bool           payload = PG_GETARG_BOOL(0);

    InitMaterializedSRF(fcinfo, 0);
    for (uint32 i = 0; i < tape.n_values && tape_is_mine(); i++)
    {
        TapeValue    *v = &tape.values[i];
        bool          param = v->kind == VALUE_PARAM;
        TensorBuffer *grad = !v->has_grad ? NULL : param ? v->param->grad : v->grad;
        double        grad_norm = v->grad_norm;
        Datum         values[7];
        bool          nulls[7] = {false};

        if (v->kind == VALUE_LOST)
            continue;
        if (grad != NULL && isnan(grad_norm))
            grad_norm = pg_llm_l2_norm(grad->data, v->n);
        values[0] = Int64GetDatum(tape.base + i);
        values[1] = shape_array(v->ndim, v->dims);
        values[2] = BoolGetDatum(v->needs_grad);
        nulls[3] = isnan(v->norm) && v->payload == NULL;
        values[3] = Float8GetDatum(v->norm);
        nulls[4] = !v->has_grad || isnan(grad_norm);
        values[4] = Float8GetDatum(grad_norm);
        nulls[5] = !payload || v->payload == NULL;
        nulls[6] = !payload || grad == NULL;
        values[5] = nulls[5] ? (Datum) 0 : tensor_datum(tensor_wrap(v->ndim, v->dims, v->payload, v->data));
        values[6] = nulls[6] ? (Datum) 0 : tensor_datum(tensor_wrap(v->ndim, v->dims, grad, grad->data));
        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
        CHECK_FOR_INTERRUPTS();
    }
    return (Datum) 0;
}

/* pg_llm_tape_params() -> (model, name, id): the parameters of the pass */
PG_FUNCTION_INFO_V1(pg_llm_tape_params);
Datum
pg_llm_tape_params(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

    InitMaterializedSRF(fcinfo, 0);
    for (uint32 i = 0; i < tape.n_values && tape_is_mine(); i++)
    {
        TapeValue *v = &tape.values[i];
        Datum      values[3];
        bool       nulls[3] = {false};

        CHECK_FOR_INTERRUPTS();
        if (v->kind != VALUE_PARAM && v->name == NULL)
            continue;
        values[0] = CStringGetTextDatum(v->kind == VALUE_PARAM ? v->version->model : v->model);
        values[1] = CStringGetTextDatum(v->kind == VALUE_PARAM ? v->param->name : v->name);
        values[2] = Int64GetDatum(tape.base + i);
        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
    }
    return (Datum) 0;
}

/* pg_llm_tape_clear(): empties the tape */
PG_FUNCTION_INFO_V1(pg_llm_tape_clear);
Datum
pg_llm_tape_clear(PG_FUNCTION_ARGS)
{
    require_not_suspended();
    /* the caller's, whose statement called a SECURITY DEFINER function, is none of ours: see tape_open */
    if (tape_is_mine() || !InLocalUserIdChange())
        tape_clear();
    PG_RETURN_VOID();
}

/* pg_llm_tape_base(base): the number that the ids of this pass start from */
PG_FUNCTION_INFO_V1(pg_llm_tape_set_base);
Datum
pg_llm_tape_set_base(PG_FUNCTION_ARGS)
{
    int64 base = PG_GETARG_INT64(0);

    require_not_suspended();
    if (base != 0 && base < TAPE_MAX_VALUES)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("ids of a pass cannot start from " INT64_FORMAT, base),
                errhint("Use 0 or a positive multiple of %u.", TAPE_MAX_VALUES));
    if (tape_is_mine())
        tape.base = base;
    PG_RETURN_VOID();
}

/* pg_llm_tape_base() -> that number */
PG_FUNCTION_INFO_V1(pg_llm_tape_base);
Datum
pg_llm_tape_base(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT64(tape.base);
}

/* pg_llm_tape_quiet(boolean): a pass whose rows nobody will see needs no norms. */
PG_FUNCTION_INFO_V1(pg_llm_tape_quiet);
Datum
pg_llm_tape_quiet(PG_FUNCTION_ARGS)
{
    tape.quiet = PG_GETARG_BOOL(0);
    PG_RETURN_VOID();
}
