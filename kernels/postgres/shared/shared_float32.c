/*
 * shared_float32.c -- a shared file of the numbers in a model's rows.
 */
#include "postgres.h"

#include <limits.h>

#include "session/engine.h"
#include "session/settings.h"
#include "shared.h"
#include "tensor/tensor_view.h"

#define MAX_TENSORS 65536
#define PIECE       ((size_t) 1 << 20) /* elements of bf16 that are widened at a time */
#define MAX_TEXT    ((size_t) 256 << 20)

/* The part goes on where the parameter's others ended: same width, next row. */
static bool
continues(const SharedTensor *tensor, const SharedRow *row, const TensorView *v, int64 rows)
{
    if (row->token_id != rows || v->ndim != tensor->ndim || (rows > 0 && v->ndim < 1))
        return false;
    return v->ndim == 0 || memcmp(v->dims + 1, tensor->dims + 1, sizeof(int32) * (v->ndim - 1)) == 0;
}

/* What is written: the rows, and of each whether its parameter stays bf16. */
typedef struct Numbers
{
    const SharedRows *rows;
    bool             *lazy;
} Numbers;

static bool
halves_finite(const uint16 *halves, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((halves[i] & 0x7f80) == 0x7f80)
            return false;
    return true;
}

/* Its elements, all finite, appended as bf16 or as float32. */
static bool
put_elements(SharedWriter *w, const TensorView *v, bool lazy, bool aligned, uint64 *at)
{
    float *piece;
    uint64 next;
    bool   fits = true;

    if (v->bf16 == NULL)
        return pg_llm_all_finite(pg_llm_engine(), v->data, v->n) &&
               shared_put(w, v->data, v->n * sizeof(float), aligned, at);
    if (!halves_finite(v->bf16, v->n))
        return false;
    if (lazy)
        return shared_put(w, v->bf16, v->n * sizeof(uint16), aligned, at);
    piece = palloc(PIECE * sizeof(float));
    for (size_t i = 0; fits && (i < v->n || i == 0); i += PIECE)
    {
        size_t n = Min(PIECE, v->n - i);

        tensor_widen(piece, v->bf16 + i, n);
        fits = shared_put(w, piece, n * sizeof(float), aligned && i == 0, i == 0 ? at : &next);
    }
    pfree(piece);
    return fits;
}

static bool
put_row(SharedWriter *w, SharedTable *t, SharedTensor *tensor, uint32 part, const SharedRow *row, bool lazy)
{
    TensorView v = tensor_view_open_stored(row->data);
    bool       is_first = tensor->n_parts == 0;
    int64      rows = is_first || tensor->ndim == 0 ? tensor->n_parts : tensor->dims[0];
    uint64     at;
    bool       fits;

    if (is_first)
    {
        tensor->first_part = part;
        tensor->flags = lazy ? SHARED_HALVES : 0;
        tensor->ndim = v.ndim;
        memcpy(tensor->dims, v.dims, sizeof(int32) * v.ndim);
        if (v.ndim > 0)
            tensor->dims[0] = 0;
    }
    fits = continues(tensor, row, &v, rows) && (v.ndim == 0 || rows + v.dims[0] <= INT_MAX) &&
           put_elements(w, &v, lazy, is_first, &at);
    if (fits)
    {
        t->parts[part].token_id = row->token_id;
        t->parts[part].rows = v.ndim > 0 ? v.dims[0] : 1;
        if (v.ndim > 0)
            tensor->dims[0] += v.dims[0];
        tensor->n_parts++;
        tensor->bytes += v.n * (lazy ? sizeof(uint16) : sizeof(float));
        if (is_first)
            tensor->at = at;
    }
    tensor_view_close(&v);
    return fits;
}

static bool
starts(const SharedRows *rows, int i)
{
    return i == 0 || strcmp(rows->rows[i - 1].name, rows->rows[i].name) != 0;
}

static bool
put_rows(SharedWriter *w, SharedTable *t, void *arg)
{
    const Numbers    *numbers = arg;
    const SharedRows *rows = numbers->rows;
    SharedTensor     *tensor = t->tensors - 1;
    uint32            text = 0;

    shared_put_text(t, &text, rows->model);
    for (int i = 0; i < rows->n; i++)
    {
        if (starts(rows, i))
        {
            tensor++;
            tensor->name = shared_put_text(t, &text, rows->rows[i].name);
        }
        if (!put_row(w, t, tensor, (uint32) i, &rows->rows[i], numbers->lazy[i]))
            return false;
    }
    return true;
}

/* Which rows' parameters stay bf16, matrices of which all rows are; and the bytes of all numbers. */
static size_t
choose_lazy(const SharedRows *rows, bool *lazy)
{
    size_t bytes = 0;

    for (int first = 0, next; first < rows->n; first = next)
    {
        bool   all = pg_llm_weights != LLM_FLOAT32;
        size_t n = 0;

        for (next = first; next < rows->n && (next == first || !starts(rows, next)); next++)
        {
            TensorView v = tensor_view_open_shape(rows->rows[next].data);

            all &= v.dtype == TENSOR_BF16 && v.ndim == 2;
            n += v.n;
            tensor_view_close(&v);
        }
        for (int i = first; i < next; i++)
            lazy[i] = all;
        bytes += n * (all ? sizeof(uint16) : sizeof(float));
    }
    return bytes;
}

static bool
more(SharedContent *content, const SharedMapping *there)
{
    return there == NULL || (pg_llm_weights == LLM_FLOAT32 && shared_mapping_lazy(there));
}

SharedMapping *
shared_build_float32(const SharedRows *rows, bool patient)
{
    Numbers       numbers = {.rows = rows, .lazy = palloc_extended(Max(rows->n, 1), MCXT_ALLOC_HUGE)};
    SharedContent content = {.precision = LLM_FLOAT32,
                             .patient = patient,
                             .n_parts = (uint32) rows->n,
                             .more = more,
                             .write = put_rows,
                             .arg = &numbers};
    size_t        text = strlen(rows->model) + 1;

    content.data_bytes = choose_lazy(rows, numbers.lazy);
    for (int i = 0; i < rows->n; i++)
        if (starts(rows, i))
        {
            content.n_tensors++;
            text += strlen(rows->rows[i].name) + 1;
        }
    if (rows->n == 0 || content.n_tensors > MAX_TENSORS || text > MAX_TEXT)
        return NULL;
    content.text_bytes = (uint32) text;
    return shared_build(rows, &content);
}
