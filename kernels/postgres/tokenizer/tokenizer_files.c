/*
 * tokenizer_files.c -- vocabulary and merge files as rows, the byte-level alphabet, and reading files of the server.
 *
 * Core's parsers own memory of their own while they run, so that nothing may throw inside them: what they find is
 * collected first and becomes rows afterwards.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "session/engine.h"
#include "files/files.h"
#include "core/engine/memory.h"
#include "tokenizer.h"

/* A token and its id, or a merge and its rank: the halves stand one after the other in the pool. */
typedef struct Entry
{
    size_t start;
    uint32 n;
    uint32 n_right;
    int32  number;
} Entry;

typedef struct Entries
{
    uint8_t *pool;
    size_t   n_pool, pool_room;
    Entry   *entries;
    size_t   n, room;
    bool     no_memory;
} Entries;

static void
free_entries(Entries *e)
{
    free(e->pool);
    free(e->entries);
}

/* An array with room for more, NULL when there is no memory */
static void *
grow(void *array, size_t *room, size_t wanted, size_t element)
{
    size_t larger = Max(Max(*room * 2, wanted), 1024);
    void  *grown;

    if (array != NULL && wanted <= *room)
        return array;
    grown = llm_realloc(array, larger * element);
    if (grown != NULL)
        *room = larger;
    return grown;
}

static bool
collect_merge(void *arg, uint32_t rank, const uint8_t *left, size_t n_left, const uint8_t *right, size_t n_right)
{
    Entries *e = arg;
    void    *pool = grow(e->pool, &e->pool_room, e->n_pool + n_left + n_right, 1);
    void    *entries;

    if (pool != NULL)
        e->pool = pool;
    entries = grow(e->entries, &e->room, e->n + 1, sizeof(Entry));
    if (entries != NULL)
        e->entries = entries;
    e->no_memory = pool == NULL || entries == NULL;
    if (e->no_memory)
        return false;
    e->entries[e->n++] = (Entry){e->n_pool, (uint32) n_left, (uint32) n_right, (int32) rank};
    memcpy(e->pool + e->n_pool, left, n_left);
    if (n_right > 0)
        memcpy(e->pool + e->n_pool + n_left, right, n_right);
    e->n_pool += n_left + n_right;
    return true;
}

static bool
collect_token(void *arg, const uint8_t *token, size_t n, int32_t id)
{
    return collect_merge(arg, (uint32_t) id, token, n, NULL, 0);
}

/* The error of a parser that returned false */
static void
refuse(const char *what, const llm_bpe_error *error, Entries *e)
{
    if (error->message != NULL && !e->no_memory)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s, line %zu: %s", what, error->line, error->message));
    tokenizer_check(LLM_BPE_NO_MEMORY);
}

/* ---- rows ---- */

static Datum
text_datum(const uint8_t *utf8, size_t n)
{
    return PointerGetDatum(tokenizer_text(utf8, n));
}

static Datum
bytea_datum(const uint8_t *bytes, size_t n)
{
    return PointerGetDatum(cstring_to_text_with_len((const char *) bytes, (int) n));
}

/* Ensure that the database's encoding has the stand-ins of bytes, which lie above Latin-1. */
static void
require_alphabet(void)
{
    if (GetDatabaseEncoding() != PG_UTF8 && GetDatabaseEncoding() != PG_SQL_ASCII)
        ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                errmsg("a database of encoding %s cannot hold the tokens of BPE or WordPiece",
                       GetDatabaseEncodingName()),
                errhint("Use a database with encoding UTF8, or a character tokenizer (llm_build_char_tokenizer)."));
}

static Datum
alphabet_datum(const uint8_t *bytes, size_t n)
{
    uint8_t *token = palloc(2 * n + 1);
    size_t   length = llm_bpe_alphabet(token, bytes, n);

    require_alphabet();
    token[length] = '\0';
    return text_datum(token, length);
}

typedef enum RowKind
{
    TOKEN_ROWS,
    PLAIN_ROWS,
    BYTES_ROWS,
    MERGE_ROWS,
    BYTES_MERGE_ROWS
} RowKind;

/* One entry as a row: token_id, token, bytes (PLAIN_ROWS: without), or rank, left_token, right_token */
static void
put_row(ReturnSetInfo *rsinfo, RowKind kind, const Entry *entry, const uint8_t *pool)
{
    const uint8_t *p = pool + entry->start;
    uint8_t        bytes[4 * LLM_BPE_MAX_TOKEN];
    size_t         n;
    Datum          values[3] = {Int32GetDatum(entry->number)};
    bool           nulls[3] = {false};

    switch (kind)
    {
        case TOKEN_ROWS:
            n = llm_bpe_alphabet_bytes(bytes, p, entry->n);
            values[1] = text_datum(p, entry->n);
            /* Tokens added by hand may hold characters that stand for themselves. */
            values[2] = n == SIZE_MAX ? bytea_datum(p, entry->n) : bytea_datum(bytes, n);
            break;
        case PLAIN_ROWS:
            values[1] = text_datum(p, entry->n);
            break;
        case BYTES_ROWS:
            values[1] = alphabet_datum(p, entry->n);
            values[2] = bytea_datum(p, entry->n);
            break;
        case MERGE_ROWS:
            values[1] = text_datum(p, entry->n);
            values[2] = text_datum(p + entry->n, entry->n_right);
            break;
        case BYTES_MERGE_ROWS:
            values[1] = alphabet_datum(p, entry->n);
            values[2] = alphabet_datum(p + entry->n, entry->n_right);
            break;
    }
    tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_rows(FunctionCallInfo fcinfo, RowKind kind, Entries *e)
{
    MemoryContext row = AllocSetContextCreate(CurrentMemoryContext, "tokenizer rows", ALLOCSET_DEFAULT_SIZES);

    PG_TRY();
    {
        require_alphabet();
        InitMaterializedSRF(fcinfo, 0);
        for (size_t i = 0; i < e->n; i++)
        {
            MemoryContext caller = MemoryContextSwitchTo(row);

            put_row((ReturnSetInfo *) fcinfo->resultinfo, kind, &e->entries[i], e->pool);
            MemoryContextSwitchTo(caller);
            MemoryContextReset(row);
            CHECK_FOR_INTERRUPTS();
        }
    }
    PG_FINALLY();
    {
        free_entries(e);
    }
    PG_END_TRY();
    MemoryContextDelete(row);
}

/* pg_llm_bpe_read_vocab(contents) -> (token_id, token, bytes) of vocab.json */
PG_FUNCTION_INFO_V1(pg_llm_bpe_read_vocab);
Datum
pg_llm_bpe_read_vocab(PG_FUNCTION_ARGS)
{
    bytea        *contents = PG_GETARG_BYTEA_PP(0);
    Entries       found = {0};
    llm_bpe_error error;

    if (!llm_bpe_parse_vocab((const uint8_t *) VARDATA_ANY(contents), VARSIZE_ANY_EXHDR(contents), collect_token,
                             &found, &error))
    {
        free_entries(&found);
        refuse("vocabulary", &error, &found);
    }
    put_rows(fcinfo, TOKEN_ROWS, &found);
    return (Datum) 0;
}

/* pg_llm_wordpiece_read_vocab(contents) -> (token_id, token) of vocab.txt, or of an object like vocab.json */
PG_FUNCTION_INFO_V1(pg_llm_wordpiece_read_vocab);
Datum
pg_llm_wordpiece_read_vocab(PG_FUNCTION_ARGS)
{
    bytea         *contents = PG_GETARG_BYTEA_PP(0);
    const uint8_t *p = (const uint8_t *) VARDATA_ANY(contents);
    size_t         n = VARSIZE_ANY_EXHDR(contents);
    Entries        found = {0};
    llm_bpe_error  error;
    bool           done;

    if (llm_wordpiece_is_json(p, n))
        done = llm_bpe_parse_vocab(p, n, collect_token, &found, &error);
    else
        done = llm_wordpiece_parse_vocab(p, n, collect_token, &found, &error);
    if (!done)
    {
        free_entries(&found);
        refuse("vocabulary", &error, &found);
    }
    put_rows(fcinfo, PLAIN_ROWS, &found);
    return (Datum) 0;
}

/* pg_llm_bpe_read_merges(contents) -> (rank, left_token, right_token) of merges.txt */
PG_FUNCTION_INFO_V1(pg_llm_bpe_read_merges);
Datum
pg_llm_bpe_read_merges(PG_FUNCTION_ARGS)
{
    bytea        *contents = PG_GETARG_BYTEA_PP(0);
    Entries       found = {0};
    llm_bpe_error error;

    if (!llm_bpe_parse_merges((const uint8_t *) VARDATA_ANY(contents), VARSIZE_ANY_EXHDR(contents), collect_merge,
                              &found, &error))
    {
        free_entries(&found);
        refuse("merges", &error, &found);
    }
    put_rows(fcinfo, MERGE_ROWS, &found);
    return (Datum) 0;
}

static Entries
read_tiktoken(bytea *contents)
{
    Entries       found = {0};
    llm_bpe_error error;

    if (!llm_bpe_parse_tiktoken((const uint8_t *) VARDATA_ANY(contents), VARSIZE_ANY_EXHDR(contents), collect_token,
                                &found, &error))
    {
        free_entries(&found);
        refuse("tiktoken file", &error, &found);
    }
    return found;
}

/* pg_llm_bpe_read_tiktoken(contents) -> (token_id, token, bytes) of a .tiktoken file */
PG_FUNCTION_INFO_V1(pg_llm_bpe_read_tiktoken);
Datum
pg_llm_bpe_read_tiktoken(PG_FUNCTION_ARGS)
{
    Entries found = read_tiktoken(PG_GETARG_BYTEA_PP(0));

    put_rows(fcinfo, BYTES_ROWS, &found);
    return (Datum) 0;
}

/* The merges behind the tokens of a .tiktoken file */
static llm_bpe_status
recover(const Entries *tokens, Entries *merges)
{
    llm_bpe       *bpe = llm_bpe_create(&(llm_bpe_settings){0});
    llm_bpe_status status = bpe == NULL ? LLM_BPE_NO_MEMORY : LLM_BPE_OK;

    for (size_t i = 0; i < tokens->n && status == LLM_BPE_OK; i++)
        status = llm_bpe_put_token(bpe, tokens->entries[i].number, tokens->pool + tokens->entries[i].start,
                                   tokens->entries[i].n, 0);
    if (status == LLM_BPE_OK)
        status = llm_bpe_recover_merges(bpe, pg_llm_should_stop, NULL, collect_merge, merges);
    llm_bpe_destroy(bpe);
    return merges->no_memory ? LLM_BPE_NO_MEMORY : status;
}

/* pg_llm_bpe_read_tiktoken_merges(contents) -> (rank, left_token, right_token) that the file's ranks imply */
PG_FUNCTION_INFO_V1(pg_llm_bpe_read_tiktoken_merges);
Datum
pg_llm_bpe_read_tiktoken_merges(PG_FUNCTION_ARGS)
{
    Entries        tokens = read_tiktoken(PG_GETARG_BYTEA_PP(0)), merges = {0};
    llm_bpe_status status = recover(&tokens, &merges);

    free_entries(&tokens);
    if (status != LLM_BPE_OK)
        free_entries(&merges);
    tokenizer_check(status);
    put_rows(fcinfo, BYTES_MERGE_ROWS, &merges);
    return (Datum) 0;
}

/* ---- the alphabet ---- */

/* pg_llm_bpe_alphabet(bytes) -> token, its printable stand-in */
PG_FUNCTION_INFO_V1(pg_llm_bpe_alphabet);
Datum
pg_llm_bpe_alphabet(PG_FUNCTION_ARGS)
{
    bytea *bytes = PG_GETARG_BYTEA_PP(0);

    if (VARSIZE_ANY_EXHDR(bytes) > MaxAllocSize / 2 - VARHDRSZ)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("too many bytes for a token"));
    PG_RETURN_DATUM(alphabet_datum((const uint8_t *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)));
}

/* pg_llm_characters(text) -> its characters; SQL_ASCII, which knows none, holds UTF-8 here or the text is refused */
PG_FUNCTION_INFO_V1(pg_llm_characters);
Datum
pg_llm_characters(PG_FUNCTION_ARGS)
{
    text          *t = PG_GETARG_TEXT_PP(0);
    const char    *p = VARDATA_ANY(t), *end = p + VARSIZE_ANY_EXHDR(t);
    int            encoding = GetDatabaseEncoding() == PG_SQL_ASCII ? PG_UTF8 : GetDatabaseEncoding();
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
    bool           isnull = false;

    (void) pg_verify_mbstr(encoding, p, (int) (end - p), false);
    InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
    while (p < end)
    {
        int   n = pg_encoding_mblen(encoding, p);
        text *character = cstring_to_text_with_len(p, n);
        Datum value = PointerGetDatum(character);

        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &isnull);
        pfree(character);
        p += n;
        CHECK_FOR_INTERRUPTS();
    }
    return (Datum) 0;
}

/* ---- files of the server ---- */

/* pg_llm_read_file(path, max_bytes) -> contents; for roles with the privileges of pg_read_server_files */
PG_FUNCTION_INFO_V1(pg_llm_read_file);
Datum
pg_llm_read_file(PG_FUNCTION_ARGS)
{
    char       *path = text_to_cstring(PG_GETARG_TEXT_PP(0));
    int64       max_bytes = Min(PG_GETARG_INT64(1), (int64) MaxAllocSize - VARHDRSZ);
    struct stat st;
    bytea      *contents;
    size_t      n;
    FILE       *file;

    if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
        ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                errmsg("permission denied to read file \"%s\" on the server", path),
                errhint("This requires the role pg_read_server_files; the client can load files, too."));
    /* What is no regular file is not even opened: opening a pipe would wait for a writer. */
    if (stat(path, &st) != 0)
        ereport(ERROR, files_errcode(), errmsg("could not read file \"%s\": %m", path));
    if (!S_ISREG(st.st_mode))
        ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a regular file", path));
    if (st.st_size > max_bytes)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("file \"%s\" has " INT64_FORMAT " bytes, more than " INT64_FORMAT, path, (int64) st.st_size,
                       max_bytes));
    file = AllocateFile(path, PG_BINARY_R);
    if (file == NULL)
        ereport(ERROR, files_errcode(), errmsg("could not open file \"%s\": %m", path));
    contents = palloc(st.st_size + VARHDRSZ);
    n = fread(VARDATA(contents), 1, st.st_size, file);
    if (ferror(file))
        ereport(ERROR, errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path));
    FreeFile(file);
    SET_VARSIZE(contents, n + VARHDRSZ);
    PG_RETURN_BYTEA_P(contents);
}
