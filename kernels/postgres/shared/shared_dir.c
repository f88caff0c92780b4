/*
 * shared_dir.c -- where shared files lie, their names, and which of them go.
 *
 *   pgsql_tmp_llm.PLACE.DATABASE.MODEL.VERSION.f32[.PID.tmp]
 *
 * In base/pgsql_tmp PostgreSQL removes what begins with pgsql_tmp as it starts and after a crash, and leaves it out of base
 * backups. In another directory the next file that is written removes what an earlier start has left. PLACE tells servers
 * apart that share a directory, a server and a copy of it, which has the same system identifier, included: a name that
 * does not begin with it is not touched.
 */
#include "postgres.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "common/file_perm.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "core/engine/memory.h"
#include "shared.h"

#define PREFIX        "pgsql_tmp_llm"
#define KEPT_VERSIONS 2 /* of a model: a reader's that began before a write, and the new one */

static char *pg_llm_shared_dir = NULL;
static int   pg_llm_shared_size_mb = -1;
int          pg_llm_shared_age_ms = 10000;

static bool
check_directory(char **value, void **extra, GucSource source)
{
    (void) extra;
    (void) source;
    if (strlen(*value) < MAXPGPATH - 256)
        return true;
    GUC_check_errdetail("A directory's name can have at most %d bytes.", MAXPGPATH - 257);
    return false;
}

void
shared_init(void)
{
    DefineCustomStringVariable("pg_llm.shared_dir", "Directory of the weights that all sessions share.",
                               "Relative to the data directory. Empty: each session keeps a copy of its own.",
                               &pg_llm_shared_dir, "base/pgsql_tmp", PGC_SUSET, 0, check_directory, NULL, NULL);
    DefineCustomIntVariable("pg_llm.shared_size", "What the files in pg_llm.shared_dir may take.",
                            "The least recently used go; -1 means a quarter of the memory of the machine or container.",
                            &pg_llm_shared_size_mb, -1, -1, INT_MAX, PGC_SUSET, GUC_UNIT_MB, NULL, NULL, NULL);
    DefineCustomIntVariable("pg_llm.shared_age", "How old a version of weights must be to be shared.",
                            "Spares a training that commits often a file per commit. It is also how long a session "
                            "waits after sharing has failed.",
                            &pg_llm_shared_age_ms, 10000, 0, INT_MAX, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
}

bool
shared_enabled(void)
{
    return pg_llm_shared_dir != NULL && pg_llm_shared_dir[0] != '\0';
}

const char *
shared_directory(void)
{
    return pg_llm_shared_dir;
}

size_t
shared_limit(void)
{
    size_t total;

    if (pg_llm_shared_size_mb >= 0)
        return (size_t) pg_llm_shared_size_mb << 20;
    total = llm_memory_total();
    return total != SIZE_MAX ? total / 4 : (size_t) 1 << 30;
}

uint64
shared_place(void)
{
    static uint64 place = 0;
    struct stat   about;

    if (place == 0 && stat(DataDir, &about) == 0)
    {
        uint64 parts[3] = {GetSystemIdentifier(), (uint64) about.st_dev, (uint64) about.st_ino};
        uint64 path = hash_bytes_extended((const unsigned char *) DataDir, (int) strlen(DataDir), 0);

        place = hash_bytes_extended((const unsigned char *) parts, sizeof(parts), path) | 1;
    }
    return place;
}

/* ---- names ---- */

static const char *
suffix(llm_precision precision)
{
    return precision == LLM_FLOAT32 ? "f32" : llm_precision_name(precision);
}

char *
shared_path(const SharedRows *rows, llm_precision precision)
{
    char hex[2 * SHARED_VERSION_BYTES + 1];

    for (int i = 0; i < SHARED_VERSION_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", rows->version[i]);
    return psprintf("%s/" PREFIX ".%016" PRIx64 ".%u.%016" PRIx64 ".%s.%s", pg_llm_shared_dir, shared_place(),
                    MyDatabaseId, rows->model_hash, hex, suffix(precision));
}

/* Takes a number of the base and a full stop off the front of a name. */
static bool
take_number(const char **name, int base, uint64 *number)
{
    char *end;

    if (strchr(base == 16 ? "0123456789abcdef" : "0123456789", **name) == NULL || **name == '\0')
        return false;
    errno = 0;
    *number = strtou64(*name, &end, base);
    if (errno != 0 || *end != '.')
        return false;
    *name = end + 1;
    return true;
}

static bool
parse_name(const char *name, SharedEntry *entry)
{
    uint64 place, database;
    size_t n;

    if (strncmp(name, PREFIX ".", strlen(PREFIX) + 1) != 0)
        return false;
    name += strlen(PREFIX) + 1;
    if (!take_number(&name, 16, &place) || place != shared_place() || !take_number(&name, 10, &database) ||
        !take_number(&name, 16, &entry->model_hash))
        return false;
    n = strspn(name, "0123456789abcdef");
    if (n != 2 * SHARED_VERSION_BYTES || name[n] != '.')
        return false;
    memcpy(entry->version, name, n);
    entry->version[n] = '\0';
    entry->float32 = strcmp(name + n + 1, suffix(LLM_FLOAT32)) == 0;
    entry->database = (Oid) database;
    n = strlen(name);
    entry->temporary = n > 4 && strcmp(name + n - 4, ".tmp") == 0;
    return true;
}

/* ---- the directory ---- */

bool
shared_make_directory(void)
{
    struct stat about;

    if (stat(pg_llm_shared_dir, &about) == 0)
    {
        errno = ENOTDIR;
        return S_ISDIR(about.st_mode);
    }
    return errno == ENOENT && (MakePGDirectory(pg_llm_shared_dir) == 0 || errno == EEXIST);
}

static bool
same_version(const SharedEntry *a, const SharedEntry *b)
{
    return a->database == b->database && a->model_hash == b->model_hash && strcmp(a->version, b->version) == 0;
}

/* Callbacks ask, too: nothing here throws. */
SharedEntry *
shared_entries(int *n)
{
    DIR           *dir = shared_enabled() && shared_place() != 0 ? opendir(pg_llm_shared_dir) : NULL;
    SharedEntry   *entries = NULL;
    int            room = 0;
    struct dirent *file;

    *n = 0;
    if (dir == NULL)
        return NULL;
    while ((file = readdir(dir)) != NULL)
    {
        SharedEntry entry;

        if (!parse_name(file->d_name, &entry))
            continue;
        snprintf(entry.path, sizeof(entry.path), "%s/%s", pg_llm_shared_dir, file->d_name);
        if (lstat(entry.path, &entry.about) != 0 || !S_ISREG(entry.about.st_mode))
            continue;
        if (*n == room)
        {
            SharedEntry *larger = palloc_extended(sizeof(SharedEntry) * (size_t) (room + 64),
                                                  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);

            if (larger == NULL)
                break;
            if (entries != NULL)
            {
                memcpy(larger, entries, sizeof(SharedEntry) * (size_t) *n);
                pfree(entries);
            }
            entries = larger;
            room += 64;
        }
        entries[(*n)++] = entry;
    }
    closedir(dir);
    return entries;
}

static int64
remove_entry(SharedEntry *entry)
{
    int64 bytes = (int64) entry->about.st_blocks * 512;

    if (unlink(entry->path) != 0)
        bytes = 0;
    entry->path[0] = '\0'; /* gone, for whoever goes on */
    return bytes;
}

int64
shared_unlink_model(uint64 model_hash)
{
    int          n;
    SharedEntry *entries = shared_entries(&n);
    int64        bytes = 0;

    for (int i = 0; i < n; i++)
        if (entries[i].database == MyDatabaseId && entries[i].model_hash == model_hash && !entries[i].temporary)
            bytes += remove_entry(&entries[i]);
    return bytes;
}

/* ---- what goes ---- */

static int64
nanoseconds(const struct timespec *t)
{
    return (int64) t->tv_sec * 1000000000 + t->tv_nsec;
}

#ifdef __APPLE__
#define st_mtim st_mtimespec
#define st_atim st_atimespec
#endif

static int
newest_first(const void *a, const void *b)
{
    int64 x = nanoseconds(&((const SharedEntry *) a)->about.st_mtim);
    int64 y = nanoseconds(&((const SharedEntry *) b)->about.st_mtim);

    return x > y ? -1 : x < y;
}

/* What a crash or an earlier start has left, or a database that was dropped. */
static bool
left_over(const SharedEntry *entry, uint64 model_hash)
{
    /* The server's start in nanoseconds of Unix time */
    int64 started = (PgStartTime + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) * 1000;

    if (nanoseconds(&entry->about.st_mtim) < started)
        return true;
    if (entry->database != MyDatabaseId)
        return !SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(entry->database));
    /* Only who has the lock on a model writes its files, and that is us. */
    return entry->temporary && entry->model_hash == model_hash;
}

/* The versions of the model but for the newest, of which `keep` is one */
static void
remove_outdated(SharedEntry *entries, int n, uint64 model_hash, const char *keep)
{
    const char *versions[KEPT_VERSIONS];
    int         n_versions = 0;

    qsort(entries, n, sizeof(SharedEntry), newest_first);
    for (int i = 0; i < n && n_versions == 0; i++)
        if (strcmp(entries[i].path, keep) == 0)
            versions[n_versions++] = entries[i].version;
    for (int i = 0; i < n; i++)
    {
        SharedEntry *entry = &entries[i];
        bool         kept = false;

        if (entry->path[0] == '\0' || entry->database != MyDatabaseId || entry->model_hash != model_hash)
            continue;
        for (int k = 0; k < n_versions && !kept; k++)
            kept = strcmp(versions[k], entry->version) == 0;
        if (!kept && n_versions < KEPT_VERSIONS)
        {
            versions[n_versions++] = entry->version;
            kept = true;
        }
        if (!kept)
            (void) remove_entry(entry);
    }
}

/* Until the rest fits: the version that was used least recently, its files in fewer bits first. `keep`'s stays. */
static void
remove_above_limit(SharedEntry *entries, int n, const char *keep)
{
    const SharedEntry *kept = NULL;
    const size_t       limit = shared_limit();

    for (int i = 0; i < n && kept == NULL; i++)
        if (strcmp(entries[i].path, keep) == 0)
            kept = &entries[i];
    for (;;)
    {
        SharedEntry *oldest = NULL;
        int64        bytes = 0, oldest_use = 0;

        for (int i = 0; i < n; i++)
        {
            SharedEntry *entry = &entries[i];
            int64        use = Max(nanoseconds(&entry->about.st_atim), nanoseconds(&entry->about.st_mtim));

            if (entry->path[0] == '\0')
                continue;
            bytes += (int64) entry->about.st_blocks * 512;
            /* float32 is what the others of its version are read with: as young as they are */
            for (int k = 0; k < n && entry->float32; k++)
                if (entries[k].path[0] != '\0' && same_version(entry, &entries[k]))
                    use = Max(use,
                              Max(nanoseconds(&entries[k].about.st_atim), nanoseconds(&entries[k].about.st_mtim)) + 1);
            if (entry == kept || entry->temporary || (kept != NULL && entry->float32 && same_version(entry, kept)))
                continue;
            if (oldest == NULL || use < oldest_use)
            {
                oldest = entry;
                oldest_use = use;
            }
        }
        if (oldest == NULL || (uint64) bytes <= limit)
            break;
        (void) remove_entry(oldest);
    }
}

/*
 * Two models that do not fit beside each other would be written again with every change between them, and their sessions
 * would never have a mapping for long.
 */
size_t
shared_in_use(uint64 model_hash)
{
    struct timespec now;
    size_t          bytes = 0;
    int             n = 0;
    SharedEntry    *entries = pg_llm_shared_age_ms == 0 ? NULL : shared_entries(&n);

    if (entries == NULL || clock_gettime(CLOCK_REALTIME, &now) != 0)
        return 0;
    for (int i = 0; i < n; i++)
    {
        const struct stat *about = &entries[i].about;
        int64              use = Max(nanoseconds(&about->st_atim), nanoseconds(&about->st_mtim));

        if ((entries[i].database != MyDatabaseId || entries[i].model_hash != model_hash) && !entries[i].temporary &&
            use >= nanoseconds(&now) - (int64) pg_llm_shared_age_ms * 1000000 && !left_over(&entries[i], model_hash))
            bytes += (size_t) about->st_blocks * 512;
    }
    pfree(entries);
    return bytes;
}

void
shared_trim(uint64 model_hash, const char *keep)
{
    int          n;
    SharedEntry *entries = shared_entries(&n);

    for (int i = 0; i < n; i++)
        if (strcmp(entries[i].path, keep) != 0 && left_over(&entries[i], model_hash))
            (void) remove_entry(&entries[i]);
    remove_outdated(entries, n, model_hash, keep);
    remove_above_limit(entries, n, keep);
    if (entries != NULL)
        pfree(entries);
}

/* ---- what a user is told ---- */

void
shared_notice(int error, const char *what)
{
    static bool told[256];

    if (told[error & 255])
        return;
    told[error & 255] = true;
    errno = error;
    ereport(NOTICE,
            error == 0 ? errmsg("weights are not shared between sessions: %s", what)
                       : errmsg("weights are not shared between sessions: could not %s in directory \"%s\": %m", what,
                                pg_llm_shared_dir),
            errdetail("This session keeps a copy of its own."),
            errhint("See the settings pg_llm.shared_dir and pg_llm.shared_size."));
}
