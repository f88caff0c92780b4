/*
 * shared_rows.c -- the version of a model that the caller's snapshot shows, as its rows' own values stand for it.
 *
 * The executor hands out a value that lies in TOAST as the pointer that the row holds, 18 bytes which only a reader of
 * that column of that row gets. So one query over the rows proves the right to all of them and names the version, in a
 * fraction of a millisecond; the numbers are read only if a file has to be written.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "files/files.h"
#include "shared.h"

#define QUERY(updated_at)                                                                                              \
    "SELECT p.name, p.token_id, p.data, p.xmin, " updated_at                                                           \
    " FROM public.llm_param p WHERE p.model OPERATOR(pg_catalog.=) $1 AND p.data IS NOT NULL"

uint64
shared_model_hash(const char *model)
{
    return hash_bytes_extended((const unsigned char *) model, (int) strlen(model), 0);
}

/* Who was granted columns one by one need not see when a row was changed. */
static bool
may_read_time(void)
{
    Oid        relid = get_relname_relid("llm_param", get_namespace_oid("public", true));
    AttrNumber column = OidIsValid(relid) ? get_attnum(relid, "updated_at") : InvalidAttrNumber;

    return column != InvalidAttrNumber &&
           (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
            pg_attribute_aclcheck(relid, column, GetUserId(), ACL_SELECT) == ACLCHECK_OK);
}

static int
compare_rows(const void *a, const void *b)
{
    const SharedRow *x = a, *y = b;
    int              order = strcmp(x->name, y->name);

    return order != 0 ? order : x->token_id < y->token_id ? -1 : x->token_id > y->token_id;
}

typedef struct Claim
{
    SharedRow     row;
    TransactionId xmin;
} Claim;

static void
add(pg_cryptohash_ctx *hash, const void *bytes, size_t n)
{
    if (pg_cryptohash_update(hash, bytes, n) < 0)
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not hash: %s", pg_cryptohash_error(hash)));
}

/* One row: what identifies it, and its value. */
static void
add_row(pg_cryptohash_ctx *hash, const SharedRow *row, TransactionId xmin)
{
    struct varlena *value = (struct varlena *) DatumGetPointer(row->data);
    uint32          numbers[6] = {(uint32) row->token_id, xmin};

    add(hash, row->name, strlen(row->name) + 1);
    if (VARATT_IS_EXTERNAL_ONDISK(value))
    {
        struct varatt_external pointer;

        VARATT_EXTERNAL_GET_POINTER(pointer, value);
        numbers[2] = pointer.va_toastrelid;
        numbers[3] = pointer.va_valueid;
        numbers[4] = (uint32) pointer.va_rawsize;
        numbers[5] = pointer.va_extinfo;
        add(hash, numbers, sizeof(numbers));
    }
    else
    {
        /* No relation is 0, so this is nobody's pointer. */
        struct varlena *plain = (struct varlena *) PG_DETOAST_DATUM(row->data);

        numbers[4] = VARSIZE(plain);
        add(hash, numbers, sizeof(numbers));
        add(hash, VARDATA(plain), VARSIZE(plain) - VARHDRSZ);
        if (plain != value)
            pfree(plain);
    }
}

static void
identify(SharedRows *rows, const TransactionId *xmins)
{
    pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);

    if (hash == NULL || pg_cryptohash_init(hash) < 0)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a hash"));
    add(hash, rows->model, strlen(rows->model) + 1);
    for (int i = 0; i < rows->n; i++)
        add_row(hash, &rows->rows[i], xmins[i]);
    StaticAssertStmt(SHARED_VERSION_BYTES == PG_SHA256_DIGEST_LENGTH, "a version is a SHA-256");
    if (pg_cryptohash_final(hash, rows->version, sizeof(rows->version)) < 0)
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not hash: %s", pg_cryptohash_error(hash)));
    pg_cryptohash_free(hash);
}

/* Copies what SPI gave into `rows`, in order; `xmins` are its rows' in that order. */
static TransactionId *
take_rows(SharedRows *rows, bool with_time)
{
    TupleDesc      description = SPI_tuptable->tupdesc;
    uint64         n = SPI_processed;
    Claim         *claims = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Claim) * (n + 1));
    TransactionId *xmins = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(TransactionId) * (n + 1));

    if (n > INT_MAX)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("model \"%s\" has too many rows", rows->model));
    for (uint64 i = 0; i < n; i++)
    {
        MemoryContext old;
        Datum         values[5];
        bool          nulls[5];

        for (int column = 0; column < 5; column++)
            values[column] = SPI_getbinval(SPI_tuptable->vals[i], description, column + 1, &nulls[column]);
        if (nulls[0] || nulls[1] || nulls[2] || nulls[3])
            ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                    errmsg("a row of model \"%s\" in llm_param has no name or no token_id", rows->model));
        if (with_time && !nulls[4] && !TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(values[4])))
            rows->newest = Max(rows->newest, DatumGetTimestampTz(values[4]));
        claims[i].row.token_id = DatumGetInt32(values[1]);
        claims[i].xmin = DatumGetTransactionId(values[3]);
        old = MemoryContextSwitchTo(rows->context);
        claims[i].row.name = TextDatumGetCString(values[0]);
        claims[i].row.data = datumCopy(values[2], false, -1);
        MemoryContextSwitchTo(old);
        rows->own |= TransactionIdIsCurrentTransactionId(claims[i].xmin);
    }
    StaticAssertStmt(offsetof(Claim, row) == 0, "claims are sorted as rows");
    qsort(claims, n, sizeof(Claim), compare_rows);
    rows->rows = MemoryContextAllocHuge(rows->context, sizeof(SharedRow) * (n + 1));
    for (uint64 i = 0; i < n; i++)
    {
        rows->rows[i] = claims[i].row;
        xmins[i] = claims[i].xmin;
    }
    rows->n = (int) n;
    return xmins;
}

SharedRows *
shared_rows_read(FunctionCallInfo fcinfo, const char *model)
{
    MemoryContext     context = AllocSetContextCreate(CurrentMemoryContext, "pg_llm rows", ALLOCSET_DEFAULT_SIZES);
    SharedRows       *rows = MemoryContextAllocZero(context, sizeof(SharedRows));
    Oid               type = TEXTOID;
    bool              with_time = may_read_time();
    Datum             argument = CStringGetTextDatum(model);
    const FilesColumn columns[] = {{"name", TEXTOID},
                                   {"token_id", INT4OID},
                                   {"data", files_tensor_type(fcinfo)},
                                   {"xmin", XIDOID},
                                   {"updated_at", TIMESTAMPTZOID}};

    rows->context = context;
    rows->model = MemoryContextStrdup(context, model);
    rows->model_hash = shared_model_hash(model);
    SPI_connect();
    if (SPI_execute_with_args(with_time ? QUERY("p.updated_at") : QUERY("NULL::pg_catalog.timestamptz"), 1, &type,
                              &argument, NULL, true, 0) != SPI_OK_SELECT)
        elog(ERROR, "could not read llm_param");
    files_check_columns(SPI_tuptable->tupdesc, "llm_param", lengthof(columns), columns);
    identify(rows, take_rows(rows, with_time));
    SPI_finish();
    return rows;
}

void
shared_rows_free(SharedRows *rows)
{
    MemoryContextDelete(rows->context);
}

/* pg_llm_shared_version(model) -> what names the model's rows as the caller sees them; NULL: there are none */
PG_FUNCTION_INFO_V1(pg_llm_shared_version);
Datum
pg_llm_shared_version(PG_FUNCTION_ARGS)
{
    SharedRows *rows = shared_rows_read(fcinfo, text_to_cstring(PG_GETARG_TEXT_PP(0)));
    bytea      *version = palloc(VARHDRSZ + SHARED_VERSION_BYTES);
    bool        is_empty = rows->n == 0;

    SET_VARSIZE(version, VARHDRSZ + SHARED_VERSION_BYTES);
    memcpy(VARDATA(version), rows->version, SHARED_VERSION_BYTES);
    shared_rows_free(rows);
    if (is_empty)
        PG_RETURN_NULL();
    PG_RETURN_BYTEA_P(version);
}
