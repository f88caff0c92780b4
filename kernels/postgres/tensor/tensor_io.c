/*
 * tensor_io.c -- the type's input and output: nested text, the binary protocol.
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"

#include "tensor_text.h"
#include "tensor_typmod.h"
#include "tensor_view.h"

#define INTERRUPT_EVERY 65536 /* elements between two looks at pending interrupts */
#define LISTS_AT_MOST   256   /* empty lists that are written out */

/* ---- text ---- */

/* Input function: text to tensor, and the shape that a typmod asks for */
PG_FUNCTION_INFO_V1(pg_llm_tensor_in);
Datum
pg_llm_tensor_in(PG_FUNCTION_ARGS)
{
    Tensor *t = tensor_parse(PG_GETARG_CSTRING(0), fcinfo->context);

    if (t == NULL)
        PG_RETURN_NULL(); /* a soft error has been saved */
    if (!tensor_fits_typmod(t->ndim, t->dims, PG_GETARG_INT32(2), fcinfo->context))
        PG_RETURN_NULL();
    PG_RETURN_TENSOR(t);
}

static void
append_number(StringInfo out, float x)
{
    enlargeStringInfo(out, FLOAT_SHORTEST_DECIMAL_LEN + 2);
    if (isnan(x))
        appendBinaryStringInfo(out, "NaN", 3);
    else if (isinf(x))
        appendStringInfoString(out, x < 0 ? "-Infinity" : "Infinity");
    else
        out->len += float_to_shortest_decimal_bufn(x, out->data + out->len);
}

/* Appends axis `axis` and all below; *data moves past the elements written. */
static void
append_axis(StringInfo out, const TensorView *v, int axis, const float **data)
{
    bool innermost = axis == v->ndim - 1;

    appendStringInfoCharMacro(out, '[');
    for (int32 i = 0; i < v->dims[axis]; i++)
    {
        if (i > 0)
            appendStringInfoCharMacro(out, ',');
        if (i % INTERRUPT_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        if (innermost)
            append_number(out, *(*data)++);
        else
            append_axis(out, v, axis + 1, data);
    }
    appendStringInfoCharMacro(out, ']');
}

/*
 * Whether nested lists show the shape of a tensor without elements: only its last dimension is 0, and there are not so
 * many lists that they say little.
 */
static bool
lists_show_shape(const TensorView *v)
{
    int64 lists = 1;

    for (int i = 0; i < v->ndim - 1 && lists <= LISTS_AT_MOST; i++)
    {
        if (v->dims[i] == 0)
            return false;
        lists *= v->dims[i];
    }
    return lists <= LISTS_AT_MOST;
}

static void
append_shape(StringInfo out, const TensorView *v)
{
    for (int i = 0; i < v->ndim; i++)
        appendStringInfo(out, "%c%d", i == 0 ? '{' : ',', v->dims[i]);
    appendStringInfoString(out, "}[]");
}

/* Output function: tensor to text */
PG_FUNCTION_INFO_V1(pg_llm_tensor_out);
Datum
pg_llm_tensor_out(PG_FUNCTION_ARGS)
{
    TensorView     v = PG_GETARG_TENSOR_VIEW(0);
    const float   *data = v.data;
    StringInfoData out;

    initStringInfo(&out);
    if (v.ndim == 0)
        append_number(&out, data[0]);
    else if (v.n == 0 && !lists_show_shape(&v))
        append_shape(&out, &v);
    else
        append_axis(&out, &v, 0, &data);
    appendStringInfoChar(&out, '\0');
    PG_RETURN_CSTRING(out.data);
}

/* ---- binary ---- */

/*
 * int8 version (1), int8 dtype (1: float32), int8 number of dimensions, int8 flags (0), int32 dimensions in
 * network order, float32 elements in little-endian order: bulk data go as they lie in memory.
 */
static void
copy_little_endian(void *dst, const void *src, size_t n)
{
#ifdef WORDS_BIGENDIAN
    for (size_t i = 0; i < n; i++)
    {
        uint32 bits;

        memcpy(&bits, (const char *) src + i * sizeof(float), sizeof(bits));
        bits = pg_bswap32(bits);
        memcpy((char *) dst + i * sizeof(float), &bits, sizeof(bits));
    }
#else
    memcpy(dst, src, n * sizeof(float));
#endif
}

/* Receive function: binary protocol to tensor */
PG_FUNCTION_INFO_V1(pg_llm_tensor_recv);
Datum
pg_llm_tensor_recv(PG_FUNCTION_ARGS)
{
    StringInfo buf = (StringInfo) PG_GETARG_POINTER(0);
    int32      typmod = PG_GETARG_INT32(2);
    int        version = pq_getmsgbyte(buf);
    int        dtype = pq_getmsgbyte(buf);
    int        ndim = pq_getmsgbyte(buf);
    int        flags = pq_getmsgbyte(buf);
    int32      dims[TENSOR_MAX_NDIM];
    size_t     n;
    size_t     received;
    Tensor    *t;

    if (version != TENSOR_VERSION || dtype != TENSOR_FLOAT32 || flags != 0 || ndim > TENSOR_MAX_NDIM)
        ereport(ERROR, errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), errmsg("binary tensor has an unknown format"),
                errdetail("Version %d, element type %d, flags %d, %d dimensions.", version, dtype, flags, ndim));
    for (int i = 0; i < ndim; i++)
        dims[i] = (int32) pq_getmsgint(buf, 4);
    n = tensor_count(ndim, dims);
    received = (size_t) (buf->len - buf->cursor);
    if (received != n * sizeof(float))
        ereport(ERROR, errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
                errmsg("binary tensor of shape %s has %zu bytes of data, not %zu", tensor_shape_text(ndim, dims),
                       received, n * sizeof(float)));
    tensor_fits_typmod(ndim, dims, typmod, NULL);
    t = tensor_new(ndim, dims);
    copy_little_endian(t->data, pq_getmsgbytes(buf, (int) received), n);
    PG_RETURN_TENSOR(t);
}

/* Send function: tensor to binary protocol */
PG_FUNCTION_INFO_V1(pg_llm_tensor_send);
Datum
pg_llm_tensor_send(PG_FUNCTION_ARGS)
{
    TensorView     v = PG_GETARG_TENSOR_VIEW(0);
    StringInfoData buf;
    float          chunk[1024];

    if (v.n > TENSOR_MAX_FLAT_ELEMENTS)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("a tensor of shape %s is too large to send", tensor_shape_text(v.ndim, v.dims)),
                errhint("Send it in parts of whole rows."));
    pq_begintypsend(&buf);
    pq_sendbyte(&buf, TENSOR_VERSION);
    pq_sendbyte(&buf, TENSOR_FLOAT32);
    pq_sendbyte(&buf, (uint8) v.ndim);
    pq_sendbyte(&buf, 0);
    for (int i = 0; i < v.ndim; i++)
        pq_sendint32(&buf, (uint32) v.dims[i]);
    /* one spare byte for the terminator that StringInfo keeps */
    enlargeStringInfo(&buf, (int) (v.n * sizeof(float)) + 1);
    for (size_t i = 0; i < v.n; i += lengthof(chunk))
    {
        size_t m = Min(lengthof(chunk), v.n - i);

        if (i % INTERRUPT_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        for (size_t j = 0; j < m; j++)
            chunk[j] = tensor_canonical(v.data[i + j]);
        copy_little_endian(buf.data + buf.len, chunk, m);
        buf.len += (int) (m * sizeof(float));
    }
    PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}
