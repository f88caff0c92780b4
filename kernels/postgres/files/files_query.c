/*
 * files_query.c -- what the queries of a file to be written give out, held against what is expected of them.
 *
 * SPI hands out datums without their types: an integer taken for a tensor is a pointer to anywhere. So columns are
 * compared with what they are taken for before a datum is looked at.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "files.h"
#include "tensor/tensor.h"

Oid
files_tensor_type(FunctionCallInfo fcinfo)
{
    Oid schema = get_func_namespace(fcinfo->flinfo->fn_oid);
    Oid type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("tensor"), ObjectIdGetDatum(schema));

    if (!OidIsValid(type))
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT),
                errmsg("type %s.tensor does not exist", get_namespace_name(schema)));
    return type;
}

void
files_check_columns(TupleDesc description, const char *query, int n, const FilesColumn *columns)
{
    if (description->natts != n)
        ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
                errmsg("the query of %s gives %d columns, not %d", query, description->natts, n));
    for (int i = 0; i < n; i++)
    {
        Oid found = TupleDescAttr(description, i)->atttypid, base = getBaseType(found);

        /* Domains over the type are stored as it is, and varchar as text. */
        if (base != columns[i].type && !(base == VARCHAROID && columns[i].type == TEXTOID))
            ereport(ERROR, errcode(ERRCODE_DATATYPE_MISMATCH),
                    errmsg("column %d (%s) of the query of %s has type %s, not %s", i + 1, columns[i].name, query,
                           format_type_be(found), format_type_be(columns[i].type)));
    }
}

Portal
files_open_query(const char *query, Datum argument, const char *what, int n, const FilesColumn *columns)
{
    Oid type = TEXTOID;
    /* read_only: queries see the snapshot of the statement that called, all the same, and write nothing. */
    Portal portal = SPI_cursor_open_with_args(NULL, query, 1, &type, &argument, NULL, true, 0);

    files_check_columns(portal->tupDesc, what, n, columns);
    return portal;
}

static llm_dtype
dtype_named(const char *dtype, const char *tensor)
{
    if (strcmp(dtype, "F32") == 0)
        return LLM_DTYPE_F32;
    if (strcmp(dtype, "BF16") == 0)
        return LLM_DTYPE_BF16;
    if (strcmp(dtype, "U8") == 0)
        return LLM_DTYPE_U8;
    ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
            errmsg("tensor \"%s\" has the unknown type \"%s\"", tensor, dtype), errhint("Types are F32, BF16 and U8."));
}

/* One row of the tensors' query: name text, dtype text, shape int[]. */
static llm_weights_entry
entry_of(HeapTuple row, TupleDesc description, MemoryContext cx)
{
    llm_weights_entry e = {0};
    MemoryContext     old = MemoryContextSwitchTo(cx);
    char             *name = SPI_getvalue(row, description, 1), *dtype = SPI_getvalue(row, description, 2);
    bool              null;
    Datum             shape = SPI_getbinval(row, description, 3, &null);
    IntArray          dims;

    if (name == NULL || dtype == NULL || null)
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                errmsg("a tensor's name, type and shape cannot be NULL"));
    dims = tensor_int_array(shape, "shape");
    if (dims.ndim != 1)
        ereport(ERROR, errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
                errmsg("the shape of tensor \"%s\" has %d dimensions, not one", name, dims.ndim));
    if (dims.n > LLM_WEIGHTS_MAX_NDIM)
        ereport(ERROR, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                errmsg("tensor \"%s\" has %zu dimensions", name, dims.n));
    e.name = files_to_utf8(name);
    e.dtype = dtype_named(dtype, name);
    e.ndim = (int) dims.n;
    for (int k = 0; k < e.ndim; k++)
    {
        if (dims.values[k] < 0)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("the shape of tensor \"%s\" has the negative size %d", name, dims.values[k]));
        e.dims[k] = (uint64) dims.values[k];
    }
    MemoryContextSwitchTo(old);
    return e;
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Ensures that no two tensors have one name. */
static void
check_names(const llm_weights_entry *entries, size_t n)
{
    const char **names = palloc_extended((n + 1) * sizeof(char *), MCXT_ALLOC_HUGE);

    for (size_t i = 0; i < n; i++)
        names[i] = entries[i].name;
    qsort(names, n, sizeof(char *), by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("tensor \"%s\" is listed twice", files_from_utf8(names[i])));
    pfree(names);
}

llm_weights_entry *
files_read_entries(const char *query, Datum argument, size_t *n)
{
    static const FilesColumn columns[] = {{"name", TEXTOID}, {"dtype", TEXTOID}, {"shape", INT4ARRAYOID}};
    MemoryContext            cx = CurrentMemoryContext;
    Portal                   portal = files_open_query(query, argument, "tensors", lengthof(columns), columns);
    llm_weights_entry       *entries = palloc(sizeof(llm_weights_entry));

    *n = 0;
    for (;;)
    {
        SPI_cursor_fetch(portal, true, 1000);
        if (SPI_processed == 0)
            break;
        entries = repalloc_huge(entries, (*n + SPI_processed) * sizeof(llm_weights_entry));
        for (uint64 i = 0; i < SPI_processed; i++)
            entries[(*n)++] = entry_of(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, cx);
        SPI_freetuptable(SPI_tuptable);
    }
    SPI_cursor_close(portal);
    check_names(entries, *n);
    return entries;
}

llm_weights_pair *
files_metadata(Datum text_array, size_t *n)
{
    Datum            *elements;
    bool             *nulls;
    int               count;
    llm_weights_pair *pairs;

    deconstruct_array(DatumGetArrayTypeP(text_array), TEXTOID, -1, false, 'i', &elements, &nulls, &count);
    pairs = palloc0((count / 2 + 1) * sizeof(llm_weights_pair));
    for (int i = 0; i < count; i++)
        if (nulls[i] || count % 2 != 0)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("metadata must be pairs of key and value"));
    for (int i = 0; i < count / 2; i++)
    {
        pairs[i].key = files_to_utf8(TextDatumGetCString(elements[2 * i]));
        pairs[i].value = files_to_utf8(TextDatumGetCString(elements[2 * i + 1]));
    }
    *n = count / 2;
    return pairs;
}
