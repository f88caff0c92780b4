/*
 * files.c -- weight files on the server: privileges, paths, and the file that is open.
 *
 * The parsers (kernels/core/formats/weights.h) get bytes through PostgreSQL's virtual file descriptors. The file that was
 * used last stays open until the end of the transaction, so that a tensor can be taken part by part. Nothing is mapped:
 * a file that becomes shorter is an error, not a signal.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_authid.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#include "files.h"

/* ---- who may do what ---- */

char *
files_path(const char *name, bool checkpoint, bool write)
{
    char *path;

    if (checkpoint && !files_checkpoint_name_ok(name))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("\"%s\" does not name a checkpoint file of this database", name),
                errhint("A checkpoint's file must be in the folder %s.", files_database_folder(MyDatabaseId)));
    if (!has_privs_of_role(GetUserId(), write ? ROLE_PG_WRITE_SERVER_FILES : ROLE_PG_READ_SERVER_FILES))
        ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                errmsg("permission denied to %s a file on the server", write ? "write" : "read"),
                checkpoint
                    ? errhint("Use llm_checkpoint_save and llm_checkpoint_load instead.")
                    : errhint("This requires the role %s; \"llm-sql %s\" works through the connection instead.",
                              write ? "pg_write_server_files" : "pg_read_server_files", write ? "export" : "import"));
    if (checkpoint)
        return psprintf("%s/%s", pg_llm_checkpoint_dir, name);
    path = pstrdup(name);
    canonicalize_path(path);
    if (!is_absolute_path(path))
        ereport(ERROR, errcode(ERRCODE_INVALID_NAME), errmsg("\"%s\" is not an absolute path", name),
                errhint("The file is on the server, where a relative path has no meaning."));
    return path;
}

void
files_require_argument(FunctionCallInfo fcinfo, int i, const char *name)
{
    if (PG_ARGISNULL(i))
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be NULL", name));
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

/*
 * What a file says is UTF-8. A SQL_ASCII database does not tell what its bytes mean, so only those that are UTF-8 can
 * be written to a file's header.
 */
char *
files_to_utf8(const char *s)
{
    return (char *) pg_do_encoding_conversion((unsigned char *) s, strlen(s), GetDatabaseEncoding(), PG_UTF8);
}

char *
files_from_utf8(const char *s)
{
    return pg_any_to_server(s, strlen(s), PG_UTF8);
}

/* ---- the file that is open ---- */

typedef struct OpenFile
{
    bool         open;
    llm_weights *weights; /* NULL: not parsed yet */
    File         file;
    char         path[MAXPGPATH];
    char         sha256[2 * PG_SHA256_DIGEST_LENGTH + 1]; /* found to be this, or "" */
    int64        max_bytes;
    struct stat  about;
    int          read_errno;
} OpenFile;

static OpenFile current;

const char *
files_current_path(void)
{
    return current.path;
}

int
files_current_errno(void)
{
    return current.read_errno;
}

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
        llm_weights_close(current.weights);
    current.weights = NULL;
    if (current.open)
        FileClose(current.file);
    current.open = false;
}

/* Opens a regular file into f, which tells which file it is. */
static void
open_file(OpenFile *f, const char *path)
{
    if (strlen(path) >= MAXPGPATH)
        ereport(ERROR, errcode(ERRCODE_NAME_TOO_LONG), errmsg("a path of %zu bytes is too long", strlen(path)));
    if (stat(path, &f->about) != 0)
        ereport(ERROR, files_errcode(), errmsg("could not open file \"%s\": %m", path));
    /* Opening a device may do something; opening a pipe would wait for its writer. */
    if (!S_ISREG(f->about.st_mode))
        ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a regular file", path));
    f->file = PathNameOpenFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
    if (f->file < 0)
        ereport(ERROR, files_errcode(), errmsg("could not open file \"%s\": %m", path));
    f->open = true;
    strlcpy(f->path, path, MAXPGPATH);
    f->sha256[0] = '\0';
    f->read_errno = 0;
}

/* SHA-256 in hexadecimal of all of an open file */
static void
hash_file(OpenFile *f, char *hex)
{
    const size_t       piece = 1024 * 1024;
    char              *bytes = palloc(piece);
    uint8              digest[PG_SHA256_DIGEST_LENGTH];
    pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
    bool               failed;

    PG_TRY();
    {
        failed = hash == NULL || pg_cryptohash_init(hash) < 0;
        for (off_t at = 0; !failed && at < f->about.st_size; at += piece)
        {
            size_t n = f->about.st_size - at < (off_t) piece ? (size_t) (f->about.st_size - at) : piece;

            if (!read_file(f, (uint64) at, bytes, n))
                files_fail(f->path, LLM_WEIGHTS_UNREADABLE, "it became shorter", f->read_errno);
            failed = pg_cryptohash_update(hash, (uint8 *) bytes, n) < 0;
        }
        if (failed || pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
            ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not hash file \"%s\"", f->path));
    }
    PG_FINALLY();
    {
        if (hash != NULL)
            pg_cryptohash_free(hash);
    }
    PG_END_TRY();
    pfree(bytes);
    hex_encode((char *) digest, sizeof(digest), hex);
    hex[2 * PG_SHA256_DIGEST_LENGTH] = '\0';
}

int64
files_sha256(const char *path, char *hex)
{
    files_close();
    open_file(&current, path);
    hash_file(&current, hex);
    files_close();
    return (int64) current.about.st_size;
}

static bool
is_current(const char *path)
{
    struct stat about;

    return current.weights != NULL && strcmp(current.path, path) == 0 && stat(path, &about) == 0 &&
           about.st_dev == current.about.st_dev && about.st_ino == current.about.st_ino &&
           about.st_size == current.about.st_size && about.st_mtime == current.about.st_mtime &&
           about.st_ctime == current.about.st_ctime;
}

/* The table of contents of the open file, of which at most max_bytes of data may be declared */
static llm_weights *
parse(int64 max_bytes)
{
    llm_source         source = {&current, (uint64_t) current.about.st_size, read_file};
    llm_weights_status status;
    char               error[LLM_WEIGHTS_ERROR];

    current.max_bytes = max_bytes;
    current.weights = llm_weights_open(&source, max_bytes < 0 ? PG_INT64_MAX : (uint64_t) max_bytes, &status, error);
    if (current.weights == NULL)
    {
        files_close();
        files_fail(current.path, status, error, current.read_errno);
    }
    return current.weights;
}

llm_weights *
files_open(const char *path, int64 max_bytes)
{
    if (is_current(path) && (max_bytes < 0 || max_bytes == current.max_bytes))
        return current.weights;
    files_close();
    open_file(&current, path);
    return parse(max_bytes);
}

llm_weights *
files_open_verified(const char *path, const char *what, int64 bytes, const char *sha256)
{
    if (is_current(path) && strcmp(current.sha256, sha256) == 0)
        return current.weights;
    files_close();
    open_file(&current, path);
    hash_file(&current, current.sha256);
    if ((int64) current.about.st_size != bytes || strcmp(current.sha256, sha256) != 0)
    {
        files_close();
        ereport(ERROR, errcode(ERRCODE_DATA_EXCEPTION), errmsg("the file of %s is damaged", what),
                errdetail("\"%s\" has " INT64_FORMAT " bytes, SHA-256 %s; saved were " INT64_FORMAT " bytes, %s.", path,
                          (int64) current.about.st_size, current.sha256, bytes, sha256),
                errhint("Nothing was changed; load another checkpoint."));
    }
    return parse(bytes);
}
