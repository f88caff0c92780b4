/*
 * files.h -- weight files on the server.
 *
 *   files.c             who may reach which path; the file that is open
 *   files_read.c        what is in it, as SQL functions
 *   files_write.c       writing one, atomically
 *   files_query.c       what the queries of a file to be written give out, held against what is expected
 *   files_dirs.c        where checkpoints lie
 *   files_checkpoint.c  the row a checkpoint is reached by, saving
 *   files_end.c         what is removed when a transaction ends
 *   files_sweep.c       checkpoints that no row names, folders of dropped databases
 */
#ifndef PG_LLM_FILES_H
#define PG_LLM_FILES_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "access/xact.h"
#include "fmgr.h"
#include "utils/portal.h"

#include "core/formats/weights.h"

/* ---- paths and the open file (files.c) ---- */

/*
 * The path to open for reading or writing, for roles with the privileges of pg_read_server_files or
 * pg_write_server_files. `name` is absolute; with `checkpoint` it is FOLDER/FILE below the checkpoint directory,
 * FOLDER being this database's.
 */
extern char *files_path(const char *name, bool checkpoint, bool write);
/* The file, parsed; from memory when it is the one used last and has not changed. */
extern llm_weights *files_open(const char *path, int64 max_bytes);
/* The same, after its size and SHA-256 were found to be these; `what` names it in errors. */
extern llm_weights *files_open_verified(const char *path, const char *what, int64 bytes, const char *sha256);
/* The path, and what read() failed with, of the file that is open. */
extern const char *files_current_path(void);
extern int         files_current_errno(void);
/* Size and SHA-256 in hexadecimal of a whole file. */
extern int64 files_sha256(const char *path, char *hex);
/* Forgets the file that was read last. */
extern void files_close(void);
/* A pending cancel or shutdown, for callbacks that must not throw. */
extern bool files_should_stop(void);
/* Argument i, by its name, is not NULL: 22004 otherwise. */
extern void files_require_argument(FunctionCallInfo fcinfo, int i, const char *name);
/* Text of a file, which is UTF-8, and of this database. */
extern char *files_to_utf8(const char *s);
extern char *files_from_utf8(const char *s);
/* For ereport: before PostgreSQL 18 a name that the system finds too long was an internal error. */
static inline int
files_errcode(void)
{
    return errno == ENAMETOOLONG ? errcode(ERRCODE_NAME_TOO_LONG) : errcode_for_file_access();
}
/* ereport for a status of weights.h; never returns. */
extern void files_fail(const char *path, llm_weights_status status, const char *error, int read_errno)
    __attribute__((noreturn));

/* ---- queries (files_query.c) ---- */

typedef struct FilesColumn
{
    const char *name;
    Oid         type;
} FilesColumn;

/* The type tensor of the schema that the running function lies in. */
extern Oid files_tensor_type(FunctionCallInfo fcinfo);
/* The query gives these columns, by position; domains over the types are fine. 42804 names what differs. */
extern void files_check_columns(TupleDesc description, const char *query, int n, const FilesColumn *columns);
/* A query over $1 = argument, a text, that gives these columns; it sees the caller's snapshot and writes nothing. */
extern Portal files_open_query(const char *query, Datum argument, const char *what, int n, const FilesColumn *columns);
/* The tensors that a query of (name text, dtype text, shape int[]) lists, in its order. */
extern llm_weights_entry *files_read_entries(const char *query, Datum argument, size_t *n);
/* Pairs of a text[]: key, value, key, value, ... */
extern llm_weights_pair *files_metadata(Datum text_array, size_t *n);

/* ---- writing (files_write.c) ---- */

/* A file to be written: two queries over $1 = argument give its tensors and what is in them. */
typedef struct FilesToWrite
{
    const char             *path;
    llm_weights_format      format;
    const char             *tensors_query;
    const char             *data_query;
    Datum                   argument; /* text */
    const llm_weights_pair *metadata;
    size_t                  n_metadata;
    bool checkpoint; /* never replaces a file, belongs to the server, goes unless the transaction commits */
    Oid  tensor_type;
} FilesToWrite;

/* Writes it; its size, and its SHA-256 in hexadecimal. */
extern int64 files_write(const FilesToWrite *what, char *hex);
/* A temporary file that a crash left is removed; one that is being written stays. */
extern bool files_remove_abandoned(const char *path);

/* ---- where checkpoints lie (files_dirs.c) ---- */

extern char *pg_llm_checkpoint_dir; /* setting */

extern void files_dirs_init(void); /* the setting; called once by _PG_init */
/* The folder of a database of this cluster: its name. */
extern char *files_database_folder(Oid database);
/* FOLDER/FILE names a file in the folder of this database; of another database or cluster. */
extern bool files_checkpoint_name_ok(const char *name);
extern bool files_checkpoint_name_foreign(const char *name);
/* A letter, digit, underscore or minus of ASCII */
extern bool files_plain_character(char c);
/* Every directory that checkpoints of this server were written to, the present setting's first. */
extern char **files_checkpoint_dirs(int *n);
/* Makes this database's folder in the present directory, durably, and returns its path. */
extern char *files_make_checkpoint_folder(void);

/* ---- checkpoints (files_checkpoint.c) ---- */

/* The file of the checkpoint whose row the caller sees, held against the row's hash. */
extern llm_weights *files_open_checkpoint(int64 id);

/* ---- what ends with a transaction (files_end.c) ---- */

/* event: COMMIT, ABORT or PREPARE; neither throws */
extern void files_end_xact(XactEvent event);
extern void files_end_subxact(bool commit);
/* Removes a file when the running (sub)transaction commits, or when it does not. */
extern void files_remove_at_end(const char *path, bool at_commit);
/* Of a file that this transaction wrote: whether a row has named it since. NULL of others. */
extern bool *files_written_here(const char *path);

#endif
