/*
 * shared_write.c -- the bytes of a shared file: written under another name, and renamed when they are whole.
 *
 * Never through a mapping, so that a full disk is an error and no signal. Nobody reads a half, and nobody ever makes a file
 * shorter.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "shared.h"

/*
 * Written at once, at multiples of it in the file, and between two looks at interrupts: a file system that keeps large
 * pages takes them for what a single write covers, and a mapping then has them, too.
 */
#define PIECE         ((size_t) 8 << 20)
#define RESERVE_PIECE ((size_t) 64 << 20) /* and asked for */

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

bool
shared_write(SharedTable *t, const SharedContent *content, const char *path, int *error)
{
    SharedWriter *w = palloc0(sizeof(SharedWriter));
    volatile bool done = false;

    if (open_temporary(w, path))
    {
        PG_ENSURE_ERROR_CLEANUP(remove_temporary, PointerGetDatum(w));
        {
            done = write_content(w, t, content);
        }
        PG_END_ENSURE_ERROR_CLEANUP(remove_temporary, PointerGetDatum(w));
        if ((CloseTransientFile(w->fd) != 0 || (done && rename(w->temporary, path) != 0)) && done)
        {
            w->error = errno;
            done = false;
        }
        if (!done)
            (void) unlink(w->temporary);
    }
    *error = w->error;
    if (w->piece != NULL)
        pfree(w->piece);
    pfree(w);
    return done;
}
