/*
 * identity.c -- which row versions the rows of a query are: pg_llm_fingerprint(name, number, tableoid, ctid, xmin) and,
 * for a model's weights, pg_llm_fingerprint(name, number, tableoid, ctid, xmin, data).
 *
 * The first gives 24 bytes, the session's own name of these rows, keyed by a secret of its own. The second gives 48:
 *
 *     24 bytes    the session's own name
 *     24 bytes    the public name, the same in every session of the cluster and on its standbys
 *
 * Both are the same before and after a commit, so that a trainer knows again what it wrote. But while a row is this
 * transaction's own, or lies in a file that it made, it may yet be rolled back, and nobody else may know it by its name:
 * fingerprint_public() gives none then.
 *
 * All are of what identifies the relation's file and columns, and of (name, number, ctid, xmin, data) of every row, in
 * any order; fingerprint.c says why that identifies the row. `data` counts as the executor hands it over, before it is
 * fetched from TOAST: the pointer (TOAST table, value id, sizes), else the content. So a name is also a proof. A pointer
 * is had from nothing but the column itself, by one who may read it, and never of rows that policies hide; what only
 * looks like a row (VALUES), or is another column's, gives another name. Content, which anyone may know, proves that it
 * is known. And data that a view computes is told from what it computed before.
 *
 * Rows are hashed with a secret of the cluster, which no SQL shows, and their sums once more: nobody can look for other
 * rows with the same sums. A public name can be copied, though. Hence fingerprint_public() believes only what this
 * session has given out to the same role within the statement.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_control.h"
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

#define FINGERPRINT_BYTES (2 * IDENTITY_BYTES)

struct Identity
{
    uint64  rows, sums[3]; /* which do not depend on the order of rows */
    Oid     relid;         /* of the row before, and what is known of its relation */
    SipHash relation;
    bool    own_file;
    bool    own_rows; /* of a file or a transaction that may yet be rolled back */
};

/* What is hashed starts with what it is. */
enum
{
    OF_NO_DATA,
    OF_TOAST,
    OF_CONTENT,
    OF_ROWS
};

/* ---- secrets ---- */

/*
 * Where the hash of every row starts: from this database of this cluster. The cluster's secret is the one with which
 * PostgreSQL answers logins of unknown users; it lies in pg_control, and so in a base backup as well.
 */
static SipHash
cluster_start(void)
{
    static bool    known = false;
    static SipHash start;

    if (!known)
    {
        uint64 nonce[MOCK_AUTH_NONCE_LEN / sizeof(uint64)];

        StaticAssertStmt(lengthof(nonce) == 4, "the cluster's secret has 32 bytes");
        memcpy(nonce, GetMockAuthenticationNonce(), sizeof(nonce));
        siphash_start(&start, nonce);
        siphash_add(&start, nonce[2]);
        siphash_add(&start, nonce[3]);
        siphash_add_bytes(&start, "pg_llm identity 1", 17);
        siphash_add(&start, GetSystemIdentifier());
        siphash_add(&start, MyDatabaseId);
        known = true;
    }
    return start;
}

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

Identity *
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

    *hash = cluster_start();
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

void
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
    identity->own_rows |= identity->own_file || TransactionIdIsCurrentTransactionId(row->xmin);
}

/* ---- names ---- */

static void
name_rows(SipHash hash, const Identity *identity, char name[IDENTITY_BYTES])
{
    uint64 words[3];

    siphash_add(&hash, OF_ROWS);
    siphash_add(&hash, identity->rows);
    for (int i = 0; i < 3; i++)
        siphash_add(&hash, identity->sums[i]);
    siphash_finish(&hash, words);
    StaticAssertStmt(sizeof(words) == IDENTITY_BYTES, "a name has three words");
    memcpy(name, words, IDENTITY_BYTES);
}

bool
identity_name(const Identity *identity, char name[IDENTITY_BYTES])
{
    name_rows(cluster_start(), identity, name);
    return !identity->own_rows;
}

/* ---- what this session has given out, to whom, and when ---- */

#define MAX_GIVEN 16

static struct
{
    char               bytes[FINGERPRINT_BYTES];
    bool               own_rows;
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
remember(const char bytes[FINGERPRINT_BYTES], bool own_rows)
{
    uint64 i = n_given++ % MAX_GIVEN;

    memcpy(given[i].bytes, bytes, FINGERPRINT_BYTES);
    given[i].own_rows = own_rows;
    given[i].user = GetUserId();
    given[i].transaction = local_transaction();
    given[i].statement = GetCurrentStatementStartTimestamp();
}

/* Its number in given, -1 when it was not given just now; the newest, for rows can be committed meanwhile */
static int
just_given(const char *bytes)
{
    for (uint64 back = 1; back <= Min(n_given, MAX_GIVEN); back++)
    {
        int i = (int) ((n_given - back) % MAX_GIVEN);

        if (memcmp(given[i].bytes, bytes, FINGERPRINT_BYTES) == 0 && given[i].user == GetUserId() &&
            given[i].transaction == local_transaction() && given[i].statement == GetCurrentStatementStartTimestamp())
            return i;
    }
    return -1;
}

bool
fingerprint_is_old(const char *bytes, int len)
{
    return len == FINGERPRINT_BYTES && just_given(bytes) < 0;
}

bool
fingerprint_public(const char *bytes, int len, char hex[2 * IDENTITY_BYTES + 1])
{
    int i = len == FINGERPRINT_BYTES ? just_given(bytes) : -1;

    if (i < 0 || given[i].own_rows)
        return false;
    hex_encode(bytes + IDENTITY_BYTES, IDENTITY_BYTES, hex);
    hex[2 * IDENTITY_BYTES] = '\0';
    return true;
}

/* pg_llm_public_name(fingerprint) -> what fingerprint_public() gives; NULL for none */
PG_FUNCTION_INFO_V1(pg_llm_public_name);
Datum
pg_llm_public_name(PG_FUNCTION_ARGS)
{
    bytea *fingerprint = PG_GETARG_BYTEA_PP(0);
    char   hex[2 * IDENTITY_BYTES + 1];

    if (!fingerprint_public(VARDATA_ANY(fingerprint), (int) VARSIZE_ANY_EXHDR(fingerprint), hex))
        PG_RETURN_NULL();
    PG_RETURN_TEXT_P(cstring_to_text(hex));
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

static bytea *
new_bytea(int n)
{
    bytea *result = palloc0(VARHDRSZ + n);

    SET_VARSIZE(result, VARHDRSZ + n);
    return result;
}

/* Final function without data: the session's name; NULL without rows */
PG_FUNCTION_INFO_V1(pg_llm_fingerprint_final);
Datum
pg_llm_fingerprint_final(PG_FUNCTION_ARGS)
{
    bytea *result;

    if (PG_ARGISNULL(0))
        PG_RETURN_NULL();
    result = new_bytea(IDENTITY_BYTES);
    name_rows(session_start(), (Identity *) PG_GETARG_POINTER(0), VARDATA(result));
    PG_RETURN_BYTEA_P(result);
}

/* Final function with data: both names; NULL without rows that count */
PG_FUNCTION_INFO_V1(pg_llm_fingerprint_final_data);
Datum
pg_llm_fingerprint_final_data(PG_FUNCTION_ARGS)
{
    Identity *identity = PG_ARGISNULL(0) ? NULL : (Identity *) PG_GETARG_POINTER(0);
    bytea    *result;

    if (identity == NULL || identity->rows == 0)
        PG_RETURN_NULL();
    result = new_bytea(FINGERPRINT_BYTES);
    name_rows(session_start(), identity, VARDATA(result));
    (void) identity_name(identity, VARDATA(result) + IDENTITY_BYTES);
    remember(VARDATA(result), identity->own_rows);
    PG_RETURN_BYTEA_P(result);
}
