/*
 * identity.c -- which row versions the rows of a query are: pg_llm_fingerprint(name, number, tableoid, ctid, xmin) and,
 * for a model's weights, pg_llm_fingerprint(name, number, tableoid, ctid, xmin, data).
 *
 * Both give 24 bytes, the session's own name of these rows: keyed by a secret of its own, so that nobody can look for
 * other rows with the same sums, and compared within one session only. What sessions share has another name
 * (shared/shared_rows.c).
 *
 * A name is of what identifies the relation's file and columns, and of (name, number, ctid, xmin, data) of every row, in
 * any order; fingerprint.c says why that identifies the row. It is the same before and after a commit, so that a trainer
 * knows again what it wrote. `data` counts as the executor hands it over, before it is fetched from TOAST: the pointer
 * (TOAST table, value id, sizes), else the content. So a name is also a proof. A pointer is had from nothing but the
 * column itself, by one who may read it, and never of rows that policies hide; what only looks like a row (VALUES), or is
 * another column's, gives another name. Content, which anyone may know, proves that it is known. And data that a view
 * computes is told from what it computed before.
 *
 * A name can be kept, though. Hence a reader's memory opens only for one that this session has given out to the same
 * role within the statement (fingerprint_is_old).
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "fingerprint.h"
#include "siphash.h"

#define IDENTITY_BYTES 24

/* One row. `data` may point to TOAST: it is not fetched then. NULL: its data does not count. */
typedef struct IdentityRow
{
    const char     *name;
    int             name_len;
    int64           number;
    Oid             tableoid;
    ItemPointer     ctid;
    TransactionId   xmin;
    struct varlena *data;
} IdentityRow;

typedef struct Identity
{
    uint64  rows, sums[3]; /* which do not depend on the order of rows */
    Oid     relid;         /* of the row before, and what is known of its relation */
    SipHash relation;
    bool    own_file; /* this transaction made it, and so may empty it in place */
} Identity;

/* What is hashed starts with what it is. */
enum
{
    OF_NO_DATA,
    OF_TOAST,
    OF_CONTENT,
    OF_ROWS
};

/* Where every hash of this session starts */
static SipHash
session_start(void)
{
    static bool   drawn = false;
    static uint64 secret[2];
    SipHash       start;

    if (!drawn && !pg_strong_random(secret, sizeof(secret)))
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not draw a random number"));
    drawn = true;
    siphash_start(&start, secret);
    return start;
}

/* ---- rows ---- */

static Identity *
identity_new(void)
{
    Identity *identity = palloc0(sizeof(Identity));

    identity->relid = InvalidOid;
    return identity;
}

/* Files of an ordinary table, and columns: one that is renamed, or dropped and added, holds other values in old rows. */
static void
learn_relation(Identity *identity, Oid relid)
{
    Relation  rel = fingerprint_open(relid);
    TupleDesc desc = RelationGetDescr(rel);
    SipHash  *hash = &identity->relation;

    *hash = session_start();
    siphash_add(hash, (uint64) relid << 32 | rel->rd_rel->relfilenode);
    siphash_add(hash, (uint64) rel->rd_rel->reltablespace << 32 | (uint32) desc->natts);
    for (int i = 0; i < desc->natts; i++)
    {
        Form_pg_attribute column = TupleDescAttr(desc, i);

        siphash_add(hash, column->atttypid);
        siphash_add_bytes(hash, NameStr(column->attname), strlen(NameStr(column->attname)));
    }
    identity->own_file = fingerprint_own_file(rel);
    identity->relid = relid;
    table_close(rel, AccessShareLock);
}

static void
add_data(SipHash *hash, struct varlena *data)
{
    if (data == NULL)
        siphash_add(hash, OF_NO_DATA);
    else if (VARATT_IS_EXTERNAL_ONDISK(data))
    {
        struct varatt_external pointer;

        VARATT_EXTERNAL_GET_POINTER(pointer, data);
        siphash_add(hash, OF_TOAST);
        siphash_add(hash, (uint64) pointer.va_toastrelid << 32 | pointer.va_valueid);
        siphash_add(hash, (uint64) (uint32) pointer.va_rawsize << 32 | pointer.va_extinfo);
    }
    else
    {
        /* However it is packed: with a short header, compressed, or as a tensor in memory */
        struct varlena *content = pg_detoast_datum_packed(data);

        siphash_add(hash, OF_CONTENT);
        siphash_add_bytes(hash, VARDATA_ANY(content), VARSIZE_ANY_EXHDR(content));
        if (content != data)
            pfree(content);
    }
}

static void
identity_add(Identity *identity, const IdentityRow *row)
{
    SipHash hash;
    uint64  words[3];

    if (identity->relid != row->tableoid)
        learn_relation(identity, row->tableoid);
    hash = identity->relation;
    add_data(&hash, row->data);
    siphash_add(&hash, (uint64) row->number);
    siphash_add(&hash, (uint64) ItemPointerGetBlockNumberNoCheck(row->ctid) << 16 |
                           ItemPointerGetOffsetNumberNoCheck(row->ctid));
    siphash_add(&hash, row->xmin);
    siphash_add(&hash, identity->own_file ? fingerprint_command_at(row->tableoid, row->ctid) : 0);
    siphash_add_bytes(&hash, row->name, row->name_len);
    siphash_finish(&hash, words);
    for (int i = 0; i < 3; i++)
        identity->sums[i] += words[i];
    identity->rows++;
}

static bytea *
name_of(const Identity *identity)
{
    SipHash hash = session_start();
    uint64  words[3];
    bytea  *result = palloc(VARHDRSZ + IDENTITY_BYTES);

    siphash_add(&hash, OF_ROWS);
    siphash_add(&hash, identity->rows);
    for (int i = 0; i < 3; i++)
        siphash_add(&hash, identity->sums[i]);
    siphash_finish(&hash, words);
    StaticAssertStmt(sizeof(words) == IDENTITY_BYTES, "a name has three words");
    SET_VARSIZE(result, VARHDRSZ + IDENTITY_BYTES);
    memcpy(VARDATA(result), words, IDENTITY_BYTES);
    return result;
}

/* ---- what this session has given out, to whom, and when ---- */

#define MAX_GIVEN 16

static struct
{
    char               bytes[IDENTITY_BYTES];
    Oid                user;
    LocalTransactionId transaction;
    TimestampTz        statement;
} given[MAX_GIVEN];
static uint64 n_given;

static LocalTransactionId
local_transaction(void)
{
#if PG_VERSION_NUM >= 170000
    return MyProc->vxid.lxid;
#else
    return MyProc->lxid;
#endif
}

static void
remember(const char bytes[IDENTITY_BYTES])
{
    uint64 i = n_given++ % MAX_GIVEN;

    memcpy(given[i].bytes, bytes, IDENTITY_BYTES);
    given[i].user = GetUserId();
    given[i].transaction = local_transaction();
    given[i].statement = GetCurrentStatementStartTimestamp();
}

bool
fingerprint_is_old(const char *bytes, int len)
{
    if (len != IDENTITY_BYTES)
        return false;
    for (uint64 i = 0; i < Min(n_given, MAX_GIVEN); i++)
        if (memcmp(given[i].bytes, bytes, IDENTITY_BYTES) == 0 && given[i].user == GetUserId() &&
            given[i].transaction == local_transaction() && given[i].statement == GetCurrentStatementStartTimestamp())
            return false;
    return true;
}

/* ---- the aggregates ---- */

/* Transition function of both: one more row. A row with a NULL does not count. */
PG_FUNCTION_INFO_V1(pg_llm_fingerprint_add);
Datum
pg_llm_fingerprint_add(PG_FUNCTION_ARGS)
{
    MemoryContext aggregate, before;
    Identity     *identity;
    IdentityRow   row;
    text         *name;

    if (!AggCheckCallContext(fcinfo, &aggregate))
        ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                errmsg("pg_llm_fingerprint_add is the transition function of pg_llm_fingerprint"));
    if (PG_ARGISNULL(0))
    {
        before = MemoryContextSwitchTo(aggregate);
        identity = identity_new();
        MemoryContextSwitchTo(before);
    }
    else
        identity = (Identity *) PG_GETARG_POINTER(0);
    for (int i = 1; i < PG_NARGS(); i++)
        if (PG_ARGISNULL(i))
            PG_RETURN_POINTER(identity);
    name = PG_GETARG_TEXT_PP(1);
    row.name = VARDATA_ANY(name);
    row.name_len = (int) VARSIZE_ANY_EXHDR(name);
    row.number = PG_GETARG_INT64(2);
    row.tableoid = PG_GETARG_OID(3);
    row.ctid = (ItemPointer) PG_GETARG_POINTER(4);
    row.xmin = PG_GETARG_TRANSACTIONID(5);
    row.data = PG_NARGS() == 7 ? PG_GETARG_RAW_VARLENA_P(6) : NULL;
    identity_add(identity, &row);
    PG_RETURN_POINTER(identity);
}

/* Final function without data; NULL without rows */
PG_FUNCTION_INFO_V1(pg_llm_fingerprint_final);
Datum
pg_llm_fingerprint_final(PG_FUNCTION_ARGS)
{
    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    PG_RETURN_BYTEA_P(name_of((Identity *) PG_GETARG_POINTER(0)));
}

/* Final function with data; NULL without rows that count */
PG_FUNCTION_INFO_V1(pg_llm_fingerprint_final_data);
Datum
pg_llm_fingerprint_final_data(PG_FUNCTION_ARGS)
{
    Identity *identity = PG_ARGISNULL(0) ? NULL : (Identity *) PG_GETARG_POINTER(0);
    bytea    *result;

    if (identity == NULL || identity->rows == 0)
        PG_RETURN_NULL();
    result = name_of(identity);
    remember(VARDATA(result));
    PG_RETURN_BYTEA_P(result);
}
