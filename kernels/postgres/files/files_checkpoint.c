/*
 * files_checkpoint.c -- checkpoints: the row a file is reached by, and saving.
 *
 * Who may call these functions is decided by EXECUTE on them, which provisioning grants. No path and no query is taken
 * from the caller: files are named here, what goes into them is fixed, and one is read through the row of
 * llm_checkpoint that the caller sees and that knows the file's hash.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "files.h"

/* ---- the row that a file is reached by ---- */

typedef struct CheckpointRow
{
    int64 id;
    char *model; /* as the file has it: a model may have been renamed since */
    char *name;
    int64 bytes;
    char *sha256;
} CheckpointRow;

static CheckpointRow
find_row(int64 id)
{
    static const FilesColumn columns[] = {{"model", TEXTOID},
                                          {"file_path", TEXTOID},
                                          {"bytes", INT8OID},
                                          {"sha256", TEXTOID}};
    Oid                      type = INT8OID;
    Datum                    argument = Int64GetDatum(id);
    CheckpointRow            row = {id};
    MemoryContext            cx = CurrentMemoryContext;
    bool                     null;

    SPI_connect();
    if (SPI_execute_with_args(
            "SELECT COALESCE(c.saved_as, c.model), c.file_path, c.bytes, c.sha256 FROM public.llm_checkpoint c"
            " WHERE c.id OPERATOR(pg_catalog.=) $1",
            1, &type, &argument, NULL, true, 1) != SPI_OK_SELECT)
        elog(ERROR, "could not read llm_checkpoint");
    if (SPI_processed == 0)
        ereport(ERROR, errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("checkpoint " INT64_FORMAT " does not exist", id),
                errhint("llm_checkpoint lists the checkpoints."));
    files_check_columns(SPI_tuptable->tupdesc, "llm_checkpoint", lengthof(columns), columns);
    row.model = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
    row.name = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
    row.bytes = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &null));
    row.sha256 = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4);
    if (row.model == NULL || row.name == NULL || null || row.sha256 == NULL)
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                errmsg("the row of checkpoint " INT64_FORMAT " lacks its model, file, size or hash", id));
    row.model = MemoryContextStrdup(cx, row.model);
    row.name = MemoryContextStrdup(cx, row.name);
    row.sha256 = MemoryContextStrdup(cx, row.sha256);
    SPI_finish();
    return row;
}

static void __attribute__((noreturn))
file_is_not_here(const CheckpointRow *row)
{
    ereport(
        ERROR, errcode(ERRCODE_UNDEFINED_FILE),
        errmsg("the file of checkpoint " INT64_FORMAT " is not on this server: \"%s\"", row->id, row->name),
        errhint("Checkpoint files stay on the server that wrote them: replication, pg_dump, pg_upgrade and cloning a "
                "database do not copy them. Copy the file into the folder %s below pg_llm.checkpoint_dir (\"%s\") and "
                "correct file_path, or save again; see docs/operate/backup.md.",
                files_database_folder(MyDatabaseId), pg_llm_checkpoint_dir));
}

/* The file, in whichever directory it was written to */
static char *
find_file(const CheckpointRow *row)
{
    int    n;
    char **dirs;

    if (files_checkpoint_name_foreign(row->name))
        file_is_not_here(row);
    if (!files_checkpoint_name_ok(row->name))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("\"%s\" does not name a checkpoint file of this database", row->name),
                errhint("A checkpoint's file must be in the folder %s.", files_database_folder(MyDatabaseId)));
    dirs = files_checkpoint_dirs(&n);
    for (int i = 0; i < n; i++)
    {
        char       *path = psprintf("%s/%s", dirs[i], row->name);
        struct stat about;

        if (lstat(path, &about) == 0)
        {
            if (!S_ISREG(about.st_mode))
                ereport(ERROR, errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a regular file", path));
            return path;
        }
        /* A directory that is no longer reached does not hide the others. */
        if (i == 0 && errno != ENOENT && errno != ENOTDIR)
            ereport(ERROR, files_errcode(), errmsg("could not open file \"%s\": %m", path));
    }
    file_is_not_here(row);
}

llm_weights *
files_open_checkpoint(int64 id)
{
    CheckpointRow row = find_row(id);
    llm_weights  *w = files_open_verified(find_file(&row), psprintf("checkpoint " INT64_FORMAT, id), row.bytes,
                                          row.sha256);
    const char   *model = llm_weights_metadata(w, "model"), *format = llm_weights_metadata(w, "llm_sql");

    if (model == NULL || format == NULL || strcmp(format, "checkpoint 1") != 0 ||
        strcmp(model, files_to_utf8(row.model)) != 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("the file of checkpoint " INT64_FORMAT " is not a checkpoint of model \"%s\"", id, row.model));
    return w;
}

/* ---- saving ---- */

/*
 * A name that nobody can guess: the transaction, by which removal knows whether the writer is still at work, a random
 * number, and for people the model and its step.
 */
static char *
new_name(const char *model, const llm_weights_pair *metadata, size_t n)
{
    uint64 number;
    char   plain[81], step[24] = "";
    size_t length = Min(strlen(model), sizeof(plain) - 1);

    if (!pg_strong_random(&number, sizeof(number)))
        ereport(ERROR, errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random number"));
    for (size_t i = 0; i < length; i++)
        plain[i] = files_plain_character(model[i]) ? model[i] : '_';
    plain[length] = '\0';
    for (size_t i = 0; i < n; i++)
        if (strcmp(metadata[i].key, "step") == 0)
            strlcpy(step, metadata[i].value, Min(sizeof(step), strspn(metadata[i].value, "0123456789") + 1));
    return psprintf("%s/" UINT64_FORMAT "-%016llx-%s-step%s.safetensors", files_database_folder(MyDatabaseId),
                    U64FromFullTransactionId(GetTopFullTransactionId()), (unsigned long long) number, plain, step);
}

/* What stands in a checkpoint's header */
static llm_weights_pair *
read_metadata(Datum model, size_t *n)
{
    static const FilesColumn columns[] = {{"metadata", TEXTARRAYOID}};
    MemoryContext            cx = CurrentMemoryContext, spi;
    llm_weights_pair        *pairs;
    Portal                   portal;
    Datum                    metadata;
    bool                     null;

    SPI_connect();
    portal = files_open_query("SELECT public.llm_checkpoint_metadata($1)", model, "metadata", lengthof(columns),
                              columns);
    SPI_cursor_fetch(portal, true, 1);
    if (SPI_processed != 1)
        elog(ERROR, "llm_checkpoint_metadata returned no row");
    metadata = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null);
    if (null)
        ereport(ERROR, errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a checkpoint needs metadata"));
    spi = MemoryContextSwitchTo(cx);
    pairs = files_metadata(metadata, n);
    MemoryContextSwitchTo(spi);
    SPI_cursor_close(portal);
    SPI_finish();
    return pairs;
}

/* pg_llm_checkpoint_write(model) -> (file, bytes, sha256): the file goes unless the transaction commits */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_write);
Datum
pg_llm_checkpoint_write(PG_FUNCTION_ARGS)
{
    FilesToWrite what = {0};
    char         hex[2 * PG_SHA256_DIGEST_LENGTH + 1], *name;
    TupleDesc    description;
    Datum        values[3];
    bool         nulls[3] = {0};

    files_require_argument(fcinfo, 0, "model");
    PreventCommandIfReadOnly("pg_llm_checkpoint_write()");
    if (get_call_result_type(fcinfo, NULL, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    what.format = LLM_SAFETENSORS;
    what.argument = PG_GETARG_DATUM(0);
    what.tensors_query = "SELECT t.name, t.dtype, t.shape FROM public.llm_checkpoint_tensors($1) t";
    what.data_query = "SELECT d.data, d.bytes FROM public.llm_checkpoint_data($1) d";
    what.metadata = read_metadata(what.argument, &what.n_metadata);
    what.checkpoint = true;
    what.tensor_type = files_tensor_type(fcinfo);
    name = new_name(text_to_cstring(PG_GETARG_TEXT_PP(0)), what.metadata, what.n_metadata);
    what.path = psprintf("%s/%s", pg_llm_checkpoint_dir, name);
    (void) files_make_checkpoint_folder();
    values[1] = Int64GetDatum(files_write(&what, hex));
    values[0] = CStringGetTextDatum(name);
    values[2] = CStringGetTextDatum(hex);
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(description), values, nulls)));
}

/* pg_llm_checkpoint_name(file): the file in the folder of this database. */
PG_FUNCTION_INFO_V1(pg_llm_checkpoint_name);
Datum
pg_llm_checkpoint_name(PG_FUNCTION_ARGS)
{
    files_require_argument(fcinfo, 0, "file");
    PG_RETURN_TEXT_P(
        cstring_to_text(psprintf("%s/%s", files_database_folder(MyDatabaseId), text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}
