/*
 * tensor.c -- tensor values in memory: the expanded object, its flat form, shapes, int[] arguments.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "tensor_view.h"

#define TENSOR_MAGIC 0x74656e73

static Size tensor_get_flat_size(ExpandedObjectHeader *header);
static void tensor_flatten_into(ExpandedObjectHeader *header, void *result, Size allocated_size);

static const ExpandedObjectMethods tensor_methods = {tensor_get_flat_size, tensor_flatten_into};

/* ---- shapes ---- */

size_t
tensor_count(int ndim, const int32 *dims)
{
    size_t n = 1;
    bool   empty = false;

    if (ndim < 0 || ndim > TENSOR_MAX_NDIM)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("a tensor cannot have %d dimensions", ndim),
                errdetail("The limit is %d.", TENSOR_MAX_NDIM));
    for (int i = 0; i < ndim; i++)
    {
        if (dims[i] < 0)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("dimension %d of a tensor cannot be %d", i + 1, dims[i]),
                    errhint("Dimensions must be 0 or more."));
        empty |= dims[i] == 0;
    }
    /* Of an empty tensor the other axes count: its rows, which hold nothing, are walked like any. */
    for (int i = 0; i < ndim; i++)
    {
        if (dims[i] == 0)
            continue;
        if (n > TENSOR_MAX_ELEMENTS / (size_t) dims[i])
            ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                    errmsg("a tensor of shape %s is too large", tensor_shape_text(ndim, dims)),
                    errdetail("The limit is %zu elements.", TENSOR_MAX_ELEMENTS));
        n *= (size_t) dims[i];
    }
    return empty ? 0 : n;
}

char *
tensor_shape_text(int ndim, const int32 *dims)
{
    StringInfoData text;

    initStringInfo(&text);
    appendStringInfoChar(&text, '[');
    for (int i = 0; i < ndim; i++)
        appendStringInfo(&text, "%s%d", i == 0 ? "" : ",", dims[i]);
    appendStringInfoChar(&text, ']');
    return text.data;
}

bool
tensor_same_dims(int ndim_a, const int32 *a, int ndim_b, const int32 *b)
{
    return ndim_a == ndim_b && memcmp(a, b, sizeof(int32) * ndim_a) == 0;
}

float
tensor_float4(double value)
{
    float result = (float) value;

    if (isinf(result) && !isinf(value))
        ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                errmsg("value %g is out of range for a tensor", value), errhint("Elements are float32."));
    return result;
}

/* ---- the expanded object ---- */

static void
release_buffer(void *arg)
{
    Tensor *t = arg;

    tensor_buffer_release(t->buffer);
    t->buffer = NULL;
}

/* A tensor without a buffer, in a memory context of its own whose end releases the buffer. */
static Tensor *
tensor_shell(int ndim, const int32 *dims)
{
    size_t        n = tensor_count(ndim, dims);
    MemoryContext cx = AllocSetContextCreate(CurrentMemoryContext, "tensor", ALLOCSET_SMALL_SIZES);
    Tensor       *t = MemoryContextAllocZero(cx, sizeof(Tensor));

    EOH_init_header(&t->hdr, &tensor_methods, cx);
    t->magic = TENSOR_MAGIC;
    t->ndim = ndim;
    if (ndim > 0)
        memcpy(t->dims, dims, sizeof(int32) * ndim);
    t->n = n;
    t->callback.func = release_buffer;
    t->callback.arg = t;
    MemoryContextRegisterResetCallback(cx, &t->callback);
    return t;
}

Tensor *
tensor_new(int ndim, const int32 *dims)
{
    Tensor *t = tensor_shell(ndim, dims);

    t->buffer = tensor_buffer_alloc(t->n);
    t->data = t->buffer->data;
    return t;
}

Tensor *
tensor_wrap(int ndim, const int32 *dims, TensorBuffer *buffer, float *data)
{
    Tensor *t = tensor_shell(ndim, dims);

    t->buffer = tensor_buffer_retain(buffer);
    t->data = data;
    return t;
}

Tensor *
tensor_scalar(double value)
{
    Tensor *t = tensor_new(0, NULL);

    t->data[0] = tensor_float4(value);
    return t;
}

Datum
tensor_datum(Tensor *t)
{
    return EOHPGetRWDatum(&t->hdr);
}

/* The tensor behind an expanded datum, perhaps an unfilled one. */
static Tensor *
expanded_tensor(Datum d)
{
    Tensor *t = (Tensor *) DatumGetEOHP(d);

    if (t->hdr.eoh_methods != &tensor_methods || t->magic != TENSOR_MAGIC)
        ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("expected a tensor"));
    return t;
}

Tensor *
tensor_from_datum(Datum d)
{
    Tensor *t = tensor_from_datum_lazy(d);

    tensor_need(t);
    return t;
}

Tensor *
tensor_from_datum_lazy(Datum d)
{
    TensorView v;
    Tensor    *t;

    if (VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(d)))
        return expanded_tensor(d);
    v = tensor_view_open_stored(d);
    t = tensor_new(v.ndim, v.dims);
    if (v.bf16 != NULL)
        tensor_widen(t->data, v.bf16, v.n);
    else if (v.n > 0)
        memcpy(t->data, v.data, v.n * sizeof(float));
    t->nonce = v.nonce;
    t->index = v.index;
    tensor_view_close(&v);
    return t;
}

/* ---- the flat form ---- */

static Size
tensor_get_flat_size(ExpandedObjectHeader *header)
{
    Tensor *t = (Tensor *) header;

    if (t->n > TENSOR_MAX_FLAT_ELEMENTS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a tensor of shape %s does not fit a row", tensor_shape_text(t->ndim, t->dims)),
                errdetail("A stored value can have at most %zu elements.", (size_t) TENSOR_MAX_FLAT_ELEMENTS),
                errhint("Store it in parts of whole rows."));
    return FLAT_TENSOR_DATA_OFFSET(t->ndim) + t->n * sizeof(float);
}

static void
tensor_flatten_into(ExpandedObjectHeader *header, void *result, Size allocated_size)
{
    Tensor     *t = (Tensor *) header;
    FlatTensor *flat = result;
    size_t      offset = FLAT_TENSOR_DATA_OFFSET(t->ndim);

    tensor_need(t);
    Assert(allocated_size == offset + t->n * sizeof(float));
    /* padding included: equal values are equal bytes */
    memset(flat, 0, offset);
    SET_VARSIZE(flat, allocated_size);
    flat->version = TENSOR_VERSION;
    flat->dtype = TENSOR_FLOAT32;
    flat->ndim = (uint8) t->ndim;
    flat->nonce = t->nonce;
    flat->index = t->index;
    if (t->ndim > 0)
        memcpy(flat->dims, t->dims, sizeof(int32) * t->ndim);
    if (t->n > 0)
        memcpy((char *) result + offset, t->data, t->n * sizeof(float));
}

/* Ensure that bytes from disk begin a tensor this version can read; its number of elements. */
static size_t
check_header(const FlatTensor *flat, size_t size)
{
    if (size < offsetof(FlatTensor, dims) || flat->version != TENSOR_VERSION ||
        (flat->dtype != TENSOR_FLOAT32 && flat->dtype != TENSOR_BF16) || flat->ndim > TENSOR_MAX_NDIM ||
        size < offsetof(FlatTensor, dims) + flat->ndim * sizeof(int32))
        ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED), errmsg("stored tensor has an unknown format"),
                errdetail("It takes %zu bytes.", size));
    return tensor_count(flat->ndim, flat->dims);
}

static TensorView
view_of_header(const FlatTensor *flat, size_t n)
{
    return (TensorView){.ndim = flat->ndim,
                        .dims = flat->dims,
                        .n = n,
                        .nonce = flat->nonce,
                        .index = flat->index,
                        .dtype = flat->dtype};
}

/* Ensure that the data are there, too. */
static size_t
check_flat(const FlatTensor *flat, size_t size)
{
    size_t n = check_header(flat, size);
    size_t width = flat->dtype == TENSOR_BF16 ? sizeof(uint16) : sizeof(float);

    if (size != FLAT_TENSOR_DATA_OFFSET(flat->ndim) + n * width)
        ereport(ERROR, errcode(ERRCODE_DATA_CORRUPTED),
                errmsg("stored tensor of shape %s takes %zu bytes", tensor_shape_text(flat->ndim, flat->dims), size));
    return n;
}

static TensorView
view_of_expanded(const Tensor *t)
{
    return (TensorView){.ndim = t->ndim,
                        .dims = t->dims,
                        .n = t->n,
                        .nonce = t->nonce,
                        .index = t->index,
                        .dtype = TENSOR_FLOAT32};
}

TensorView
tensor_view_open_stored(Datum d)
{
    TensorView v = {0};

    if (VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(d)))
    {
        Tensor *t = expanded_tensor(d);

        tensor_need(t);
        v = view_of_expanded(t);
        v.data = t->data;
    }
    else
    {
        FlatTensor *flat = (FlatTensor *) PG_DETOAST_DATUM(d);
        size_t      n = check_flat(flat, VARSIZE(flat));
        const void *elements = (const char *) flat + FLAT_TENSOR_DATA_OFFSET(flat->ndim);

        v = view_of_header(flat, n);
        if (flat->dtype == TENSOR_BF16)
            v.bf16 = elements;
        else
            v.data = elements;
        if ((Pointer) flat != DatumGetPointer(d))
            v.copy = flat;
    }
    return v;
}

TensorView
tensor_view_open(Datum d)
{
    TensorView v = tensor_view_open_stored(d);

    if (v.bf16 == NULL)
        return v;
    v.widened = palloc_extended(Max(v.n, 1) * sizeof(float), MCXT_ALLOC_HUGE);
    tensor_widen(v.widened, v.bf16, v.n);
    v.data = v.widened;
    v.bf16 = NULL;
    return v;
}

TensorView
tensor_view_open_shape(Datum d)
{
    FlatTensor *flat;
    TensorView  v;

    if (VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(d)))
        return view_of_expanded(expanded_tensor(d));
    if (!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(d)))
        return tensor_view_open_stored(d);
    flat = (FlatTensor *) PG_DETOAST_DATUM_SLICE(d, 0, FLAT_TENSOR_DATA_OFFSET(TENSOR_MAX_NDIM) - VARHDRSZ);
    v = view_of_header(flat, check_header(flat, VARSIZE(flat)));
    v.copy = flat;
    return v;
}

void
tensor_view_close(TensorView *v)
{
    if (v->copy != NULL)
        pfree(v->copy);
    if (v->widened != NULL)
        pfree(v->widened);
    v->copy = NULL;
    v->widened = NULL;
}

/* ---- int[] arguments ---- */

IntArray
tensor_int_array(Datum array, const char *argument)
{
    ArrayType *a = DatumGetArrayTypeP(array);
    IntArray   result = {0};

    if (ARR_ELEMTYPE(a) != INT4OID)
        ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("%s must be an array of integer", argument));
    if (array_contains_nulls(a))
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not contain NULL", argument));
    result.ndim = ARR_NDIM(a);
    if (result.ndim > 0)
        memcpy(result.dims, ARR_DIMS(a), sizeof(int32) * result.ndim);
    else
        result.ndim = 1; /* '{}' is a list of no elements */
    result.n = (size_t) ArrayGetNItems(ARR_NDIM(a), ARR_DIMS(a));
    result.values = (const int32 *) ARR_DATA_PTR(a);
    return result;
}

void
tensor_require_lengths(const char *name, const IntArray *lengths, size_t n)
{
    size_t sum = 0;

    if (lengths->ndim != 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: lengths has %d dimensions", name, lengths->ndim),
                errhint("It is a list of the number of tokens of each sequence."));
    for (size_t b = 0; b < lengths->n; b++)
    {
        if ((b & 0xffff) == 0)
            CHECK_FOR_INTERRUPTS();
        if (lengths->values[b] < 1)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("%s: sequence %zu of lengths has %d tokens", name, b + 1, lengths->values[b]),
                    errhint("Every sequence has at least one: leave out those without."));
        sum += lengths->values[b];
    }
    if (sum != n)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("%s: lengths add up to %zu tokens, not to %zu", name, sum, n),
                errhint("The sequences lie end to end, and all tokens belong to one of them."));
}

ArrayType *
tensor_make_int_array(const int32 *values, size_t n)
{
    size_t     bytes = ARR_OVERHEAD_NONULLS(1) + n * sizeof(int32);
    ArrayType *a;

    if (n == 0)
        return construct_empty_array(INT4OID);
    if (n > MaxArraySize || !AllocSizeIsValid(bytes))
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("%zu numbers do not fit into an array", n));
    a = palloc(bytes);
    SET_VARSIZE(a, bytes);
    a->ndim = 1;
    a->dataoffset = 0;
    a->elemtype = INT4OID;
    ARR_DIMS(a)[0] = (int) n;
    ARR_LBOUND(a)[0] = 1;
    memcpy(ARR_DATA_PTR(a), values, n * sizeof(int32));
    return a;
}
