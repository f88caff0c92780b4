/*
 * files_dirs.c -- where checkpoints lie: pg_llm.checkpoint_dir, the directories it was before, folders and names.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "files.h"

/* In the data directory: the directories checkpoints were written to, one a line */
#define DIRS_FILE "pg_llm_checkpoint_dirs"
#define MAX_DIRS  1000

char *pg_llm_checkpoint_dir = NULL;

/* ---- names ---- */

/* Clusters and databases that share a checkpoint directory do not touch each other's files. */
char *
files_database_folder(Oid database)
{
    return psprintf(UINT64_FORMAT "-%u", GetSystemIdentifier(), database);
}

bool
files_plain_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* With nothing in it that could lead elsewhere */
bool
files_checkpoint_name_ok(const char *name)
{
    char  *folder = psprintf("%s/", files_database_folder(MyDatabaseId));
    size_t n = strlen(folder);

    if (strncmp(name, folder, n) != 0 || name[n] == '\0' || name[n] == '.' || strlen(name) > 250)
        return false;
    for (const char *c = name + n; *c != '\0'; c++)
        if (!files_plain_character(*c) && *c != '.')
            return false;
    return true;
}

bool
files_checkpoint_name_foreign(const char *name)
{
    size_t system = strspn(name, "0123456789"), database;

    if (system == 0 || name[system] != '-')
        return false;
    database = strspn(name + system + 1, "0123456789");
    return database > 0 && name[system + 1 + database] == '/' && strchr(name + system + database + 2, '/') == NULL &&
           !files_checkpoint_name_ok(name);
}

/* ---- directories ---- */

static bool
listed(char **dirs, int n, const char *dir)
{
    for (int i = 0; i < n; i++)
        if (strcmp(dirs[i], dir) == 0)
            return true;
    return false;
}

/* `first`, which may be NULL, and what DIRS_FILE lists beside it */
static char **
read_dirs(char *first, int *n)
{
    char **dirs = palloc(MAX_DIRS * sizeof(char *));
    char   line[MAXPGPATH + 2];
    FILE  *file = AllocateFile(DIRS_FILE, "r");

    *n = 0;
    if (first != NULL)
        dirs[(*n)++] = first;
    if (file == NULL)
    {
        if (errno != ENOENT)
            ereport(ERROR, errcode_for_file_access(), errmsg("could not open file \"%s\": %m", DIRS_FILE));
        return dirs;
    }
    while (*n < MAX_DIRS && fgets(line, sizeof(line), file) != NULL)
    {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0' && strlen(line) < MAXPGPATH && !listed(dirs, *n, line))
            dirs[(*n)++] = pstrdup(line);
    }
    FreeFile(file);
    return dirs;
}

char **
files_checkpoint_dirs(int *n)
{
    return read_dirs(pg_llm_checkpoint_dir, n);
}

/*
 * Remembers the directory, so that what lies in it is found when the setting has changed. A line begins and ends
 * with a line feed: one that a crash cut short does not spoil the next.
 */
static void
note_dir(const char *dir)
{
    int    n, fd;
    char **dirs = read_dirs(NULL, &n), *line = psprintf("\n%s\n", dir);

    if (listed(dirs, n, dir))
        return;
    fd = OpenTransientFilePerm(DIRS_FILE, O_RDWR | O_CREAT | O_APPEND | PG_BINARY, pg_file_create_mode);
    if (fd < 0)
        ereport(ERROR, errcode_for_file_access(), errmsg("could not open file \"%s\": %m", DIRS_FILE));
    errno = 0;
    if (write(fd, line, strlen(line)) != (ssize_t) strlen(line) || pg_fsync(fd) != 0)
    {
        errno = errno != 0 ? errno : ENOSPC;
        ereport(ERROR, errcode_for_file_access(), errmsg("could not write file \"%s\": %m", DIRS_FILE));
    }
    (void) CloseTransientFile(fd);
    (void) fsync_fname_ext(".", true, false, ERROR);
}

/* Makes a directory, which is there after a crash. */
static void
make_folder(const char *path)
{
    char *parent = pstrdup(path);

    if (MakePGDirectory(path) != 0 && errno != EEXIST)
        ereport(ERROR, errcode_for_file_access(), errmsg("could not create directory \"%s\": %m", path),
                errhint("The server must be able to create pg_llm.checkpoint_dir, \"%s\", or to write to it.",
                        pg_llm_checkpoint_dir));
    get_parent_directory(parent);
    (void) fsync_fname_ext(parent[0] == '\0' ? "." : parent, true, true, ERROR);
}

char *
files_make_checkpoint_folder(void)
{
    char *folder = psprintf("%s/%s", pg_llm_checkpoint_dir, files_database_folder(MyDatabaseId));

    make_folder(pg_llm_checkpoint_dir);
    make_folder(folder);
    note_dir(pg_llm_checkpoint_dir);
    return folder;
}

/* ---- the setting ---- */

/* Whether a component of the path is a folder of ours, which holds one database's files and no others */
static bool
in_a_databases_folder(const char *path)
{
    for (const char *part = path; part != NULL && *part != '\0'; part = strchr(part, '/'))
    {
        size_t system, database;

        part += strspn(part, "/");
        system = strspn(part, "0123456789");
        database = part[system] == '-' ? strspn(part + system + 1, "0123456789") : 0;
        if (system >= 15 && database > 0 && strchr("/", part[system + 1 + database]) != NULL)
            return true;
    }
    return false;
}

/* PostgreSQL's own part of the data directory */
static bool
in_the_servers_files(const char *path)
{
    const char *inside = path;
    size_t      n = DataDir == NULL ? 0 : strlen(DataDir);

    if (is_absolute_path(path))
    {
        if (n == 0 || strncmp(path, DataDir, n) != 0 || (path[n] != '/' && path[n] != '\0'))
            return false;
        inside = path + n + strspn(path + n, "/");
    }
    n = strcspn(inside, "/");
    return n == 0 || (n == 1 && inside[0] == '.') || (n == 4 && strncmp(inside, "base", n) == 0) ||
           (n == 6 && strncmp(inside, "global", n) == 0) ||
           (strncmp(inside, "pg_", 3) == 0 && strncmp(inside, "pg_llm", 6) != 0);
}

static bool
check_dir(char **value, void **extra, GucSource source)
{
    (void) extra;
    (void) source;
    canonicalize_path(*value);
    if ((*value)[0] == '\0' || strpbrk(*value, "\n\r") != NULL || strlen(*value) > MAXPGPATH - 300)
    {
        GUC_check_errdetail("It must be a path of 1 to %d bytes without line breaks.", MAXPGPATH - 300);
        return false;
    }
    if (in_a_databases_folder(*value) || in_the_servers_files(*value))
    {
        GUC_check_errdetail("\"%s\" holds files of PostgreSQL itself or of a database.", *value);
        return false;
    }
    return true;
}

void
files_dirs_init(void)
{
    DefineCustomStringVariable(
        "pg_llm.checkpoint_dir", "Directory of the checkpoints that llm_trainer may write and read.",
        "Relative to the data directory; each database has a folder in it. Directories that were "
        "used before are remembered.",
        &pg_llm_checkpoint_dir, "pg_llm_checkpoints", PGC_SUSET, GUC_SUPERUSER_ONLY, check_dir, NULL, NULL);
}
