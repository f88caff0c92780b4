/*
 * files_write.c -- writing weight files on the server: what two queries give out, atomically.
 *
 * The file is written under a temporary name, flushed, renamed, and its folder flushed; so a reader sees the whole
 * file or none, after a crash too. When the transaction does not commit, the file goes.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/file_perm.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "files.h"
#include "tensor_view.h"

typedef struct Output
{
    const char *path;
    char       *temporary;
    int         fd;
    int64       bytes;
    int         write_errno;
    bool        hash_failed;
    pg_cryptohash_ctx *hash;
    llm_weights_writer *writer;
} Output;

static bool
write_bytes(void *arg, const void *bytes, size_t n)
{
    Output *o = arg;
    const char *p = bytes;

    if (pg_cryptohash_update(o->hash, bytes, n) < 0)
    {
        o->hash_failed = true;
        return false;
    }
    while (n > 0)
    {
        ssize_t k;

        if (files_should_stop())
            return false;
        k = write(o->fd, p, Min(n, (size_t) 8 * 1024 * 1024));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
        {
            o->write_errno = k < 0 ? errno : ENOSPC;
            return false;
        }
        p += k;
        n -= k;
        o->bytes += k;
    }
    return true;
}

static void __attribute__((noreturn))
write_failed(Output *o, llm_weights_status status, const char *error)
{
    if (o->hash_failed)
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not hash file \"%s\"", o->path));
    CHECK_FOR_INTERRUPTS();
    if (status == LLM_WEIGHTS_INVALID)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("file \"%s\" cannot be written: %s", o->path,
                                                                        error));
    files_fail(o->path, status, error, o->write_errno);
}

static llm_weights_format
format_named(const char *name)
{
    if (strcmp(name, "safetensors") == 0)
        return LLM_SAFETENSORS;
    if (strcmp(name, "npz") == 0)
        return LLM_NPZ;
    if (strcmp(name, "gzip") == 0)
        return LLM_NPY_GZIP;
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown file format \"%s\"", name),
            errhint("Formats are safetensors, npz and gzip."));
}

static char *
to_utf8(const char *s)
{
    return (char *) pg_do_encoding_conversion((unsigned char *) s, strlen(s), GetDatabaseEncoding(), PG_UTF8);
}

static Portal
open_query(const char *query, Datum argument)
{
    Oid     type = TEXTOID;

    return SPI_cursor_open_with_args(NULL, query, 1, &type, &argument, NULL, true, 0);
}

/* One row of the tensors' query: name text, dtype text, shape int[]. */
static llm_weights_entry
entry_of(HeapTuple row, TupleDesc description, MemoryContext cx)
{
    llm_weights_entry e = {0};
    MemoryContext old = MemoryContextSwitchTo(cx);
    char       *name = SPI_getvalue(row, description, 1), *dtype = SPI_getvalue(row, description, 2);
    bool        null;
    Datum       shape = SPI_getbinval(row, description, 3, &null);
    IntArray    dims;

    if (name == NULL || dtype == NULL || null)
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a tensor's name, type and shape cannot be NULL"));
    dims = tensor_int_array(shape, "shape");
    if (dims.n > LLM_WEIGHTS_MAX_NDIM)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("tensor \"%s\" has %zu dimensions", name, dims.n));
    e.name = to_utf8(name);
    e.dtype = strcmp(dtype, "U8") == 0 ? LLM_DTYPE_U8 : LLM_DTYPE_F32;
    e.ndim = (int) dims.n;
    for (int k = 0; k < e.ndim; k++)
        e.dims[k] = (uint64) dims.values[k];
    MemoryContextSwitchTo(old);
    return e;
}

static llm_weights_entry *
read_entries(const char *query, Datum argument, size_t *n)
{
    MemoryContext cx = CurrentMemoryContext;
    Portal      portal = open_query(query, argument);
    llm_weights_entry *entries = palloc(sizeof(llm_weights_entry));

    *n = 0;
    for (;;)
    {
        SPI_cursor_fetch(portal, true, 1000);
        if (SPI_processed == 0)
            break;
        entries = repalloc_huge(entries, (*n + SPI_processed) * sizeof(llm_weights_entry));
        for (uint64 i = 0; i < SPI_processed; i++)
            entries[(*n)++] = entry_of(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, cx);
        SPI_freetuptable(SPI_tuptable);
    }
    SPI_cursor_close(portal);
    return entries;
}

/* One row of the data's query: data tensor, bytes bytea, one of which is NULL. */
static void
write_row(Output *o, HeapTuple row, TupleDesc description)
{
    bool    no_tensor, no_bytes;
    Datum   data = SPI_getbinval(row, description, 1, &no_tensor),
            bytes = SPI_getbinval(row, description, 2, &no_bytes);
    llm_weights_status status = LLM_WEIGHTS_OK;

    if (!no_tensor)
    {
        TensorView v = tensor_view_open(data);

        status = llm_weights_write(o->writer, v.data, v.n * sizeof(float));
        tensor_view_close(&v);
    }
    if (status == LLM_WEIGHTS_OK && !no_bytes)
    {
        bytea *b = DatumGetByteaPP(bytes);

        status = llm_weights_write(o->writer, VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
        if ((Pointer) b != DatumGetPointer(bytes))
            pfree(b);
    }
    if (status != LLM_WEIGHTS_OK)
        write_failed(o, status, llm_weights_write_error(o->writer));
}

static void
write_data(Output *o, const char *query, Datum argument)
{
    Portal  portal = open_query(query, argument);

    for (;;)
    {
        CHECK_FOR_INTERRUPTS();
        SPI_cursor_fetch(portal, true, 1);
        if (SPI_processed == 0)
            break;
        write_row(o, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
        SPI_freetuptable(SPI_tuptable);
    }
    SPI_cursor_close(portal);
}

/* Pairs of a text[]: key, value, key, value, ... */
static llm_weights_pair *
metadata_pairs(ArrayType *array, size_t *n)
{
    Datum  *elements;
    bool   *nulls;
    int     count;
    llm_weights_pair *pairs;

    deconstruct_array(array, TEXTOID, -1, false, 'i', &elements, &nulls, &count);
    pairs = palloc0((count / 2 + 1) * sizeof(llm_weights_pair));
    for (int i = 0; i < count; i++)
        if (nulls[i] || count % 2 != 0)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("metadata must be pairs of key and value"));
    for (int i = 0; i < count / 2; i++)
    {
        pairs[i].key = to_utf8(TextDatumGetCString(elements[2 * i]));
        pairs[i].value = to_utf8(TextDatumGetCString(elements[2 * i + 1]));
    }
    *n = count / 2;
    return pairs;
}

static void
write_file(Output *o, llm_weights_format format, const char *entries_query, const char *data_query, Datum argument,
           ArrayType *metadata)
{
    llm_sink    sink = {o, write_bytes};
    llm_weights_status status;
    char        error[LLM_WEIGHTS_ERROR];
    size_t      n, n_pairs;
    llm_weights_pair *pairs = metadata_pairs(metadata, &n_pairs);
    llm_weights_entry *entries;

    SPI_connect();
    entries = read_entries(entries_query, argument, &n);
    o->writer = llm_weights_write_begin(&sink, format, entries, n, pairs, n_pairs, &status, error);
    if (o->writer == NULL)
        write_failed(o, status, error);
    write_data(o, data_query, argument);
    status = llm_weights_write_end(o->writer);
    if (status != LLM_WEIGHTS_OK)
        write_failed(o, status, llm_weights_write_error(o->writer));
    SPI_finish();
    if (pg_fsync(o->fd) != 0)
        ereport(ERROR, errcode_for_file_access(), errmsg("could not fsync file \"%s\": %m", o->temporary));
}

/* Others may read an exported file, as they may what COPY writes; checkpoints belong to the server. */
static void
create_file(Output *o, bool checkpoint)
{
    mode_t  old = umask(checkpoint ? pg_mode_mask : S_IWGRP | S_IWOTH);

    o->fd = OpenTransientFilePerm(o->temporary, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | PG_BINARY, 0666);
    umask(old);
    if (o->fd < 0)
        ereport(ERROR, files_errcode(), errmsg("could not create file \"%s\": %m", o->temporary));
}

static void
make_folder(const char *path)
{
    if (MakePGDirectory(path) != 0 && errno != EEXIST)
        ereport(ERROR, errcode_for_file_access(), errmsg("could not create directory \"%s\": %m", path));
}

/* Gives the finished file its name, for good. */
static void
name_file(Output *o, bool checkpoint)
{
    if (checkpoint)
    {
        if (access(o->path, F_OK) == 0)
            ereport(ERROR, errcode(ERRCODE_DUPLICATE_FILE), errmsg("file \"%s\" exists already", o->path));
        files_remove_at_end(o->path, false);
    }
    (void) durable_rename(o->temporary, o->path, ERROR);
}

/*
 * pg_llm_file_write(path, format, tensors, data, argument, metadata, checkpoint) -> (bytes, sha256)
 *
 * tensors and data are queries over $1 = argument: (name text, dtype text, shape int[]) in the order of the file, and
 * (data tensor, bytes bytea), the rows that make their contents up. metadata: key, value, key, value, ...
 */
PG_FUNCTION_INFO_V1(pg_llm_file_write);
Datum
pg_llm_file_write(PG_FUNCTION_ARGS)
{
    bool        checkpoint = PG_GETARG_BOOL(6);
    llm_weights_format format = format_named(text_to_cstring(PG_GETARG_TEXT_PP(1)));
    char       *entries_query = text_to_cstring(PG_GETARG_TEXT_PP(2)), *data_query = text_to_cstring(PG_GETARG_TEXT_PP(3));
    Output     *o = palloc0(sizeof(Output));
    uint8       digest[PG_SHA256_DIGEST_LENGTH];
    char        hex[2 * PG_SHA256_DIGEST_LENGTH + 1];
    TupleDesc   description;
    Datum       values[2];
    bool        nulls[2] = {0};

    if (get_call_result_type(fcinfo, NULL, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    o->path = files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), checkpoint, true);
    o->temporary = psprintf("%s.%d.tmp", o->path, MyProcPid);
    o->fd = -1;
    if (strlen(o->temporary) >= MAXPGPATH)
        ereport(ERROR, errcode(ERRCODE_NAME_TOO_LONG), errmsg("a path of %zu bytes is too long", strlen(o->path)));
    if (checkpoint)
    {
        make_folder(pg_llm_checkpoint_dir);
        make_folder(files_checkpoint_folder());
    }
    create_file(o, checkpoint);
    PG_TRY();
    {
        o->hash = pg_cryptohash_create(PG_SHA256);
        if (o->hash == NULL || pg_cryptohash_init(o->hash) < 0)
        {
            o->hash_failed = true;
            write_failed(o, LLM_WEIGHTS_UNREADABLE, "");
        }
        write_file(o, format, entries_query, data_query, PG_GETARG_DATUM(4), PG_GETARG_ARRAYTYPE_P(5));
        if (CloseTransientFile(o->fd) != 0)
            ereport(ERROR, errcode_for_file_access(), errmsg("could not close file \"%s\": %m", o->temporary));
        o->fd = -1;
        if (pg_cryptohash_final(o->hash, digest, sizeof(digest)) < 0)
        {
            o->hash_failed = true;
            write_failed(o, LLM_WEIGHTS_UNREADABLE, "");
        }
        name_file(o, checkpoint);
    }
    PG_CATCH();
    {
        llm_weights_write_free(o->writer);
        if (o->hash != NULL)
            pg_cryptohash_free(o->hash);
        if (o->fd >= 0)
            (void) CloseTransientFile(o->fd);
        (void) unlink(o->temporary);
        PG_RE_THROW();
    }
    PG_END_TRY();
    llm_weights_write_free(o->writer);
    pg_cryptohash_free(o->hash);
    hex_encode((char *) digest, sizeof(digest), hex);
    hex[2 * PG_SHA256_DIGEST_LENGTH] = '\0';
    values[0] = Int64GetDatum(o->bytes);
    values[1] = CStringGetTextDatum(hex);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(description), values, nulls)));
}
