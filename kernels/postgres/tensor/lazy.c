/*
 * lazy.c -- buffers of weights that are stored as bf16: float32 is made of them when somebody asks.
 *
 * A session that reads weights in fewer bits packs each matrix of a model, and reads single rows of its embedding. For
 * neither it needs the model in float32, which would be twice as large as what the rows hold. So such a buffer has the
 * numbers as bf16, in a shared file or in memory of its own, and addresses for float32, which take no memory until
 * tensor_buffer_fill writes there.
 */
#include "postgres.h"

#include <sys/mman.h>
#include <unistd.h>

#include "miscadmin.h"

#include "buffer.h"
#include "tensor_view.h"

#define PIECE ((size_t) 1 << 20) /* elements between two looks at pending interrupts */

typedef struct Lazy
{
    TensorBuffer *buffer;
    const uint16 *halves;
    size_t        n;
    size_t        room; /* bytes of addresses */
    bool          filled;
    void (*gone)(void *arg);
    void *arg;
} Lazy;

static Lazy *
lazy_of(const TensorBuffer *b)
{
    return tensor_buffer_foreign_arg(b);
}

static void
lazy_gone(void *arg)
{
    Lazy *lazy = arg;

    (void) munmap(lazy->buffer->data, lazy->room);
    if (lazy->filled)
        tensor_buffer_unreserve(lazy->room);
    lazy->gone(lazy->arg);
    free(lazy);
}

TensorBuffer *
tensor_buffer_lazy(const uint16 *halves, size_t n, void (*gone)(void *arg), void *arg)
{
    size_t        room = TYPEALIGN((size_t) sysconf(_SC_PAGESIZE), Max(n, 1) * sizeof(float));
    Lazy         *lazy = calloc(1, sizeof(Lazy));
    void         *data = lazy == NULL ? MAP_FAILED : mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    TensorBuffer *b = NULL;

    if (data == MAP_FAILED)
    {
        free(lazy);
        ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for %zu weights", n));
    }
    PG_TRY();
    {
        b = tensor_buffer_foreign(data, n * sizeof(float), lazy_gone, lazy);
    }
    PG_CATCH();
    {
        (void) munmap(data, room);
        free(lazy);
        PG_RE_THROW();
    }
    PG_END_TRY();
    *lazy = (Lazy){.buffer = b, .halves = halves, .n = n, .room = room, .gone = gone, .arg = arg};
    b->unfilled = true;
    return b;
}

static void
own_gone(void *arg)
{
    tensor_buffer_release(arg);
}

TensorBuffer *
tensor_buffer_lazy_alloc(size_t n, uint16 **halves)
{
    TensorBuffer *own = tensor_buffer_alloc((n + 1) / 2);
    TensorBuffer *volatile b = NULL;

    *halves = (uint16 *) own->data;
    PG_TRY();
    {
        b = tensor_buffer_lazy(*halves, n, own_gone, own);
    }
    PG_CATCH();
    {
        tensor_buffer_release(own);
        PG_RE_THROW();
    }
    PG_END_TRY();
    return b;
}

const uint16 *
tensor_buffer_halves(const TensorBuffer *b)
{
    return lazy_of(b)->halves;
}

/* Stopped half-way, it is as unfilled as it was. */
void
tensor_buffer_fill(TensorBuffer *b)
{
    Lazy *lazy = lazy_of(b);

    if (!lazy->filled)
    {
        if (!tensor_buffer_reserve(lazy->room))
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for %zu weights", lazy->n),
                    errhint("Use a smaller model."));
        if (mprotect(b->data, lazy->room, PROT_READ | PROT_WRITE) != 0)
        {
            tensor_buffer_unreserve(lazy->room);
            ereport(ERROR, errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for %zu weights: %m", lazy->n));
        }
        lazy->filled = true;
    }
    for (size_t i = 0; i < lazy->n; i += PIECE)
    {
        CHECK_FOR_INTERRUPTS();
        tensor_widen(b->data + i, lazy->halves + i, Min(PIECE, lazy->n - i));
    }
    b->unfilled = false;
}
