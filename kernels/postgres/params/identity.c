/*
 * identity.c -- which version of a model's weights the rows of a query are, by a name on which all sessions agree.
 *
 * pg_llm_fingerprint(name, number, tableoid, ctid, xmin, data) gives two names in one value:
 *
 *     24 bytes    the session's own name, keyed by a secret, which SQL can neither make nor predict
 *     24 bytes    the public name, the same in every session of the cluster and on its standbys; zeros when a row is
 *                 this transaction's own, or lies in a file that it made: what may yet be rolled back has no name
 *
 * Both are of what identifies the relation's file and columns, and of (name, number, ctid, xmin, data) of every row, in
 * any order; see fingerprint.c for why that identifies the row. `data` counts as the executor hands it over, before it
 * is fetched from TOAST: the pointer (TOAST table, value id, sizes), else the content. So a name is also a proof. A
 * pointer is had from nothing but the column itself, by one who may read it, rows that policies hide excepted; numbers
 * and texts that look like a row (VALUES) or other columns give other names. Content, which anyone may know, proves that
 * it is known. A data that a view computes is told from what it computed before, too.
 *
 * The public name is a SHA-256, cut short, for a weak hash without a secret could be met on purpose by rows of somebody
 * else's choice. It says nothing on its own: it can be computed by guessing. Hence fingerprint_public(), which only
 * believes names that this session has given out within the statement.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "fingerprint.h"

/* Of another way to compute names, the names are others. */
#define IDENTITY_FORMAT   "pg_llm identity 1"
#define FINGERPRINT_BYTES (2 * IDENTITY_BYTES)

struct Identity
{
    StringInfoData records; /* each: its length, then a kind that says what follows */
    int64          n_records, n_rows;
    Oid            relid; /* of the row before, and what is known of its relation */
    bool           own_file;
    bool           own_rows; /* of a file or a transaction that may yet be rolled back */
};

enum
{
    RECORD_RELATION = 'R',
    RECORD_TOAST = 'T',
    RECORD_CONTENT = 'C'
};

/* ---- SHA-256 ---- */

static void
sha256(const void *a, size_t a_len, const void *b, size_t b_len, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
    pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
    bool failed = hash == NULL || pg_cryptohash_init(hash) < 0 || pg_cryptohash_update(hash, a, a_len) < 0 ||
                  pg_cryptohash_update(hash, b, b_len) < 0 ||
                  pg_cryptohash_final(hash, digest, PG_SHA256_DIGEST_LENGTH) < 0;

    pg_cryptohash_free(hash);
    if (failed)
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute a SHA-256"));
}

/* ---- rows ---- */

Identity *
identity_new(void)
{
    Identity *identity = palloc0(sizeof(Identity));

    initStringInfo(&identity->records);
    return identity;
}

/* A record's length is known at its end. */
static int
begin_record(Identity *identity, char kind)
{
    int start = identity->records.len;

    pq_sendint32(&identity->records, 0);
    pq_sendbyte(&identity->records, kind);
    return start;
}

static void
end_record(Identity *identity, int start)
{
    uint32 len = (uint32) (identity->records.len - start) - sizeof(uint32);

    memcpy(identity->records.data + start, &len, sizeof(len));
    identity->n_records++;
}

/* Files of an ordinary table, and columns: one that is renamed, or dropped and added, holds other values in old rows. */
static void
add_relation(Identity *identity, Oid relid)
{
    Relation   rel = fingerprint_open(relid);
    TupleDesc  desc = RelationGetDescr(rel);
    StringInfo records = &identity->records;
    int        start = begin_record(identity, RECORD_RELATION);

    pq_sendint32(records, relid);
    pq_sendint32(records, rel->rd_rel->relfilenode);
    pq_sendint32(records, rel->rd_rel->reltablespace);
    pq_sendint32(records, (uint32) desc->natts);
    for (int i = 0; i < desc->natts; i++)
    {
        Form_pg_attribute column = TupleDescAttr(desc, i);

        pq_sendint32(records, column->atttypid);
        appendBinaryStringInfo(records, NameStr(column->attname), NAMEDATALEN);
    }
    end_record(identity, start);
    identity->own_file = fingerprint_own_file(rel);
    identity->own_rows |= identity->own_file;
    identity->relid = relid;
    table_close(rel, AccessShareLock);
}

static void
add_data(StringInfo records, struct varlena *data)
{
    struct varlena *content;
    uint8           digest[PG_SHA256_DIGEST_LENGTH];

    if (VARATT_IS_EXTERNAL_ONDISK(data))
    {
        struct varatt_external pointer;

        VARATT_EXTERNAL_GET_POINTER(pointer, data);
        pq_sendint32(records, pointer.va_toastrelid);
        pq_sendint32(records, pointer.va_valueid);
        pq_sendint32(records, (uint32) pointer.va_rawsize);
        pq_sendint32(records, pointer.va_extinfo);
        return;
    }
    content = pg_detoast_datum_packed(data);
    sha256(VARDATA_ANY(content), VARSIZE_ANY_EXHDR(content), "", 0, digest);
    pq_sendbytes(records, (char *) digest, sizeof(digest));
    if (content != data)
        pfree(content);
}

void
identity_add(Identity *identity, const IdentityRow *row)
{
    StringInfo records = &identity->records;
    int        start;

    if (identity->relid != row->tableoid)
        add_relation(identity, row->tableoid);
    identity->own_rows = identity->own_rows || TransactionIdIsCurrentTransactionId(row->xmin);
    identity->n_rows++;
    start = begin_record(identity, VARATT_IS_EXTERNAL_ONDISK(row->data) ? RECORD_TOAST : RECORD_CONTENT);
    pq_sendint32(records, row->tableoid);
    pq_sendint32(records, ItemPointerGetBlockNumberNoCheck(row->ctid));
    pq_sendint16(records, ItemPointerGetOffsetNumberNoCheck(row->ctid));
    pq_sendint32(records, row->xmin);
    add_data(records, row->data);
    pq_sendint64(records, (uint64) row->number);
    pq_sendint32(records, (uint32) row->name_len);
    pq_sendbytes(records, row->name, row->name_len);
    pq_sendint64(records, identity->own_file ? fingerprint_command_at(row->tableoid, row->ctid) : 0);
    end_record(identity, start);
}

/* ---- names ---- */

typedef struct Record
{
    uint32      len;
    const char *bytes;
} Record;

static int
compare_records(const void *a, const void *b)
{
    const Record *x = a, *y = b;
    int           order = memcmp(x->bytes, y->bytes, Min(x->len, y->len));

    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

static Record *
sorted_records(const Identity *identity)
{
    Record     *records = palloc_extended(sizeof(Record) * identity->n_records, MCXT_ALLOC_HUGE);
    const char *at = identity->records.data;

    for (int64 i = 0; i < identity->n_records; i++)
    {
        memcpy(&records[i].len, at, sizeof(uint32));
        records[i].bytes = at + sizeof(uint32);
        at = records[i].bytes + records[i].len;
    }
    qsort(records, identity->n_records, sizeof(Record), compare_records);
    return records;
}

/* Of all that identifies the rows. What was added stays: a window asks again and again. */
static void
digest_rows(const Identity *identity, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
    Record        *records = sorted_records(identity);
    uint64         cluster = GetSystemIdentifier();
    StringInfoData all;

    initStringInfo(&all);
    appendStringInfoString(&all, IDENTITY_FORMAT);
    pq_sendint64(&all, cluster);
    pq_sendint32(&all, MyDatabaseId);
    pq_sendint64(&all, (uint64) identity->n_rows);
    for (int64 i = 0; i < identity->n_records; i++)
    {
        /* A relation is written down whenever rows come to it again. */
        if (i > 0 && records[i].bytes[0] == RECORD_RELATION && compare_records(&records[i - 1], &records[i]) == 0)
            continue;
        pq_sendint32(&all, records[i].len);
        pq_sendbytes(&all, records[i].bytes, (int) records[i].len);
    }
    sha256(all.data, all.len, "", 0, digest);
    pfree(all.data);
    pfree(records);
}

bool
identity_name(Identity *identity, unsigned char name[IDENTITY_BYTES])
{
    uint8 digest[PG_SHA256_DIGEST_LENGTH];

    digest_rows(identity, digest);
    memcpy(name, digest, IDENTITY_BYTES);
    return !identity->own_rows;
}

/* ---- what this session has given out, to whom, and when ---- */

#define MAX_GIVEN 16

static struct
{
    char               bytes[FINGERPRINT_BYTES];
    Oid                user;
    LocalTransactionId transaction;
    TimestampTz        statement;
} given[MAX_GIVEN];
static int n_given;

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
remember(const char bytes[FINGERPRINT_BYTES])
{
    int i = n_given++ % MAX_GIVEN;

    memcpy(given[i].bytes, bytes, FINGERPRINT_BYTES);
    given[i].user = GetUserId();
    given[i].transaction = local_transaction();
    given[i].statement = GetCurrentStatementStartTimestamp();
}

static bool
just_given(const char bytes[FINGERPRINT_BYTES])
{
    for (int i = 0; i < Min(n_given, MAX_GIVEN); i++)
        if (memcmp(given[i].bytes, bytes, FINGERPRINT_BYTES) == 0 && given[i].user == GetUserId() &&
            given[i].transaction == local_transaction() && given[i].statement == GetCurrentStatementStartTimestamp())
            return true;
    return false;
}

bool
fingerprint_public(const char *bytes, int len, char hex[2 * IDENTITY_BYTES + 1])
{
    static const char none[IDENTITY_BYTES];

    if (len != FINGERPRINT_BYTES || memcmp(bytes + IDENTITY_BYTES, none, IDENTITY_BYTES) == 0 || !just_given(bytes))
        return false;
    hex_encode(bytes + IDENTITY_BYTES, IDENTITY_BYTES, hex);
    hex[2 * IDENTITY_BYTES] = '\0';
    return true;
}

/* ---- pg_llm_fingerprint(name, number, tableoid, ctid, xmin, data) ---- */

/* Transition function: one more row. A row with a NULL does not count. */
PG_FUNCTION_INFO_V1(pg_llm_identity_add);
Datum
pg_llm_identity_add(PG_FUNCTION_ARGS)
{
    MemoryContext aggregate, before;
    Identity     *identity;
    IdentityRow   row;
    text         *name;

    if (!AggCheckCallContext(fcinfo, &aggregate))
        ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                errmsg("pg_llm_identity_add is the transition function of pg_llm_fingerprint"));
    if (PG_ARGISNULL(0))
    {
        before = MemoryContextSwitchTo(aggregate);
        identity = identity_new();
        MemoryContextSwitchTo(before);
    }
    else
        identity = (Identity *) PG_GETARG_POINTER(0);
    for (int i = 1; i <= 6; i++)
        if (PG_ARGISNULL(i))
            PG_RETURN_POINTER(identity);
    name = PG_GETARG_TEXT_PP(1);
    row.name = VARDATA_ANY(name);
    row.name_len = (int) VARSIZE_ANY_EXHDR(name);
    row.number = PG_GETARG_INT64(2);
    row.tableoid = PG_GETARG_OID(3);
    row.ctid = (ItemPointer) PG_GETARG_POINTER(4);
    row.xmin = PG_GETARG_TRANSACTIONID(5);
    row.data = PG_GETARG_RAW_VARLENA_P(6);
    identity_add(identity, &row);
    PG_RETURN_POINTER(identity);
}

/* Final function: both names, the session's first; NULL without rows that count */
PG_FUNCTION_INFO_V1(pg_llm_identity_final);
Datum
pg_llm_identity_final(PG_FUNCTION_ARGS)
{
    static uint8 secret[PG_SHA256_DIGEST_LENGTH];
    static bool  drawn = false;
    Identity    *identity;
    uint8        digest[PG_SHA256_DIGEST_LENGTH], keyed[PG_SHA256_DIGEST_LENGTH];
    bytea       *result;

    identity = PG_ARGISNULL(0) ? NULL : (Identity *) PG_GETARG_POINTER(0);
    if (identity == NULL || identity->n_rows == 0)
        PG_RETURN_NULL();
    if (!drawn && !pg_strong_random(secret, sizeof(secret)))
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not draw a random number"));
    drawn = true;
    digest_rows(identity, digest);
    sha256(secret, sizeof(secret), digest, sizeof(digest), keyed);
    result = palloc0(VARHDRSZ + FINGERPRINT_BYTES);
    SET_VARSIZE(result, VARHDRSZ + FINGERPRINT_BYTES);
    memcpy(VARDATA(result), keyed, IDENTITY_BYTES);
    if (!identity->own_rows)
        memcpy(VARDATA(result) + IDENTITY_BYTES, digest, IDENTITY_BYTES);
    remember(VARDATA(result));
    PG_RETURN_BYTEA_P(result);
}
