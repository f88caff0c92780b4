/*
 * search_path.c -- the search path of whoever called our functions.
 *
 * Our PL/pgSQL functions run under a path of their own, OUR_PATH, so that they find PostgreSQL's names and operators and
 * nobody else's. What a user hands them to run, a query or an architecture, means what it means under the path of its
 * user, which stands in the setting's stack of values that functions with SET clauses have put aside.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

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

/* The path under which the outermost of our functions that are running inside each other was called. */
static const char *
callers_path(void)
{
    const char *path = namespace_search_path;

    for (GucStack *saved = search_path_setting()->stack; saved != NULL && strcmp(path, OUR_PATH) == 0; saved = saved->prev)
        if (saved->prior.val.stringval != NULL)
            path = saved->prior.val.stringval;
    return path;
}

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
    if (strcmp(namespace_search_path, OUR_PATH) == 0)
        (void) set_config_option("search_path", callers_path(), PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
                                 false);
    PG_RETURN_VOID();
}
