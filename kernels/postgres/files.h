/*
 * files.h -- weight files on the server: who may reach which, and what ends with a transaction (files.c,
 * files_write.c, files_checkpoint.c).
 */
#ifndef PG_LLM_FILES_H
#define PG_LLM_FILES_H

#include "postgres.h"

#include "weights.h"

extern char *pg_llm_checkpoint_dir;     /* setting */

extern void files_init(void);           /* setting and callbacks; called once by session_init */
/*
 * The path to open for reading or writing. With `checkpoint`, `name` is FOLDER/FILE below the checkpoint
 * directory, FOLDER being this database's, and llm_trainer suffices; else it is absolute and takes pg_read_server_files or pg_write_server_files.
 */
extern char *files_path(const char *name, bool checkpoint, bool write);
/* The checkpoint folder of this database: its name, its path; whether FOLDER/FILE names a file in it. */
extern char *files_database_folder(void);
extern char *files_checkpoint_folder(void);
extern bool files_checkpoint_name_ok(const char *name);
/* Forgets the file that was read last. */
extern void files_close(void);
/* Removes a file when the running (sub)transaction commits, or when it does not. */
extern void files_remove_at_end(const char *path, bool at_commit);
/* A pending cancel or shutdown, for callbacks that must not throw. */
extern bool files_should_stop(void);
/* For ereport: before PostgreSQL 18 a name that the system finds too long was an internal error. */
static inline int
files_errcode(void)
{
    return errno == ENAMETOOLONG ? errcode(ERRCODE_NAME_TOO_LONG) : errcode_for_file_access();
}
/* ereport for a status of weights.h; never returns. */
extern void files_fail(const char *path, llm_weights_status status, const char *error, int read_errno)
    __attribute__((noreturn));

#endif
