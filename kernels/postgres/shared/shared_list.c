/*
 * shared_list.c -- shared files as SQL sees them: a list of those whose model the caller may read, and their removal.
 *
 * A file that is removed too early costs a session the time to write it again, so who may write a model's rows may remove
 * its files, and nobody else. Of a model that is dropped they go with the commit.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"

#include "session/at_end.h"
#include "shared.h"

/* ---- the list ---- */

/* Header and table of a file, palloc'd; NULL: not one of ours. */
static SharedTable *
read_entry(const SharedEntry *entry)
{
    int          fd = OpenTransientFile(entry->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | PG_BINARY);
    SharedTable *t = NULL;
    struct stat  about;
    int          error;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &about) == 0)
        t = shared_file_read(fd, &about, &error);
    CloseTransientFile(fd);
    return t;
}

/* What the caller sees of a model, asked once for all of its files. */
typedef struct SeenModel
{
    struct SeenModel *next;
    SharedRows       *rows;
} SeenModel;

static const SharedRows *
rows_of(FunctionCallInfo fcinfo, SeenModel **seen, const char *model)
{
    SeenModel *m;

    for (m = *seen; m != NULL; m = m->next)
        if (strcmp(m->rows->model, model) == 0)
            return m->rows;
    m = palloc(sizeof(SeenModel));
    m->rows = shared_rows_read(fcinfo, model);
    m->next = *seen;
    *seen = m;
    return m->rows;
}

/* pg_llm_shared_versions() -> (model, weights, bytes, built_at, current) of files whose model's rows the caller sees */
PG_FUNCTION_INFO_V1(pg_llm_shared_versions);
Datum
pg_llm_shared_versions(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
    SeenModel     *seen = NULL;
    int            n;
    SharedEntry   *entries = shared_entries(&n);

    InitMaterializedSRF(fcinfo, 0);
    for (int i = 0; i < n; i++)
    {
        SharedTable *t = entries[i].database == MyDatabaseId && !entries[i].temporary ? read_entry(&entries[i]) : NULL;
        const SharedRows *rows = t == NULL ? NULL : rows_of(fcinfo, &seen, t->text);
        Datum             values[5];
        bool              nulls[5] = {false};

        CHECK_FOR_INTERRUPTS();
        if (rows == NULL || rows->n == 0)
            continue;
        values[0] = CStringGetTextDatum(t->text);
        values[1] = CStringGetTextDatum(llm_precision_name((llm_precision) t->header.precision));
        values[2] = Int64GetDatum((int64) t->header.bytes);
        values[3] = TimestampTzGetDatum(t->header.built_at);
        values[4] = BoolGetDatum(memcmp(t->header.version, rows->version, SHARED_VERSION_BYTES) == 0);
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return (Datum) 0;
}

/* ---- who may remove ---- */

/* Any of the privileges, on the table or on some column */
static bool
has_privilege(Oid relid, AclMode mode)
{
    return pg_class_aclcheck(relid, GetUserId(), mode) == ACLCHECK_OK ||
           pg_attribute_aclcheck_all(relid, GetUserId(), mode, ACLMASK_ANY) == ACLCHECK_OK;
}

/*
 * Row policies, if there are any, let the caller update one of the rows at least. Nothing can be locked where nothing can
 * be written.
 */
static bool
policies_allow(Oid relid, const char *model)
{
    Oid   type = TEXTOID;
    Datum argument = CStringGetTextDatum(model);
    bool  found;

    if (check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED)
        return true;
    if (XactReadOnly || !has_privilege(relid, ACL_UPDATE))
        return false;
    SPI_connect();
    if (SPI_execute_with_args(
            "SELECT FROM public.llm_param p WHERE p.model OPERATOR(pg_catalog.=) $1 LIMIT 1 FOR KEY SHARE", 1, &type,
            &argument, NULL, false, 1) != SPI_OK_SELECT)
        elog(ERROR, "could not read llm_param");
    found = SPI_processed > 0;
    SPI_finish();
    return found;
}

/* Whether the caller may write rows of llm_param at all: 42501 otherwise. */
static Oid
require_writer(AclMode mode)
{
    Oid relid = get_relname_relid("llm_param", get_namespace_oid("public", true));

    if (!OidIsValid(relid))
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation \"public.llm_param\" does not exist"));
    if (!has_privilege(relid, mode))
        aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
    return relid;
}

/* pg_llm_shared_remove(model) -> bytes of the model's files, now removed; NULL: row policies keep the caller off it */
PG_FUNCTION_INFO_V1(pg_llm_shared_remove);
Datum
pg_llm_shared_remove(PG_FUNCTION_ARGS)
{
    char *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    Oid   relid = require_writer(ACL_UPDATE);

    if (!policies_allow(relid, model))
        PG_RETURN_NULL();
    PG_RETURN_INT64(shared_unlink_model(shared_model_hash(model)));
}

/* ---- with the commit ---- */

typedef struct PendingRemoval
{
    AtEnd  head;
    uint64 model_hash;
} PendingRemoval;

static AtEnd *pending = NULL;

/* pg_llm_shared_forget(model): the model's files go when the transaction, which removes or renames its rows, commits */
PG_FUNCTION_INFO_V1(pg_llm_shared_forget);
Datum
pg_llm_shared_forget(PG_FUNCTION_ARGS)
{
    char           *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    Oid             relid = require_writer(ACL_UPDATE | ACL_DELETE);
    PendingRemoval *p;

    if (!shared_enabled() || !policies_allow(relid, model))
        PG_RETURN_VOID();
    p = MemoryContextAlloc(TopMemoryContext, sizeof(PendingRemoval));
    p->model_hash = shared_model_hash(model);
    at_end_add(&pending, &p->head, true);
    PG_RETURN_VOID();
}

static void
remove_files(AtEnd *entry)
{
    (void) shared_unlink_model(((PendingRemoval *) entry)->model_hash);
}

void
shared_end_xact(XactEvent event)
{
    at_end_settle(&pending, 1, event == XACT_EVENT_COMMIT, event == XACT_EVENT_PREPARE, remove_files);
}

void
shared_end_subxact(bool commit)
{
    at_end_settle(&pending, GetCurrentTransactionNestLevel(), commit, false, remove_files);
}
