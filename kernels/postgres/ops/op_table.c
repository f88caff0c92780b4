/*
 * op_table.c -- the list of all ops, and its view from SQL.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "ops.h"

#define ENTRY(id) &op_##id,

const OpDef *const op_table[] = {OP_LIST(ENTRY) NULL};

/* "x tensor, eps double precision" */
static char *
arguments_text(const OpDef *op)
{
    StringInfoData s;

    initStringInfo(&s);
    for (const OpArg *arg = op->args; arg->kind != '\0'; arg++)
        appendStringInfo(&s, "%s%s %s", arg == op->args ? "" : ", ", arg->name, op_arg_type(arg->kind));
    return s.data;
}

/* pg_llm_ops() -> (name, arguments): what the table holds. */
PG_FUNCTION_INFO_V1(pg_llm_ops);
Datum
pg_llm_ops(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

    InitMaterializedSRF(fcinfo, 0);
    for (int i = 0; op_table[i] != NULL; i++)
    {
        Datum values[2] = {CStringGetTextDatum(op_table[i]->name), CStringGetTextDatum(arguments_text(op_table[i]))};
        bool  nulls[2] = {false, false};

        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
    }
    return (Datum) 0;
}
