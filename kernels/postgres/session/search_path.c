/*
 * search_path.c -- the search path of whoever called our functions.
 *
 * Our PL/pgSQL functions run under a path of their own, OUR_PATH, so that they find PostgreSQL's names and operators and
 * nobody else's. What a user hands them to run, a query or an architecture, means what it means under the path of its
 * user, which stands in the setting's stack of values that functions with SET clauses have put aside. So do functions of
 * users' that our statements call: in triggers, policies, defaults.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "optimizer/planner.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "settings.h"

/*
 * What SET search_path = pg_catalog, pg_llm, pg_temp stores. No schema pg_llm can be made (pg_ is reserved): it tells our
 * functions from those of others that set pg_catalog, pg_temp, whose path is not to be looked behind.
 */
#define OUR_PATH "pg_catalog, pg_llm, pg_temp"

/* The setting's record; a static variable of the server, so looked up once. */
static struct config_generic *
search_path_setting(void)
{
    static struct config_generic *record = NULL;

#if PG_VERSION_NUM >= 160000
    if (record == NULL)
        record = find_option("search_path", false, true, ERROR);
#else
    struct config_generic **all = get_guc_variables();

    for (int i = 0; record == NULL && i < GetNumConfigOptions(); i++)
        if (strcmp(all[i]->name, "search_path") == 0)
            record = all[i];
#endif
    if (record == NULL)
        elog(ERROR, "setting search_path does not exist");
    return record;
}

static bool
is_ours(void)
{
    return strcmp(namespace_search_path, OUR_PATH) == 0;
}

/* The path under which the outermost of our functions that are running inside each other was called. */
static const char *
callers_path(void)
{
    const char *path = namespace_search_path;

    for (GucStack *saved = search_path_setting()->stack; saved != NULL && strcmp(path, OUR_PATH) == 0;
         saved = saved->prev)
        if (saved->prior.val.stringval != NULL)
            path = saved->prior.val.stringval;
    return path;
}

static void
use_callers_path(void)
{
    (void) set_config_option("search_path", callers_path(), PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
                             false);
}

/* pg_llm_callers_search_path() -> the search path of the user's SQL */
PG_FUNCTION_INFO_V1(pg_llm_callers_search_path);
Datum
pg_llm_callers_search_path(PG_FUNCTION_ARGS)
{
    PG_RETURN_TEXT_P(cstring_to_text(callers_path()));
}

/*
 * pg_llm_use_callers_search_path(): puts that path into effect until the function of ours that calls this ends. As a
 * function's SET clause does it, which is allowed while a parallel query runs, where set_config() is not.
 */
PG_FUNCTION_INFO_V1(pg_llm_use_callers_search_path);
Datum
pg_llm_use_callers_search_path(PG_FUNCTION_ARGS)
{
    if (is_ours())
        use_callers_path();
    PG_RETURN_VOID();
}

/* ---- functions of users' that our statements call ---- */

static needs_fmgr_hook_type next_needs_hook = NULL;
static fmgr_hook_type       next_hook = NULL;

/*
 * Whether a function names what it uses when it runs, and leaves it to the path in effect what the names mean;
 * has_settings: it has SET clauses for something else.
 */
static bool
depends_on_path(Oid function, bool *has_settings)
{
    HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
    Oid       language;
    Datum     settings;
    bool      depends;
    bool      isnull;

    *has_settings = false;
    if (!HeapTupleIsValid(tuple))
        return false;
    language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
    depends = language != INTERNALlanguageId && language != ClanguageId &&
              heap_attisnull(tuple, Anum_pg_proc_prosqlbody, NULL);
    settings = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
    if (depends && !isnull)
    {
        Datum *elements;
        int    n;

        *has_settings = true;
        deconstruct_array(DatumGetArrayTypeP(settings), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
        for (int i = 0; i < n; i++)
            if (strncmp(TextDatumGetCString(elements[i]), "search_path=", strlen("search_path=")) == 0)
                depends = false;
    }
    ReleaseSysCache(tuple);
    return depends;
}

static bool
needs_hook(Oid function)
{
    bool has_settings;

    if (next_needs_hook != NULL && next_needs_hook(function))
        return true;
    return is_ours() && depends_on_path(function, &has_settings);
}

/* What stands in the place that a call of a function keeps for the hooks. */
typedef struct HookState
{
    int   nest_level; /* of the settings, ours to end; 0: none */
    Datum next;       /* the next hook's own */
} HookState;

/* Around such a function, called by a statement of ours, the caller's path is in effect. */
static void
around_function(FmgrHookEventType event, FmgrInfo *function, Datum *private)
{
    HookState *state = (HookState *) DatumGetPointer(*private);
    bool       has_settings;

    if (state == NULL)
    {
        state = MemoryContextAllocZero(function->fn_mcxt, sizeof(HookState));
        *private = PointerGetDatum(state);
    }
    if (event == FHET_START && is_ours() && depends_on_path(function->fn_oid, &has_settings))
    {
        /* A function with SET clauses has a level of its own, which ends before this hook is called again. */
        state->nest_level = has_settings ? 0 : NewGUCNestLevel();
        use_callers_path();
    }
    if (next_hook != NULL)
        next_hook(event, function, &state->next);
    if (event == FHET_END && state->nest_level > 0)
        AtEOXact_GUC(true, state->nest_level);
    /* After an error the end of the transaction, or of the subtransaction, puts the path back. */
    if (event != FHET_START)
        state->nest_level = 0;
}

/* ---- parallel workers ---- */

static planner_hook_type next_planner = NULL;

/*
 * A worker is given the path in effect, but not the values put aside under it: it could not tell the caller's. So
 * statements of ours run in one process, as their policies' functions may need the caller's path.
 */
static PlannedStmt *
plan(Query *query, const char *text, int options, ParamListInfo parameters)
{
    if (is_ours())
        options &= ~CURSOR_OPT_PARALLEL_OK;
    return (next_planner != NULL ? next_planner : standard_planner)(query, text, options, parameters);
}

void
search_path_init(void)
{
    next_planner = planner_hook;
    planner_hook = plan;
    next_needs_hook = needs_fmgr_hook;
    needs_fmgr_hook = needs_hook;
    next_hook = fmgr_hook;
    fmgr_hook = around_function;
}
