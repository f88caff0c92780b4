/*
 * engine.c -- the numerical engine inside a backend: settings applied, interrupts noticed, errors raised.
 *
 * Kernels run in our own threads and never call into PostgreSQL. The backend's thread polls should_stop between
 * tiles; a pending cancel or shutdown makes the kernel return with every worker idle, and only then does
 * CHECK_FOR_INTERRUPTS throw. Other interrupts wait for the end of the op: a kernel that was cut short cannot
 * be continued.
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "engine.h"
#include "settings.h"

static llm_engine *engine = NULL;
/* Asking the CPU or the system what there is costs as much as a small op: once per change of a setting. */
static int applied_isa = INT_MIN;
static int applied_threads = INT_MIN;
static int applied_max_threads = INT_MIN;

bool
pg_llm_should_stop(void *arg)
{
    (void) arg;
    if (!InterruptPending || InterruptHoldoffCount != 0 || CritSectionCount != 0)
        return false;
    return ProcDiePending || (QueryCancelPending && QueryCancelHoldoffCount == 0);
}

llm_engine *
pg_llm_engine(void)
{
    if (engine == NULL)
    {
        engine = llm_engine_create();
        if (engine == NULL)
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for the numerical engine"));
        llm_engine_set_should_stop(engine, pg_llm_should_stop, NULL);
    }
    if (applied_threads != pg_llm_threads || applied_max_threads != pg_llm_max_threads)
    {
        int most = pg_llm_max_threads > 0 ? pg_llm_max_threads : llm_cpu_count();

        llm_engine_set_threads(engine, pg_llm_threads > 0 ? Min(pg_llm_threads, most) : Min(llm_cpu_count(), most));
        llm_limit_workers(llm_engine_threads(engine) - 1);
        applied_threads = pg_llm_threads;
        applied_max_threads = pg_llm_max_threads;
    }
    if (applied_isa != pg_llm_isa)
    {
        llm_engine_set_isa(engine, pg_llm_isa < 0 ? llm_isa_best() : (llm_isa) pg_llm_isa);
        applied_isa = pg_llm_isa;
    }
    llm_engine_set_attention_chunk(engine, pg_llm_attention_chunk);
    return engine;
}

void
pg_llm_engine_trim(void)
{
    if (engine != NULL)
        llm_engine_trim(engine);
}

void
pg_llm_check(llm_engine *e)
{
    llm_status status = llm_engine_status(e);

    if (status == LLM_OK)
    {
        CHECK_FOR_INTERRUPTS();
        return;
    }
    llm_engine_clear_status(e);
    if (status == LLM_NO_MEMORY)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory in a kernel"),
                errhint("Use a smaller batch or a shorter block."));
    CHECK_FOR_INTERRUPTS();
    ereport(ERROR, errcode(ERRCODE_QUERY_CANCELED), errmsg("canceling statement: a kernel was interrupted"));
}

void
pg_llm_engine_abort(void)
{
    if (engine != NULL)
        llm_engine_clear_status(engine);
}

double
pg_llm_l2_norm(const float *x, size_t n)
{
    double squares = llm_sum_squares(pg_llm_engine(), x, n);

    pg_llm_check(engine);
    return sqrt(squares);
}

bool
pg_llm_all_finite(llm_engine *e, const float *x, size_t n)
{
    bool finite = llm_all_finite(e, x, n);

    /* a kernel that was stopped answers nothing */
    pg_llm_check(e);
    return finite;
}

/* pg_llm_numerics_version() -> the version of the rules that decide the bits of results */
PG_FUNCTION_INFO_V1(pg_llm_numerics_version);
Datum
pg_llm_numerics_version(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(llm_numerics_version());
}

/* pg_llm_library() -> what computes here: rules, compiler, machine, instruction set */
PG_FUNCTION_INFO_V1(pg_llm_library);
Datum
pg_llm_library(PG_FUNCTION_ARGS)
{
    llm_engine *e = pg_llm_engine();

    PG_RETURN_TEXT_P(cstring_to_text(psprintf("numerics %d, %s, %s, %s", llm_numerics_version(),
                                              llm_isa_name(llm_engine_isa(e)), __VERSION__, "PostgreSQL " PG_VERSION)));
}
