/*
 * shared_build.c -- writing a shared file.
 *
 * One session at a time writes a model's files: it holds a lock that only this code takes, and that ends with it,
 * however it ends. The file is written under another name, never through a mapping, so that a full disk is an error and no
 * signal; and renamed when it is whole. Nobody reads a half, and nobody ever makes a file shorter.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/wait_event.h"

#include "shared.h"
#include "tensor/buffer.h"

/*
 * Written at once, at multiples of it in the file, and between two looks at interrupts: a file system that keeps large
 * pages takes them for what a single write covers, and a mapping then has them, too.
 */
#define PIECE         ((size_t) 8 << 20)
#define RESERVE_PIECE ((size_t) 64 << 20) /* and asked for */
#define WAIT_MS       2000                /* for another session that writes the model's file */
#define POLL_MS       10
#define LOCK_KIND     0x5348 /* SQL's advisory locks are of the kinds 1 and 2 */

struct SharedWriter
{
    int    fd;
    char   temporary[MAXPGPATH];
    uint64 at;    /* the next byte's place */
    char  *piece; /* what was put since `written` */
    uint64 written;
    int    error;
};

/* ---- bytes ---- */

static bool
put_at(SharedWriter *w, const void *bytes, size_t n, uint64 at)
{
    while (n > 0)
    {
        ssize_t put;

        CHECK_FOR_INTERRUPTS();
        errno = 0;
        put = pwrite(w->fd, bytes, Min(n, PIECE), (off_t) at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
        {
            w->error = errno != 0 ? errno : ENOSPC;
            return false;
        }
        bytes = (const char *) bytes + put;
        n -= (size_t) put;
        at += (uint64) put;
    }
    return true;
}

static bool
flush_piece(SharedWriter *w)
{
    if (!put_at(w, w->piece, w->at - w->written, w->written))
        return false;
    w->written = w->at;
    return true;
}

static bool
append(SharedWriter *w, const char *bytes, size_t n)
{
    while (n > 0)
    {
        size_t part = Min(n, PIECE - w->at % PIECE);

        if (part == PIECE) /* nothing waits, and it needs no copy */
        {
            if (!put_at(w, bytes, part, w->at))
                return false;
            w->written += part;
        }
        else
            memcpy(w->piece + (w->at - w->written), bytes, part);
        w->at += part;
        if (w->at % PIECE == 0 && !flush_piece(w))
            return false;
        bytes += part;
        n -= part;
    }
    return true;
}

/* No hole stays: on a tmpfs reading one through a mapping asks for memory. */
static bool
put_zeros(SharedWriter *w, uint64 until)
{
    static const char zeros[SHARED_PAGE] = {0};

    while (w->at < until)
    {
        size_t n = Min(sizeof(zeros), until - w->at);

        if (!append(w, zeros, n))
            return false;
    }
    return true;
}

bool
shared_put(SharedWriter *w, const void *bytes, size_t n, bool aligned, uint64 *at)
{
    if (aligned && !put_zeros(w, TYPEALIGN64(SHARED_ALIGNMENT, w->at)))
        return false;
    *at = w->at;
    return append(w, bytes, n);
}

uint32
shared_put_text(SharedTable *t, uint32 *at, const char *s)
{
    uint32 begins = *at;
    size_t n = strlen(s) + 1;

    memcpy(t->text + begins, s, n);
    *at += (uint32) n;
    return begins;
}

/* Asks the file system for the room at once: a disk that is too full shows before the work. */
static bool
reserve(SharedWriter *w, uint64 bytes)
{
#ifdef __APPLE__
    fstore_t want = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, (off_t) bytes, 0};

    if (fcntl(w->fd, F_PREALLOCATE, &want) != 0 && errno == ENOSPC)
    {
        w->error = ENOSPC;
        return false;
    }
#else
    for (uint64 at = 0; at < bytes;)
    {
        uint64 n = Min(RESERVE_PIECE, bytes - at);
        int    error = posix_fallocate(w->fd, (off_t) at, (off_t) n);

        CHECK_FOR_INTERRUPTS();
        if (error == EINTR)
            continue;
        if (error == EINVAL || error == EOPNOTSUPP || error == ENOSYS)
            break; /* it cannot tell */
        if (error != 0)
        {
            w->error = error;
            return false;
        }
        at += n;
    }
#endif
    return true;
}

/* A tmpfs gives memory that may not be there, and the kernel then ends processes. */
static bool
memory_suffices(uint64 bytes)
{
#ifdef __linux__
    struct statfs s;

    if (statfs(shared_directory(), &s) == 0 && (s.f_type == 0x01021994 || s.f_type == 0x858458f6))
        return tensor_buffer_room(bytes);
#endif
    return true;
}

/* ---- one file ---- */

/* Also as the session ends in the middle */
static void
remove_temporary(int code, Datum arg)
{
    SharedWriter *w = (SharedWriter *) DatumGetPointer(arg);

    (void) code;
    (void) unlink(w->temporary);
}

static bool
open_temporary(SharedWriter *w, const char *path)
{
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | PG_BINARY;

    snprintf(w->temporary, sizeof(w->temporary), "%s.%d.tmp", path, MyProcPid);
    w->fd = OpenTransientFilePerm(w->temporary, flags, S_IRUSR | S_IWUSR);
    if (w->fd < 0 && errno == EEXIST && unlink(w->temporary) == 0) /* a dead session's of our number */
        w->fd = OpenTransientFilePerm(w->temporary, flags, S_IRUSR | S_IWUSR);
    w->error = w->fd < 0 ? errno : 0;
    return w->fd >= 0;
}

static bool
write_content(SharedWriter *w, SharedTable *t, const SharedContent *content)
{
    uint64 table_end = sizeof(SharedHeader) + shared_table_bytes(&t->header);

    if (!reserve(w, t->header.bytes))
        return false;
    w->piece = palloc(PIECE);
    w->at = w->written = table_end;
    if (!put_zeros(w, t->header.data_at) || !content->write(w, t, content->arg) || !flush_piece(w))
        return false;
    pfree(w->piece);
    t->header.bytes = w->at;
    shared_header_seal(t);
    if (!put_at(w, &t->header, sizeof(SharedHeader), 0) ||
        !put_at(w, t->tensors, shared_table_bytes(&t->header), sizeof(SharedHeader)))
        return false;
    if (ftruncate(w->fd, (off_t) t->header.bytes) == 0)
        return true;
    w->error = errno;
    return false;
}

static bool
write_file(SharedWriter *w, SharedTable *t, const SharedContent *content, const char *path)
{
    volatile bool done = false;

    if (!open_temporary(w, path))
        return false;
    PG_ENSURE_ERROR_CLEANUP(remove_temporary, PointerGetDatum(w));
    {
        done = write_content(w, t, content);
    }
    PG_END_ENSURE_ERROR_CLEANUP(remove_temporary, PointerGetDatum(w));
    if (CloseTransientFile(w->fd) != 0 && done)
    {
        w->error = errno;
        done = false;
    }
    if (done && rename(w->temporary, path) != 0)
    {
        w->error = errno;
        done = false;
    }
    if (!done)
        (void) unlink(w->temporary);
    return done;
}

/*
 * What the rows' transactions wrote is on disk before others rely on their numbers: after a crash that lost a commit,
 * its transaction id, and the ids of its TOAST values, would come again. At the start of a page the next record's place
 * lies behind that page's header, which is not written yet.
 */
static void
flush_log(void)
{
    XLogRecPtr end;

    if (RecoveryInProgress())
        return;
    end = GetXLogInsertRecPtr();
    if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
        end -= SizeOfXLogLongPHD;
    else if (end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
        end -= SizeOfXLogShortPHD;
    XLogFlush(end);
}

/* ---- one writer at a time ---- */

static bool
take_lock(const LOCKTAG *tag, bool patient)
{
    TimestampTz begun = GetCurrentTimestamp();

    while (LockAcquire(tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
    {
        if (!patient || TimestampDifferenceExceeds(begun, GetCurrentTimestamp(), WAIT_MS))
            return false;
        (void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS, PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    }
    return true;
}

/* The file's table, with all that can be said before its numbers are written; NULL: there can be no file. */
static SharedTable *
plan(const SharedRows *rows, const SharedContent *content)
{
    SharedHeader h = {.n_tensors = content->n_tensors, .n_parts = content->n_parts, .text_bytes = content->text_bytes};
    const size_t limit = shared_limit();
    size_t       bytes, others;
    SharedTable *t;

    shared_header_init(&h, rows, content->precision, content->data_bytes);
    t = shared_table_new(&h);
    if (t == NULL)
        return NULL;
    t->header.bytes = h.data_at + content->data_bytes + (uint64) content->n_tensors * SHARED_ALIGNMENT;
    bytes = t->header.bytes + content->beside;
    others = shared_in_use(rows->model_hash);
    if (bytes > limit)
        shared_notice(0, psprintf("model \"%s\" takes %zu MB, and pg_llm.shared_size allows %zu MB", rows->model,
                                  bytes >> 20, limit >> 20));
    else if (bytes > limit - Min(limit, others))
        shared_notice(0, psprintf("model \"%s\" takes %zu MB, other models that are in use %zu MB, and "
                                  "pg_llm.shared_size allows %zu MB",
                                  rows->model, bytes >> 20, others >> 20, limit >> 20));
    else if (!shared_make_directory())
        shared_notice(errno, "make or enter");
    else if (!memory_suffices(t->header.bytes))
        shared_notice(ENOMEM, "write a file");
    else
        return t;
    pfree(t);
    return NULL;
}

/* Under the lock; `there`: what is shared so far */
static SharedMapping *
build(const SharedRows *rows, SharedContent *content, const SharedMapping *there)
{
    SharedWriter  *w = palloc0(sizeof(SharedWriter));
    char          *path = shared_path(rows, content->precision);
    SharedTable   *t;
    SharedMapping *m;

    if (content->more != NULL && !content->more(content, there))
        return NULL;
    t = plan(rows, content);
    if (t == NULL)
        return NULL;
    flush_log();
    if (!write_file(w, t, content, path))
    {
        if (w->error != 0)
            shared_notice(w->error, "write a file");
        return NULL;
    }
    pfree(t);
    shared_trim(rows->model_hash, path);
    m = shared_map(rows, content->precision);
    PG_TRY();
    {
        if (m != NULL)
            shared_mapping_collapse(m);
    }
    PG_CATCH();
    {
        shared_mapping_release(m);
        PG_RE_THROW();
    }
    PG_END_TRY();
    return m;
}

/* The same, unless another session was faster */
static SharedMapping *
build_or_map(const SharedRows *rows, SharedContent *content)
{
    SharedMapping *there = shared_map(rows, content->precision);
    SharedMapping *volatile made = NULL;

    if (there != NULL && content->more == NULL)
        return there;
    PG_TRY();
    {
        made = build(rows, content, there);
    }
    PG_CATCH();
    {
        if (there != NULL)
            shared_mapping_release(there);
        PG_RE_THROW();
    }
    PG_END_TRY();
    if (made == NULL)
        return there;
    if (there != NULL)
        shared_mapping_release(there);
    return made;
}

SharedMapping *
shared_build(const SharedRows *rows, SharedContent *content)
{
    SharedMapping *m;
    LOCKTAG        tag;

    if (shared_place() == 0)
        return NULL;
    SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (rows->model_hash >> 32), (uint32) rows->model_hash, LOCK_KIND);
    if (!take_lock(&tag, content->patient))
        return NULL;
    m = build_or_map(rows, content);
    LockRelease(&tag, ExclusiveLock, false);
    return m;
}
