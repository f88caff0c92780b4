/*
 * op_table.c -- the list of all ops, and its view from SQL.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "ops.h"

const OpDef *const op_table[] = {
    &op_embedding,
    &op_linear,
    &op_linear_nobias,
    &op_matmul,
    &op_add,
    &op_sub,
    &op_mul,
    &op_div,
    &op_neg,
    &op_layernorm,
    &op_rmsnorm,
    &op_gelu,
    &op_gelu_exact,
    &op_relu,
    &op_softmax,
    &op_dropout,
    &op_causal_attention,
    &op_causal_attention_qkv,
    &op_lm_head,
    &op_lm_head_loss,
    &op_cross_entropy,
    &op_transpose,
    &op_reshape,
    &op_slice,
    &op_concat,
    &op_sum,
    &op_mean,
    &op_last,
    NULL,
};

/* pg_llm_ops() -> (name, arguments): what the table holds. */
PG_FUNCTION_INFO_V1(pg_llm_ops);
Datum
pg_llm_ops(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

    InitMaterializedSRF(fcinfo, 0);
    for (int i = 0; op_table[i] != NULL; i++)
    {
        Datum values[2] = {CStringGetTextDatum(op_table[i]->name), CStringGetTextDatum(op_table[i]->args)};
        bool  nulls[2] = {false, false};

        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
    }
    return (Datum) 0;
}
