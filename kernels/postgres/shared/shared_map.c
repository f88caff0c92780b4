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

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25 /* of a kernel that is newer than the C library */
#endif

#define HUGE_PAGE   ((size_t) 2 << 20)
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

bool
shared_mapping_lazy(const SharedMapping *m)
{
    for (uint32 i = 0; i < m->table->header.n_tensors; i++)
        if (m->table->tensors[i].flags == SHARED_HALVES)
            return true;
    return false;
}

static void
gone(void *mapping)
{
    shared_mapping_release(mapping);
}

TensorBuffer *
shared_mapping_buffer(SharedMapping *m, const SharedTensor *t)
{
    void         *at = m->base + t->at;
    TensorBuffer *buffer = t->flags == SHARED_HALVES ? tensor_buffer_lazy(at, t->bytes / sizeof(uint16), gone, m)
                                                     : tensor_buffer_foreign(at, t->bytes, gone, m);

    shared_mapping_retain(m);
    return buffer;
}

llm_packed *
shared_mapping_packed(const SharedMapping *m, const char *name, uint32 flags, const int32 *dims)
{
    const SharedTable *t = m->table;
    uint32             low = 0, high = t->header.n_tensors;

    while (low < high)
    {
        uint32              middle = low + (high - low) / 2;
        const SharedTensor *tensor = &t->tensors[middle];
        int                 order = strcmp(t->text + tensor->name, name);

        if (order < 0 || (order == 0 && tensor->flags < flags))
            low = middle + 1;
        else if (order > 0 || tensor->flags > flags)
            high = middle;
        else if (tensor->dims[0] != dims[0] || tensor->dims[1] != dims[1])
            return NULL;
        else
            return llm_packed_view(m->base + tensor->at, tensor->bytes, dims[0], dims[1],
                                   (llm_precision) t->header.precision);
    }
    return NULL;
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

/*
 * Read-only, and on a large page's boundary: only there can the kernel map a large page of the file's as one, which
 * saves a product of one row a fifth of its time.
 */
static void *
map_aligned(int fd, size_t bytes)
{
    size_t size = TYPEALIGN((size_t) sysconf(_SC_PAGESIZE), bytes);
    char  *room, *base;

    if (bytes < HUGE_PAGE)
        return mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    room = mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (room == MAP_FAILED)
        return room;
    base = (char *) TYPEALIGN(HUGE_PAGE, room);
    if (mmap(base, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
    {
        int error = errno;

        (void) munmap(room, size + HUGE_PAGE);
        errno = error;
        return MAP_FAILED;
    }
    if (base > room)
        (void) munmap(room, base - room);
    (void) munmap(base + size, room + HUGE_PAGE - base);
#ifdef MADV_HUGEPAGE
    (void) madvise(base, size, MADV_HUGEPAGE); /* pages that are read from the disk again are large, too */
#endif
    return base;
}

/* A tmpfs has small pages, whatever was written; other file systems refuse, and have the pages they like. */
void
shared_mapping_collapse(const SharedMapping *m)
{
#ifdef MADV_COLLAPSE
    size_t whole = m->bytes / HUGE_PAGE * HUGE_PAGE;

    for (size_t at = 0; at < whole; at += FETCH_BYTES)
    {
        if (madvise(m->base + at, Min(FETCH_BYTES, whole - at), MADV_COLLAPSE) != 0 && errno != EAGAIN)
            return;
        CHECK_FOR_INTERRUPTS();
    }
#endif
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
        void *base = map_aligned(fd, about->st_size);

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
