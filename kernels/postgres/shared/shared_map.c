/*
 * shared_map.c -- files that this session has mapped to read.
 *
 * A mapping lives as long as anything refers to its memory: versions in the parameter cache, tensors, the tape. Its file
 * may be removed meanwhile, which harms nobody; no file is ever made shorter. The descriptor is closed at once.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "shared.h"
#include "tensor/buffer.h"

#define FETCH_BYTES ((size_t) 64 << 20) /* pages that are asked for between two looks at interrupts */

static SharedMapping *mappings = NULL;

SharedMapping *
shared_mapping_retain(SharedMapping *m)
{
    m->refs++;
    return m;
}

void
shared_mapping_release(SharedMapping *m)
{
    SharedMapping **link = &mappings;

    if (--m->refs > 0)
        return;
    while (*link != NULL && *link != m)
        link = &(*link)->next;
    if (*link == m)
        *link = m->next;
    if (m->base != NULL)
        (void) munmap(m->base, m->bytes);
    MemoryContextDelete(m->context);
}

bool
shared_mapping_outdated(const SharedMapping *m)
{
    struct stat about;

    return lstat(m->path, &about) != 0 || about.st_dev != m->device || about.st_ino != m->inode;
}

static void
gone(void *mapping)
{
    shared_mapping_release(mapping);
}

TensorBuffer *
shared_mapping_buffer(SharedMapping *m, const SharedTensor *t)
{
    TensorBuffer *buffer = tensor_buffer_foreign((float *) (m->base + t->at), t->bytes, gone, m);

    shared_mapping_retain(m);
    return buffer;
}

static SharedMapping *
find(const SharedRows *rows, llm_precision precision, const struct stat *about)
{
    for (SharedMapping *m = mappings; m != NULL; m = m->next)
        if (m->table->header.precision == (uint32) precision && m->device == about->st_dev &&
            m->inode == about->st_ino && memcmp(m->table->header.version, rows->version, SHARED_VERSION_BYTES) == 0)
            return shared_mapping_retain(m);
    return NULL;
}

/*
 * Reading a page of a broken disk through a mapping is a signal that ends the server. Asked for beforehand, it is an
 * error. Kernels before 5.14 do not know the question.
 */
static bool
fetch(const SharedMapping *m)
{
#ifdef MADV_POPULATE_READ
    for (size_t at = 0; at < m->bytes; at += FETCH_BYTES)
    {
        while (madvise(m->base + at, Min(FETCH_BYTES, m->bytes - at), MADV_POPULATE_READ) != 0)
        {
            if (errno == EINVAL)
                return true;
            if (errno != EINTR && errno != EAGAIN)
                return false;
            CHECK_FOR_INTERRUPTS();
        }
        CHECK_FOR_INTERRUPTS();
    }
#endif
    return true;
}

/* A mapping of the open file in the list, with one reference; NULL: *error tells why, 0: it is not to be believed. */
static SharedMapping *
map_open(int fd, const char *path, const struct stat *about, const SharedRows *rows, llm_precision precision,
         int *error)
{
    MemoryContext  context = AllocSetContextCreate(CurrentMemoryContext, "pg_llm mapping", ALLOCSET_SMALL_SIZES);
    MemoryContext  old = MemoryContextSwitchTo(context);
    SharedMapping *m = palloc0(sizeof(SharedMapping));

    m->context = context;
    m->refs = 1;
    m->device = about->st_dev;
    m->inode = about->st_ino;
    m->path = pstrdup(path);
    m->table = shared_file_read(fd, about, error);
    MemoryContextSwitchTo(old);
    if (m->table != NULL && m->table->header.precision == (uint32) precision &&
        memcmp(m->table->header.version, rows->version, SHARED_VERSION_BYTES) == 0)
    {
        void *base = mmap(NULL, about->st_size, PROT_READ, MAP_SHARED, fd, 0);

        if (base != MAP_FAILED)
        {
            m->base = base;
            m->bytes = about->st_size;
            MemoryContextSetParent(context, TopMemoryContext);
            m->next = mappings;
            mappings = m;
            return m;
        }
        *error = errno;
    }
    MemoryContextDelete(context);
    return NULL;
}

static SharedMapping *
map_new(int fd, const char *path, const struct stat *about, const SharedRows *rows, llm_precision precision)
{
    int            error = 0;
    SharedMapping *m = map_open(fd, path, about, rows, precision, &error);
    volatile bool  fetched = false;

    if (m == NULL)
    {
        if (error != 0)
            shared_notice(error, "map a file");
        return NULL;
    }
    PG_TRY();
    {
        fetched = fetch(m);
    }
    PG_CATCH();
    {
        shared_mapping_release(m);
        PG_RE_THROW();
    }
    PG_END_TRY();
    if (!fetched)
    {
        shared_notice(EIO, "read a file");
        shared_mapping_release(m);
        return NULL;
    }
    return m;
}

SharedMapping *
shared_map(const SharedRows *rows, llm_precision precision)
{
    char          *path = shared_path(rows, precision);
    int            fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | PG_BINARY);
    SharedMapping *m = NULL;
    struct stat    about;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &about) == 0)
    {
        m = find(rows, precision, &about);
        if (m == NULL)
            m = map_new(fd, path, &about, rows, precision);
    }
    if (m != NULL)
    {
        /* Used now: the modification's time stays that of its making. */
        struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};

        (void) futimens(fd, times);
    }
    CloseTransientFile(fd);
    pfree(path);
    return m;
}
