/*
 * pass.c -- the running pass: what keys its dropout, and whether its ops are recorded.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"

#include "generation/generate.h"
#include "pass.h"
#include "session/settings.h"
#include "session/suspended.h"
#include "tape.h"

static PassState pass;

const PassState *
pass_current(void)
{
    return &pass;
}

int
pass_next_site(void)
{
    return ++pass.sites;
}

bool
pass_recording(void)
{
    return !suspended() && pg_llm_autograd && !generate_in_use() && tape_open();
}

void
pass_restore(const PassState *mark)
{
    if (mark == NULL)
        memset(&pass, 0, sizeof(pass));
    else
        pass = *mark;
}

/* pg_llm_pass_begin(seed, step, micro_batch): keys the dropout of what follows in this transaction. */
PG_FUNCTION_INFO_V1(pg_llm_pass_begin);
Datum
pg_llm_pass_begin(PG_FUNCTION_ARGS)
{
    pass.keyed = true;
    pass.seed = (uint64) PG_GETARG_INT64(0);
    pass.step = (uint64) PG_GETARG_INT64(1);
    pass.micro_batch = (uint64) PG_GETARG_INT32(2);
    pass.sites = 0;
    PG_RETURN_VOID();
}

/* pg_llm_recording() -> whether this session records its ops */
PG_FUNCTION_INFO_V1(pg_llm_recording);
Datum
pg_llm_recording(PG_FUNCTION_ARGS)
{
    PG_RETURN_BOOL(pg_llm_autograd);
}

/*
 * pg_llm_set_recording(flag, is_local): sets pg_llm.autograd for the session, or as SET LOCAL does, which leaves a
 * setting of the caller's alone once the transaction ends. Undone when the transaction rolls back.
 */
PG_FUNCTION_INFO_V1(pg_llm_set_recording);
Datum
pg_llm_set_recording(PG_FUNCTION_ARGS)
{
    bool is_local = PG_GETARG_BOOL(1);

    if (is_local && PG_GETARG_BOOL(0) == pg_llm_autograd)
        PG_RETURN_VOID();
    (void) set_config_option("pg_llm.autograd", PG_GETARG_BOOL(0) ? "on" : "off", PGC_USERSET, PGC_S_SESSION,
                             is_local ? GUC_ACTION_LOCAL : GUC_ACTION_SET, true, 0, false);
    PG_RETURN_VOID();
}
