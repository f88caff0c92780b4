/*
 * buffer.c -- reference-counted, 64-byte-aligned memory for tensor data, outside of memory contexts.
 *
 * A training step allocates and frees the same few hundred sizes over and over. Fresh pages from the system
 * would cost a fault and a zeroing each, more than the arithmetic of a small op; so released blocks wait in
 * free lists by size class. The cache is bounded while a transaction runs and cut down to a few megabytes as
 * it ends, so that idle sessions hold on to little. A session that trains is about to want it all again, within a
 * second where a loop commits as it goes: it keeps what pg_llm.cache_size leaves beside the weights.
 */
#include "postgres.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "access/xact.h"
#include "miscadmin.h"

#include "buffer.h"
#include "core/llm_core.h"
#include "core/engine/memory.h"
#include "session/settings.h"
#include "unmap.h"

#define ALIGNMENT     64
#define MIN_BLOCK     256          /* smallest class, in bytes */
#define STEPS         4            /* classes per power of two: at most a quarter is wasted */
#define N_CLASSES     (STEPS * 40) /* up to 2^48 bytes */
#define HUGE_PAGE     ((size_t) 2 << 20)
#define MAP_THRESHOLD HUGE_PAGE            /* blocks from here on are mapped on their own */
#define ASK_SYSTEM    ((size_t) 256 << 20) /* each time the session grows by this much, ask for room */
#define ASK_FOR_ONE   ((size_t) 16 << 20)  /* and for each block of this size that is not a tensor's */
#define IDLE_CACHE    ((size_t) 32 << 20)  /* kept between transactions */
#define MAX_CACHE     ((size_t) 4 << 30)

/* A block's header lies in front of its data. */
typedef struct Block
{
    TensorBuffer  pub;
    struct Block *next;  /* in its free list */
    size_t        bytes; /* of the whole block */
    int           class;
} Block;

StaticAssertDecl(sizeof(Block) <= ALIGNMENT, "a block's header must fit before its aligned data");

/* A buffer over memory of somebody else's: never in a free list, and not counted. */
typedef struct Foreign
{
    TensorBuffer pub;
    void (*gone)(void *arg);
    void *arg;
} Foreign;

static Block *free_lists[N_CLASSES];
static size_t cached_bytes = 0;
static size_t used_bytes = 0;
static size_t reserved_bytes = 0; /* of memory that is no tensor's: tensor_buffer_reserve */
static size_t cache_limit = 0;
static int    trainings = 0; /* versions in memory that hold optimizer state */

/* Bytes of a class: MIN_BLOCK times 1, 1.25, 1.5, 1.75, 2, 2.5, ... */
static size_t
class_bytes(int class)
{
    return ((size_t) MIN_BLOCK << (class / STEPS)) / STEPS * (STEPS + class % STEPS);
}

/* The smallest class that holds so many bytes; -1: none. */
static int
class_of(size_t bytes)
{
    int class = 0;

    while (class + STEPS < N_CLASSES && class_bytes(class + STEPS) <= bytes)
        class += STEPS;
    while (class < N_CLASSES && class_bytes(class) < bytes)
        class++;
    return class < N_CLASSES ? class : -1;
}

/* True unless these bytes more would be more than there is. */
static bool
room_for(size_t bytes)
{
    size_t held = used_bytes + cached_bytes + reserved_bytes;

    if (bytes > SIZE_MAX - held)
        return false;
    return (held + bytes) / ASK_SYSTEM == held / ASK_SYSTEM || bytes <= llm_memory_available();
}

static void
give_back(Block *b)
{
    if (b->bytes >= MAP_THRESHOLD)
        unmap_later(b, b->bytes);
    else
        free(b);
}

static void
trim_to(size_t limit)
{
    /* large blocks first: small ones are cheap to keep and used most often */
    for (int class = N_CLASSES - 1; class >= 0 && cached_bytes > limit; class--)
        while (free_lists[class] != NULL && cached_bytes > limit)
        {
            Block *b = free_lists[class];

            free_lists[class] = b->next;
            cached_bytes -= b->bytes;
            give_back(b);
        }
}

/* What may wait in free lists between transactions. */
static size_t
idle_limit(void)
{
    size_t allowed = (size_t) pg_llm_cache_size_mb * 1024 * 1024;
    size_t left = allowed > used_bytes ? allowed - used_bytes : 0;

    return Min(cache_limit, trainings > 0 ? Max(IDLE_CACHE, left) : IDLE_CACHE);
}

void
tensor_buffer_end_xact(void)
{
    trim_to(idle_limit());
}

/* Once per session: an eighth of the memory that there is, and no more than MAX_CACHE, may wait in free lists. */
static void
first_use(void)
{
    cache_limit = Min(MAX_CACHE, llm_memory_total() / 8);
}

/* A mapping of its own on a huge-page boundary, so that the kernel can back it with huge pages. */
static void *
map_block(size_t bytes)
{
    char  *p = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char  *start;
    size_t before;

    if (p == MAP_FAILED)
        return NULL;
    start = (char *) TYPEALIGN(HUGE_PAGE, p);
    before = start - p;
    if (before > 0)
        munmap(p, before);
    if (before < HUGE_PAGE)
        munmap(start + bytes, HUGE_PAGE - before);
#ifdef MADV_HUGEPAGE
    madvise(start, bytes, MADV_HUGEPAGE);
#endif
    return start;
}

static Block *
new_block(int class)
{
    size_t bytes = class_bytes(class);
    Block *b = NULL;

    if (!room_for(bytes))
        return NULL;
    if (bytes >= MAP_THRESHOLD)
    {
        /* whole pages: munmap wants them, and the largest classes are multiples of far more than a page */
        b = map_block(bytes);
    }
    else
    {
        void *p;

        if (posix_memalign(&p, ALIGNMENT, bytes) == 0)
            b = p;
    }
    if (b == NULL)
        return NULL;
    b->bytes = bytes;
    b->class = class;
    b->pub.bytes = bytes - ALIGNMENT;
    b->pub.data = (float *) ((char *) b + ALIGNMENT);
    return b;
}

TensorBuffer *
tensor_buffer_alloc(size_t n)
{
    int    class = n > (SIZE_MAX - ALIGNMENT) / sizeof(float) ? -1 : class_of(n * sizeof(float) + ALIGNMENT);
    Block *b = NULL;

    if (cache_limit == 0)
        first_use();
    if (class >= 0 && free_lists[class] != NULL)
    {
        b = free_lists[class];
        free_lists[class] = b->next;
        cached_bytes -= b->bytes;
    }
    else if (class >= 0)
    {
        b = new_block(class);
        if (b == NULL)
        {
            tensor_buffer_trim();
            b = new_block(class);
        }
    }
    if (b == NULL)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a tensor of %zu elements", n),
                errdetail("This session's tensors and caches hold %zu MB.", (used_bytes + reserved_bytes) >> 20),
                errhint("Use a smaller batch, a shorter block or a smaller model."));
    b->next = NULL;
    b->pub.refcount = 1;
    b->pub.foreign = b->pub.unfilled = false;
    b->pub.packed[0] = b->pub.packed[1] = NULL;
    used_bytes += b->bytes;
    return &b->pub;
}

TensorBuffer *
tensor_buffer_foreign(float *data, size_t bytes, void (*gone)(void *arg), void *arg)
{
    Foreign *f = calloc(1, sizeof(Foreign));

    if (f == NULL)
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"));
    f->pub = (TensorBuffer){.refcount = 1, .foreign = true, .bytes = bytes, .data = data};
    f->gone = gone;
    f->arg = arg;
    return &f->pub;
}

void *
tensor_buffer_foreign_arg(const TensorBuffer *b)
{
    return ((const Foreign *) b)->arg;
}

TensorBuffer *
tensor_buffer_retain(TensorBuffer *buffer)
{
    buffer->refcount++;
    return buffer;
}

void
tensor_buffer_release(TensorBuffer *buffer)
{
    Block *b = (Block *) buffer;
    size_t limit;

    if (buffer == NULL || --buffer->refcount > 0)
        return;
    tensor_buffer_unpack(buffer);
    if (buffer->foreign)
    {
        Foreign *f = (Foreign *) buffer;

        f->gone(f->arg);
        free(f);
        return;
    }
    used_bytes -= b->bytes;
    /* a transaction's last contexts go after its callbacks have run */
    limit = IsTransactionState() ? cache_limit : idle_limit();
    if (b->bytes > limit || cached_bytes > limit - b->bytes)
    {
        give_back(b);
        return;
    }
    b->next = free_lists[b->class];
    free_lists[b->class] = b;
    cached_bytes += b->bytes;
}

void
tensor_buffer_unpack(TensorBuffer *buffer)
{
    for (int i = 0; i < 2; i++)
    {
        llm_packed_destroy(buffer->packed[i]);
        buffer->packed[i] = NULL;
    }
}

size_t
tensor_buffer_available(void)
{
    return llm_memory_available();
}

bool
tensor_buffer_room(size_t bytes)
{
    return bytes < ASK_FOR_ONE || bytes <= llm_memory_available();
}

bool
tensor_buffer_reserve(size_t bytes)
{
    if (!room_for(bytes))
        return false;
    reserved_bytes += bytes;
    return true;
}

void
tensor_buffer_unreserve(size_t bytes)
{
    reserved_bytes -= Min(bytes, reserved_bytes);
}

void
tensor_buffer_training(int versions)
{
    trainings += versions;
    if (trainings == 0 && !IsTransactionState())
        trim_to(IDLE_CACHE); /* as the transaction ends, and tensor_buffer_end_xact may have run */
}

size_t
tensor_buffer_cached(void)
{
    return cached_bytes;
}

size_t
tensor_buffer_in_use(void)
{
    return used_bytes;
}

void
tensor_buffer_trim(void)
{
    trim_to(0);
    while (!unmap_finished(10))
        CHECK_FOR_INTERRUPTS();
}
