/*
 * files_write.c -- writing weight files on the server: what two queries give out, atomically.
 *
 * The file is written under a temporary name, flushed, given its name, and its folder flushed; so a reader sees the
 * whole file or none, after a crash too. The temporary file is locked while it is written: one that a crash left can
 * be told and goes when a file of that name is written again (a checkpoint's at the next save).
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/htup_details.h"
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
#include "tensor/tensor_view.h"

typedef struct Output
{
    const char         *path;
    char               *temporary;
    int                 fd;
    int64               bytes;
    int                 write_errno;
    bool                hash_failed;
    bool                created; /* the temporary file is ours */
    bool                linked;  /* the file has its name, and nobody else knows yet to remove it */
    pg_cryptohash_ctx  *hash;
    llm_weights_writer *writer;
} Output;

static bool
write_bytes(void *arg, const void *bytes, size_t n)
{
    Output     *o = arg;
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
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("file \"%s\" cannot be written: %s", o->path, error));
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

/*
 * A tensor's elements as the file's table of contents has them: bf16 may stand in a file as float32, and nothing is
 * rounded here.
 */
static llm_weights_status
write_tensor(Output *o, Datum data)
{
    const llm_weights_entry *next = llm_weights_write_next(o->writer);
    bool                     as_bf16 = next != NULL && next->dtype == LLM_DTYPE_BF16;
    TensorView               v = as_bf16 ? tensor_view_open_stored(data) : tensor_view_open(data);
    llm_weights_status       status;

    if (as_bf16 && v.dtype != TENSOR_BF16)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("tensor \"%s\" is listed as BF16, and its data are float32", files_from_utf8(next->name)),
                errhint("List it as F32, or round its data with pg_llm_to_bf16()."));
    status = as_bf16 ? llm_weights_write(o->writer, v.bf16, v.n * sizeof(uint16))
                     : llm_weights_write(o->writer, v.data, v.n * sizeof(float));
    tensor_view_close(&v);
    return status;
}

/* One row of the data's query: data tensor, bytes bytea, one of which is NULL. */
static void
write_row(Output *o, HeapTuple row, TupleDesc description)
{
    bool  no_tensor, no_bytes;
    Datum data = SPI_getbinval(row, description, 1, &no_tensor), bytes = SPI_getbinval(row, description, 2, &no_bytes);
    llm_weights_status status = LLM_WEIGHTS_OK;

    if (no_tensor && no_bytes)
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                errmsg("a row of data holds neither a tensor nor bytes"));
    if (!no_tensor && !no_bytes)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a row of data holds both a tensor and bytes"));
    if (!no_tensor)
        status = write_tensor(o, data);
    else
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
write_data(Output *o, const char *query, Datum argument, Oid tensor_type)
{
    const FilesColumn columns[] = {{"data", tensor_type}, {"bytes", BYTEAOID}};
    Portal            portal = files_open_query(query, argument, "data", lengthof(columns), columns);

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

/* ---- the file ---- */

static void
write_contents(Output *o, const FilesToWrite *what)
{
    llm_sink           sink = {o, write_bytes};
    llm_weights_status status;
    char               error[LLM_WEIGHTS_ERROR];
    size_t             n;
    llm_weights_entry *entries;

    SPI_connect();
    entries = files_read_entries(what->tensors_query, what->argument, &n);
    o->writer = llm_weights_write_begin(&sink, what->format, entries, n, what->metadata, what->n_metadata, &status,
                                        error);
    if (o->writer == NULL)
        write_failed(o, status, error);
    write_data(o, what->data_query, what->argument, what->tensor_type);
    status = llm_weights_write_end(o->writer);
    if (status != LLM_WEIGHTS_OK)
        write_failed(o, status, llm_weights_write_error(o->writer));
    SPI_finish();
    if (pg_fsync(o->fd) != 0)
        ereport(ERROR, errcode_for_file_access(), errmsg("could not fsync file \"%s\": %m", o->temporary));
}

/* The path leads to the open file. */
static bool
leads_to(const char *path, int fd)
{
    struct stat named, open;

    return lstat(path, &named) == 0 && fstat(fd, &open) == 0 && named.st_dev == open.st_dev &&
           named.st_ino == open.st_ino;
}

/*
 * A temporary file is locked by its writer, and only who holds the lock of the file that the name leads to removes the
 * name. So a file that is not locked was left by a crash, and nobody else's takes its place while it goes.
 */
bool
files_remove_abandoned(const char *path)
{
    int  fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | PG_BINARY);
    bool removed = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && leads_to(path, fd) && unlink(path) == 0;

    if (fd >= 0)
        (void) CloseTransientFile(fd);
    return removed;
}

/* Others may read an exported file, as they may what COPY writes; checkpoints belong to the server. */
static void
create_file(Output *o, bool checkpoint)
{
    const int flags = O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | PG_BINARY;
    int       failed;

    o->fd = OpenTransientFilePerm(o->temporary, flags, S_IRUSR | S_IWUSR);
    failed = errno;
    if (o->fd < 0 && failed == EEXIST && files_remove_abandoned(o->temporary))
    {
        o->fd = OpenTransientFilePerm(o->temporary, flags, S_IRUSR | S_IWUSR);
        failed = errno;
    }
    errno = failed;
    if (o->fd < 0)
        ereport(ERROR, files_errcode(), errmsg("could not create file \"%s\": %m", o->temporary),
                failed == EEXIST ? errhint("Another process is writing it.") : 0);
    if (flock(o->fd, LOCK_EX | LOCK_NB) != 0 || !leads_to(o->temporary, o->fd))
        ereport(ERROR, errcode(ERRCODE_OBJECT_IN_USE), errmsg("another process is writing file \"%s\"", o->path));
    o->created = true;
    if (fchmod(o->fd, checkpoint ? pg_file_create_mode : S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH) != 0)
        ereport(ERROR, errcode_for_file_access(), errmsg("could not set permissions of file \"%s\": %m", o->temporary));
}

/*
 * Gives the finished file a name that no other file has, for good: a link never replaces a file. It is removed unless
 * the transaction commits.
 */
static void
link_file(Output *o)
{
    char *folder = pstrdup(o->path);
    int   failed;

    o->linked = link(o->temporary, o->path) == 0;
    failed = o->linked ? 0 : errno;
    if (failed == EEXIST || (failed != 0 && access(o->path, F_OK) == 0))
        ereport(ERROR, errcode(ERRCODE_DUPLICATE_FILE), errmsg("file \"%s\" already exists", o->path));
    errno = failed;
    /* These are what file systems without links answer. */
    if (failed != 0 && failed != EPERM && failed != ENOTSUP && failed != EOPNOTSUPP && failed != ENOSYS)
        ereport(ERROR, files_errcode(), errmsg("could not link file \"%s\" to \"%s\": %m", o->temporary, o->path));
    files_remove_at_end(o->path, false);
    if (!o->linked)
        (void) durable_rename(o->temporary, o->path, ERROR);
    else if (unlink(o->temporary) != 0)
        ereport(ERROR, errcode_for_file_access(), errmsg("could not remove file \"%s\": %m", o->temporary));
    get_parent_directory(folder);
    (void) fsync_fname_ext(folder, true, false, ERROR);
}

static void
write_file(Output *o, const FilesToWrite *what, char *hex)
{
    uint8 digest[PG_SHA256_DIGEST_LENGTH];

    o->hash = pg_cryptohash_create(PG_SHA256);
    if (o->hash == NULL || pg_cryptohash_init(o->hash) < 0)
    {
        o->hash_failed = true;
        write_failed(o, LLM_WEIGHTS_UNREADABLE, "");
    }
    write_contents(o, what);
    if (pg_cryptohash_final(o->hash, digest, sizeof(digest)) < 0)
    {
        o->hash_failed = true;
        write_failed(o, LLM_WEIGHTS_UNREADABLE, "");
    }
    if (what->checkpoint)
        link_file(o);
    else
        (void) durable_rename(o->temporary, o->path, ERROR);
    hex_encode((char *) digest, sizeof(digest), hex);
    hex[2 * PG_SHA256_DIGEST_LENGTH] = '\0';
    /* Closed last: the lock tells that the temporary file is being written. */
    if (CloseTransientFile(o->fd) != 0)
        ereport(ERROR, errcode_for_file_access(), errmsg("could not close file \"%s\": %m", o->path));
    o->fd = -1;
}

static void
free_output(Output *o)
{
    llm_weights_write_free(o->writer);
    if (o->hash != NULL)
        pg_cryptohash_free(o->hash);
    if (o->fd >= 0)
        (void) CloseTransientFile(o->fd);
}

int64
files_write(const FilesToWrite *what, char *hex)
{
    Output *o = palloc0(sizeof(Output));

    o->path = what->path;
    o->temporary = psprintf("%s.tmp", what->path);
    o->fd = -1;
    if (strlen(o->temporary) >= MAXPGPATH)
        ereport(ERROR, errcode(ERRCODE_NAME_TOO_LONG), errmsg("a path of %zu bytes is too long", strlen(o->path)));
    PG_TRY();
    {
        create_file(o, what->checkpoint);
        write_file(o, what, hex);
    }
    PG_CATCH();
    {
        if (o->created)
            (void) unlink(o->temporary);
        if (o->linked)
            (void) unlink(o->path);
        free_output(o);
        PG_RE_THROW();
    }
    PG_END_TRY();
    free_output(o);
    return o->bytes;
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
    static const char *const arguments[] = {"path", "format", "tensors", "data", "argument", "metadata", "checkpoint"};
    FilesToWrite             what = {0};
    char                     hex[2 * PG_SHA256_DIGEST_LENGTH + 1];
    TupleDesc                description;
    Datum                    values[2];
    bool                     nulls[2] = {0};

    for (int i = 0; i < (int) lengthof(arguments); i++)
        files_require_argument(fcinfo, i, arguments[i]);
    if (get_call_result_type(fcinfo, NULL, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    what.checkpoint = PG_GETARG_BOOL(6);
    what.path = files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), what.checkpoint, true);
    what.format = format_named(text_to_cstring(PG_GETARG_TEXT_PP(1)));
    what.tensors_query = text_to_cstring(PG_GETARG_TEXT_PP(2));
    what.data_query = text_to_cstring(PG_GETARG_TEXT_PP(3));
    what.argument = PG_GETARG_DATUM(4);
    what.metadata = files_metadata(PG_GETARG_DATUM(5), &what.n_metadata);
    what.tensor_type = files_tensor_type(fcinfo);
    values[0] = Int64GetDatum(files_write(&what, hex));
    values[1] = CStringGetTextDatum(hex);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(description), values, nulls)));
}
