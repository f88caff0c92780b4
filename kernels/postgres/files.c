/*
 * files.c -- weight files on the server: privileges and reading.
 *
 * The parsers (kernels/core/weights.h) get bytes through PostgreSQL's virtual file descriptors. The file that was
 * used last stays open until the end of the transaction, so that a tensor can be taken part by part.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "engine.h"
#include "files.h"
#include "tensor.h"

#define TRAINER "llm_trainer"

/* ---- who may do what ---- */

/* Clusters and databases that share a checkpoint directory do not touch each other's files. */
char *
files_database_folder(void)
{
    return psprintf(UINT64_FORMAT "-%u", GetSystemIdentifier(), MyDatabaseId);
}

/* FOLDER/FILE, with nothing in it that could lead elsewhere. */
bool
files_checkpoint_name_ok(const char *name)
{
    char   *folder = psprintf("%s/", files_database_folder());
    size_t  n = strlen(folder);

    if (strncmp(name, folder, n) != 0 || name[n] == '\0' || name[n] == '.' || strlen(name) > 250)
        return false;
    for (const char *c = name + n; *c != '\0'; c++)
        if (!(*c >= 'a' && *c <= 'z') && !(*c >= 'A' && *c <= 'Z') && !(*c >= '0' && *c <= '9') &&
            strchr("._-", *c) == NULL)
            return false;
    return true;
}

char *
files_path(const char *name, bool checkpoint, bool write)
{
    char   *path;
    Oid     trainer = checkpoint ? get_role_oid(TRAINER, true) : InvalidOid;

    if (!has_privs_of_role(GetUserId(), write ? ROLE_PG_WRITE_SERVER_FILES : ROLE_PG_READ_SERVER_FILES) &&
        !(OidIsValid(trainer) && has_privs_of_role(GetUserId(), trainer)))
        ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                errmsg("permission denied to %s a file on the server", write ? "write" : "read"),
                checkpoint ? errhint("Checkpoints take the role %s.", TRAINER)
                : errhint("This takes the role %s; \"llm-sql %s\" works through the connection instead.",
                          write ? "pg_write_server_files" : "pg_read_server_files", write ? "export" : "import"));
    if (checkpoint)
    {
        if (!files_checkpoint_name_ok(name))
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("\"%s\" does not name a checkpoint file of this database", name));
        return psprintf("%s/%s", pg_llm_checkpoint_dir, name);
    }
    path = pstrdup(name);
    canonicalize_path(path);
    if (!is_absolute_path(path))
        ereport(ERROR, errcode(ERRCODE_INVALID_NAME), errmsg("\"%s\" is not an absolute path", name),
                errhint("The file lies on the server, whose current directory means nothing."));
    return path;
}

char *
files_checkpoint_folder(void)
{
    return psprintf("%s/%s", pg_llm_checkpoint_dir, files_database_folder());
}

bool
files_should_stop(void)
{
    return InterruptPending && InterruptHoldoffCount == 0 && CritSectionCount == 0 &&
        (ProcDiePending || (QueryCancelPending && QueryCancelHoldoffCount == 0));
}

void
files_fail(const char *path, llm_weights_status status, const char *error, int read_errno)
{
    CHECK_FOR_INTERRUPTS();
    if (status == LLM_WEIGHTS_NO_MEMORY)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for file \"%s\"", path));
    if (status == LLM_WEIGHTS_UNREADABLE && read_errno != 0)
    {
        errno = read_errno;
        ereport(ERROR, errcode_for_file_access(), errmsg("could not access file \"%s\": %m", path));
    }
    ereport(ERROR, errcode(ERRCODE_DATA_EXCEPTION), errmsg("file \"%s\" is refused: %s", path, error));
}

/* ---- the file that is open ---- */

typedef struct OpenFile
{
    llm_weights *weights;       /* NULL: none is open */
    File    file;
    char    path[MAXPGPATH];
    int64   max_bytes;
    struct stat about;
    int     read_errno;
} OpenFile;

static OpenFile current;

static bool
read_file(void *arg, uint64_t offset, void *out, size_t n)
{
    OpenFile *f = arg;

    while (n > 0)
    {
        int k;

        if (files_should_stop())
            return false;
        k = FileRead(f->file, out, n, (off_t) offset, PG_WAIT_EXTENSION);
        if (k <= 0)
        {
            f->read_errno = k < 0 ? errno : 0;
            return false;
        }
        offset += k;
        out = (char *) out + k;
        n -= k;
    }
    return true;
}

void
files_close(void)
{
    if (current.weights != NULL)
    {
        llm_weights_close(current.weights);
        FileClose(current.file);
    }
    current.weights = NULL;
}

/* A regular file's descriptor; about tells which file it is. */
static File
open_file(const char *path, struct stat *about)
{
    File    file;

    if (strlen(path) >= MAXPGPATH)
        ereport(ERROR, errcode(ERRCODE_NAME_TOO_LONG), errmsg("a path of %zu bytes is too long", strlen(path)));
    if (stat(path, about) != 0)
        ereport(ERROR, files_errcode(), errmsg("could not open file \"%s\": %m", path));
    /* opening a pipe would wait for its writer */
    if (!S_ISREG(about->st_mode))
        ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a regular file", path));
    file = PathNameOpenFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
    if (file < 0)
        ereport(ERROR, files_errcode(), errmsg("could not open file \"%s\": %m", path));
    return file;
}

/* The file, parsed; from memory when it is the one used last and has not changed. */
static llm_weights *
open_weights(const char *path, int64 max_bytes)
{
    struct stat about;
    llm_source  source;
    llm_weights_status status;
    char        error[LLM_WEIGHTS_ERROR];
    llm_weights *weights;

    if (current.weights != NULL && strcmp(current.path, path) == 0 && (max_bytes < 0 || max_bytes == current.max_bytes) &&
        stat(path, &about) == 0 && about.st_dev == current.about.st_dev && about.st_ino == current.about.st_ino &&
        about.st_size == current.about.st_size && about.st_mtime == current.about.st_mtime)
        return current.weights;
    files_close();
    current.file = open_file(path, &current.about);
    strlcpy(current.path, path, MAXPGPATH);
    current.max_bytes = max_bytes;
    current.read_errno = 0;
    source.arg = &current;
    source.size = (uint64_t) current.about.st_size;
    source.read = read_file;
    weights = llm_weights_open(&source, max_bytes < 0 ? PG_INT64_MAX : (uint64_t) max_bytes, &status, error);
    if (weights == NULL)
    {
        FileClose(current.file);
        files_fail(path, status, error, current.read_errno);
    }
    current.weights = weights;
    return weights;
}

static size_t
find_tensor(llm_weights *w, const char *name)
{
    char   *encoded = (char *) pg_do_encoding_conversion((unsigned char *) name, strlen(name), GetDatabaseEncoding(),
                                                         PG_UTF8);
    size_t  i = llm_weights_find(w, encoded);

    if (i == SIZE_MAX)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("file \"%s\" has no tensor \"%s\"", current.path, name));
    return i;
}

/* pg_llm_file_tensors(path, max_bytes, checkpoint) -> setof (position, name, dtype, shape, format) */
PG_FUNCTION_INFO_V1(pg_llm_file_tensors);
Datum
pg_llm_file_tensors(PG_FUNCTION_ARGS)
{
    static const char *const formats[] = {"safetensors", "npz", "gzip"};
    ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
    llm_weights *w = open_weights(files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(2), false),
                                  PG_GETARG_INT64(1));

    InitMaterializedSRF(fcinfo, 0);
    for (size_t i = 0; i < llm_weights_count(w); i++)
    {
        const llm_weights_entry *e = llm_weights_get(w, i);
        Datum   values[5], dims[LLM_WEIGHTS_MAX_NDIM];
        bool    nulls[5] = {0};

        for (int k = 0; k < e->ndim; k++)
            dims[k] = Int64GetDatum((int64) e->dims[k]);
        values[0] = Int64GetDatum((int64) i);
        values[1] = CStringGetTextDatum(pg_any_to_server(e->name, strlen(e->name), PG_UTF8));
        values[2] = CStringGetTextDatum(llm_dtype_name(e->dtype));
        values[3] = PointerGetDatum(construct_array(dims, e->ndim, INT8OID, 8, FLOAT8PASSBYVAL, 'd'));
        values[4] = CStringGetTextDatum(formats[llm_weights_format_of(w)]);
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return (Datum) 0;
}

/* pg_llm_file_tensor(path, name, first_row, rows, checkpoint): rows < 0 means all that follow. */
PG_FUNCTION_INFO_V1(pg_llm_file_tensor);
Datum
pg_llm_file_tensor(PG_FUNCTION_ARGS)
{
    char       *path = files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(4), false);
    llm_weights *w = open_weights(path, -1);
    size_t      i = find_tensor(w, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    const llm_weights_entry *e = llm_weights_get(w, i);
    int64       first = PG_GETARG_INT64(2), rows = PG_GETARG_INT64(3), all = e->ndim > 0 ? (int64) e->dims[0] : 1;
    int32       dims[LLM_WEIGHTS_MAX_NDIM];
    uint64      width = 1;
    Tensor     *t;
    llm_weights_status status;

    if (rows < 0)
        rows = all - first;
    if (first < 0 || first > all || rows < 0 || rows > all - first || (e->ndim == 0 && rows != 1))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("tensor \"%s\" has %lld rows, not %lld from %lld on", e->name, (long long) all, (long long) rows,
                       (long long) first));
    for (int k = 0; k < e->ndim; k++)
    {
        uint64 n = k == 0 ? (uint64) rows : e->dims[k];

        if (n > PG_INT32_MAX)
            ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("tensor \"%s\" is too large", e->name));
        dims[k] = (int32) n;
        width *= k == 0 ? 1 : n;
    }
    t = tensor_new(e->ndim, dims);
    status = llm_weights_read(w, i, (uint64) first * width, t->n, t->data);
    if (status != LLM_WEIGHTS_OK)
        files_fail(path, status, llm_weights_error(w), current.read_errno);
    PG_RETURN_TENSOR(t);
}

/* pg_llm_file_bytes(path, name, checkpoint): a tensor of bytes. */
PG_FUNCTION_INFO_V1(pg_llm_file_bytes);
Datum
pg_llm_file_bytes(PG_FUNCTION_ARGS)
{
    char       *path = files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(2), false);
    llm_weights *w = open_weights(path, -1);
    size_t      i = find_tensor(w, text_to_cstring(PG_GETARG_TEXT_PP(1)));
    const llm_weights_entry *e = llm_weights_get(w, i);
    llm_weights_status status;
    bytea      *result;

    if (e->count > MaxAllocSize - VARHDRSZ)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("tensor \"%s\" is too large", e->name));
    result = palloc(VARHDRSZ + e->count);
    SET_VARSIZE(result, VARHDRSZ + e->count);
    status = llm_weights_read_bytes(w, i, 0, e->count, VARDATA(result));
    if (status != LLM_WEIGHTS_OK)
        files_fail(path, status, llm_weights_error(w), current.read_errno);
    PG_RETURN_BYTEA_P(result);
}

/* pg_llm_file_metadata(path, key, checkpoint): NULL when the file has no such key. */
PG_FUNCTION_INFO_V1(pg_llm_file_metadata);
Datum
pg_llm_file_metadata(PG_FUNCTION_ARGS)
{
    llm_weights *w = open_weights(files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(2), false), -1);
    const char *value = llm_weights_metadata(w, text_to_cstring(PG_GETARG_TEXT_PP(1)));

    if (value == NULL)
        PG_RETURN_NULL();
    PG_RETURN_TEXT_P(cstring_to_text(pg_any_to_server(value, strlen(value), PG_UTF8)));
}

/* pg_llm_file_sha256(path, checkpoint): size and hash of the whole file. */
PG_FUNCTION_INFO_V1(pg_llm_file_sha256);
Datum
pg_llm_file_sha256(PG_FUNCTION_ARGS)
{
    const size_t piece = 1024 * 1024;
    char       *path = files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(1), false);
    OpenFile    f = {0};
    char       *bytes = palloc(piece), hex[2 * PG_SHA256_DIGEST_LENGTH + 1];
    uint8       digest[PG_SHA256_DIGEST_LENGTH];
    pg_cryptohash_ctx *volatile hash = NULL;
    bool        failed = false;
    TupleDesc   description;
    Datum       values[2];
    bool        nulls[2] = {0};

    if (get_call_result_type(fcinfo, NULL, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    f.file = open_file(path, &f.about);
    PG_TRY();
    {
        hash = pg_cryptohash_create(PG_SHA256);
        failed = hash == NULL || pg_cryptohash_init(hash) < 0;
        for (off_t at = 0; !failed && at < f.about.st_size; at += piece)
        {
            size_t n = f.about.st_size - at < (off_t) piece ? (size_t) (f.about.st_size - at) : piece;

            if (!read_file(&f, (uint64) at, bytes, n))
                files_fail(path, LLM_WEIGHTS_UNREADABLE, "it became shorter", f.read_errno);
            failed = pg_cryptohash_update(hash, (uint8 *) bytes, n) < 0;
        }
        failed = failed || pg_cryptohash_final(hash, digest, sizeof(digest)) < 0;
    }
    PG_FINALLY();
    {
        if (hash != NULL)
            pg_cryptohash_free(hash);
        FileClose(f.file);
    }
    PG_END_TRY();
    if (failed)
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not hash file \"%s\"", path));
    hex_encode((char *) digest, sizeof(digest), hex);
    hex[2 * PG_SHA256_DIGEST_LENGTH] = '\0';
    values[0] = Int64GetDatum((int64) f.about.st_size);
    values[1] = CStringGetTextDatum(hex);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(description), values, nulls)));
}

/*
 * pg_llm_megatron_order(x, n_head, version_2): the rows of Megatron-LM's fused query_key_value as [q; k; v]; see
 * llm_megatron_row. x has 3 * n_head * d_head rows.
 */
PG_FUNCTION_INFO_V1(pg_llm_megatron_order);
Datum
pg_llm_megatron_order(PG_FUNCTION_ARGS)
{
    Tensor *x = PG_GETARG_TENSOR(0), *out;
    int32   n_head = PG_GETARG_INT32(1);
    bool    version_2 = PG_GETARG_BOOL(2);
    size_t  rows, width;

    if (n_head < 1 || x->ndim < 1 || x->dims[0] % 3 != 0 || x->dims[0] / 3 % n_head != 0 || x->n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("queries, keys and values of %d heads cannot have shape %s", n_head,
                       tensor_shape_text(x->ndim, x->dims)));
    rows = (size_t) x->dims[0];
    width = x->n / rows;
    out = tensor_new(x->ndim, x->dims);
    for (size_t row = 0; row < rows; row++)
        memcpy(out->data + row * width,
               x->data + llm_megatron_row(row, (uint64) n_head, rows / 3 / (uint64) n_head, version_2) * width,
               width * sizeof(float));
    PG_RETURN_TENSOR(out);
}
