/*
 * files_read.c -- what is in a weight file on the server, as SQL functions: pg_llm_file_* take a path,
 * pg_llm_checkpoint_* the id of a row of llm_checkpoint, which the caller must see.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/sha2.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "files.h"
#include "tensor/tensor_view.h"

/* The arguments by their order, before any is used */
#define REQUIRE(fcinfo, ...)                                                                                           \
    do                                                                                                                 \
    {                                                                                                                  \
        static const char *const names[] = {__VA_ARGS__};                                                              \
        for (int i = 0; i < (int) lengthof(names); i++)                                                                \
            files_require_argument(fcinfo, i, names[i]);                                                               \
    } while (0)

/* The file that arguments `path` and `checkpoint` name */
static llm_weights *
open_argument(FunctionCallInfo fcinfo, int checkpoint, int64 max_bytes)
{
    return files_open(files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(checkpoint), false), max_bytes);
}

/* The file of the checkpoint that argument `id` names */
static llm_weights *
open_id(FunctionCallInfo fcinfo)
{
    return files_open_checkpoint(PG_GETARG_INT64(0));
}

static void __attribute__((noreturn))
read_failed(llm_weights *w, llm_weights_status status)
{
    files_fail(files_current_path(), status, llm_weights_error(w), files_current_errno());
}

/* The tensor that argument i names */
static size_t
find_tensor(llm_weights *w, FunctionCallInfo fcinfo, int i)
{
    char  *name = text_to_cstring(PG_GETARG_TEXT_PP(i));
    size_t found = llm_weights_find(w, files_to_utf8(name));

    if (found == SIZE_MAX)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("file \"%s\" has no tensor \"%s\"", files_current_path(), name));
    return found;
}

/* Rows of (position, name, dtype, shape, format) */
static Datum
put_tensors(llm_weights *w, FunctionCallInfo fcinfo)
{
    static const char *const formats[] = {"safetensors", "npz", "gzip"};
    ReturnSetInfo           *result = (ReturnSetInfo *) fcinfo->resultinfo;

    InitMaterializedSRF(fcinfo, 0);
    for (size_t i = 0; i < llm_weights_count(w); i++)
    {
        const llm_weights_entry *e = llm_weights_get(w, i);
        Datum                    values[5], dims[LLM_WEIGHTS_MAX_NDIM];
        bool                     nulls[5] = {0};

        for (int k = 0; k < e->ndim; k++)
            dims[k] = Int64GetDatum((int64) e->dims[k]);
        values[0] = Int64GetDatum((int64) i);
        values[1] = CStringGetTextDatum(files_from_utf8(e->name));
        values[2] = CStringGetTextDatum(llm_dtype_name(e->dtype));
        values[3] = PointerGetDatum(construct_array(dims, e->ndim, INT8OID, 8, FLOAT8PASSBYVAL, 'd'));
        values[4] = CStringGetTextDatum(formats[llm_weights_format_of(w)]);
        tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    }
    return (Datum) 0;
}

/* Rows of the tensor that arguments 1 to 3 name: name, first_row, rows (below 0: all that follow) */
static Datum
get_tensor(llm_weights *w, FunctionCallInfo fcinfo)
{
    size_t                   i = find_tensor(w, fcinfo, 1);
    const llm_weights_entry *e = llm_weights_get(w, i);
    int64   first = PG_GETARG_INT64(2), rows = PG_GETARG_INT64(3), all = e->ndim > 0 ? (int64) e->dims[0] : 1;
    int32   dims[LLM_WEIGHTS_MAX_NDIM];
    uint64  width = 1;
    Tensor *t;
    llm_weights_status status;

    if (rows < 0)
        rows = all - first;
    if (first < 0 || first > all || rows < 0 || rows > all - first || (e->ndim == 0 && rows != 1))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("tensor \"%s\" has %lld rows, not %lld from %lld on", files_from_utf8(e->name), (long long) all,
                       (long long) rows, (long long) first));
    for (int k = 0; k < e->ndim; k++)
    {
        uint64 n = k == 0 ? (uint64) rows : e->dims[k];

        if (n > PG_INT32_MAX)
            ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                    errmsg("tensor \"%s\" is too large", files_from_utf8(e->name)));
        dims[k] = (int32) n;
        width *= k == 0 ? 1 : n;
    }
    if (e->dtype == LLM_DTYPE_BF16)
    {
        uint16     *elements;
        FlatTensor *flat = tensor_flat_bf16(e->ndim, dims, &elements);

        status = llm_weights_read_bf16(w, i, (uint64) first * width, tensor_count(e->ndim, dims), elements);
        if (status != LLM_WEIGHTS_OK)
            read_failed(w, status);
        PG_RETURN_POINTER(flat);
    }
    t = tensor_new(e->ndim, dims);
    status = llm_weights_read(w, i, (uint64) first * width, t->n, t->data);
    if (status != LLM_WEIGHTS_OK)
        read_failed(w, status);
    PG_RETURN_TENSOR(t);
}

/* All of the tensor of bytes that argument 1 names */
static Datum
get_bytes(llm_weights *w, FunctionCallInfo fcinfo)
{
    size_t                   i = find_tensor(w, fcinfo, 1);
    const llm_weights_entry *e = llm_weights_get(w, i);
    llm_weights_status       status;
    bytea                   *result;

    if (e->count > MaxAllocSize - VARHDRSZ)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("tensor \"%s\" is too large", files_from_utf8(e->name)));
    result = palloc(VARHDRSZ + e->count);
    SET_VARSIZE(result, VARHDRSZ + e->count);
    status = llm_weights_read_bytes(w, i, 0, e->count, VARDATA(result));
    if (status != LLM_WEIGHTS_OK)
        read_failed(w, status);
    PG_RETURN_BYTEA_P(result);
}

/* The value of the key that argument 1 names, NULL when the file has none */
static Datum
get_metadata(llm_weights *w, FunctionCallInfo fcinfo)
{
    const char *value = llm_weights_metadata(w, files_to_utf8(text_to_cstring(PG_GETARG_TEXT_PP(1))));

    if (value == NULL)
        PG_RETURN_NULL();
    PG_RETURN_TEXT_P(cstring_to_text(files_from_utf8(value)));
}

/* ---- files by their path ---- */

/* pg_llm_file_tensors(path, max_bytes, checkpoint) -> setof (position, name, dtype, shape, format) */
PG_FUNCTION_INFO_V1(pg_llm_file_tensors);
Datum
pg_llm_file_tensors(PG_FUNCTION_ARGS)
{
    REQUIRE(fcinfo, "path", "max_bytes", "checkpoint");
    return put_tensors(open_argument(fcinfo, 2, PG_GETARG_INT64(1)), fcinfo);
}

/* pg_llm_file_tensor(path, name, first_row, rows, checkpoint) */
PG_FUNCTION_INFO_V1(pg_llm_file_tensor);
Datum
pg_llm_file_tensor(PG_FUNCTION_ARGS)
{
    REQUIRE(fcinfo, "path", "name", "first_row", "rows", "checkpoint");
    return get_tensor(open_argument(fcinfo, 4, -1), fcinfo);
}

/* pg_llm_file_bytes(path, name, checkpoint): a tensor of bytes */
PG_FUNCTION_INFO_V1(pg_llm_file_bytes);
Datum
pg_llm_file_bytes(PG_FUNCTION_ARGS)
{
    REQUIRE(fcinfo, "path", "name", "checkpoint");
    return get_bytes(open_argument(fcinfo, 2, -1), fcinfo);
}

/* pg_llm_file_metadata(path, key, checkpoint) */
PG_FUNCTION_INFO_V1(pg_llm_file_metadata);
Datum
pg_llm_file_metadata(PG_FUNCTION_ARGS)
{
    REQUIRE(fcinfo, "path", "key", "checkpoint");
    return get_metadata(open_argument(fcinfo, 2, -1), fcinfo);
}

/* pg_llm_file_sha256(path, checkpoint) -> (bytes, sha256) of the whole file */
PG_FUNCTION_INFO_V1(pg_llm_file_sha256);
Datum
pg_llm_file_sha256(PG_FUNCTION_ARGS)
{
    char      hex[2 * PG_SHA256_DIGEST_LENGTH + 1];
    TupleDesc description;
    Datum     values[2];
    bool      nulls[2] = {0};

    REQUIRE(fcinfo, "path", "checkpoint");
    if (get_call_result_type(fcinfo, NULL, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    values[0] = Int64GetDatum(
        files_sha256(files_path(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(1), false), hex));
    values[1] = CStringGetTextDatum(hex);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(description), values, nulls)));
}

/* ---- checkpoints by their row ---- */

/* pg_llm_checkpoint_tensors(id) -> setof (position, name, dtype, shape, format) */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_tensors);
Datum
pg_llm_checkpoint_tensors(PG_FUNCTION_ARGS)
{
    REQUIRE(fcinfo, "id");
    return put_tensors(open_id(fcinfo), fcinfo);
}

/* pg_llm_checkpoint_tensor(id, name, first_row, rows) */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_tensor);
Datum
pg_llm_checkpoint_tensor(PG_FUNCTION_ARGS)
{
    REQUIRE(fcinfo, "id", "name", "first_row", "rows");
    return get_tensor(open_id(fcinfo), fcinfo);
}

/* pg_llm_checkpoint_bytes(id, name) */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_bytes);
Datum
pg_llm_checkpoint_bytes(PG_FUNCTION_ARGS)
{
    REQUIRE(fcinfo, "id", "name");
    return get_bytes(open_id(fcinfo), fcinfo);
}

/* pg_llm_checkpoint_metadata(id, key) */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_metadata);
Datum
pg_llm_checkpoint_metadata(PG_FUNCTION_ARGS)
{
    REQUIRE(fcinfo, "id", "key");
    return get_metadata(open_id(fcinfo), fcinfo);
}

/*
 * pg_llm_megatron_order(x, n_head, version_2): the rows of Megatron-LM's fused query_key_value as [q; k; v]; see
 * llm_megatron_row. x has 3 * n_head * d_head rows.
 */
PG_FUNCTION_INFO_V1(pg_llm_megatron_order);
Datum
pg_llm_megatron_order(PG_FUNCTION_ARGS)
{
    Tensor *x = PG_GETARG_TENSOR(0), *out;
    int32   n_head = PG_GETARG_INT32(1);
    bool    version_2 = PG_GETARG_BOOL(2);
    size_t  rows, width;

    if (n_head < 1 || x->ndim < 1 || x->dims[0] % 3 != 0 || x->dims[0] / 3 % n_head != 0 || x->n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("queries, keys and values of %d heads cannot have shape %s", n_head,
                       tensor_shape_text(x->ndim, x->dims)));
    rows = (size_t) x->dims[0];
    width = x->n / rows;
    out = tensor_new(x->ndim, x->dims);
    for (size_t row = 0; row < rows; row++)
        memcpy(out->data + row * width,
               x->data + llm_megatron_row(row, (uint64) n_head, rows / 3 / (uint64) n_head, version_2) * width,
               width * sizeof(float));
    PG_RETURN_TENSOR(out);
}
