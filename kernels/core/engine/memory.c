/*
 * memory.c -- how much memory there is: the system's, and what control groups leave; and asking before taking much.
 */
#include "memory.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_ROOM 4096

static bool (*ask_room)(size_t bytes);

void llm_memory_set_room(bool (*room)(size_t bytes)) { ask_room = room; }

bool llm_memory_room(size_t bytes) { return bytes < LLM_MEMORY_ASK || ask_room == NULL || ask_room(bytes); }

void *llm_malloc(size_t bytes) { return llm_memory_room(bytes) ? malloc(bytes) : NULL; }

void *llm_realloc(void *p, size_t bytes) { return llm_memory_room(bytes) ? realloc(p, bytes) : NULL; }

/* The number after `key` at the start of a line, or at the start of the file without a key; SIZE_MAX: none, or "max" */
static size_t read_number(const char *folder, const char *file, const char *key)
{
    const size_t n = strlen(key);
    char path[PATH_ROOM], line[256];
    size_t number = SIZE_MAX;
    FILE *f;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, file) >= sizeof path || (f = fopen(path, "r")) == NULL)
        return SIZE_MAX;
    while (fgets(line, sizeof line, f) != NULL) {
        unsigned long long value;

        if (strncmp(line, key, n) != 0 || sscanf(line + n, "%llu", &value) != 1)
            continue;
        number = value < SIZE_MAX ? (size_t)value : SIZE_MAX;
        break;
    }
    fclose(f);
    return number;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* What a version of control groups calls its files, and the cache in memory.stat. */
typedef struct group_names {
    const char *limit, *usage, *cache;
} group_names;

static const group_names version_1 = { "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file " };
static const group_names version_2 = { "memory.max", "memory.current", "inactive_file " };

/* Of one group: its limit, or what it can still give, the cache that the kernel drops when asked included. */
static size_t in_group(const char *folder, const group_names *names, bool in_all)
{
    const size_t limit = read_number(folder, names->limit, "");
    size_t used, cache;

    if (in_all || limit == SIZE_MAX)
        return limit;
    used = read_number(folder, names->usage, "");
    if (used == SIZE_MAX)
        return SIZE_MAX;
    cache = read_number(folder, "memory.stat", names->cache);
    if (cache != SIZE_MAX)
        used -= least(used, cache);
    return limit - least(limit, used);
}

/* The least over a group and all above it: `path` below `root`, as /proc/self/cgroup names it. */
static size_t on_path(const char *root, const char *path, const group_names *names, bool in_all)
{
    char folder[PATH_ROOM];
    size_t left = SIZE_MAX;

    /* a container may see its own group as the root, under a path that only the host knows */
    if ((size_t)snprintf(folder, sizeof folder, "%s%s", root, path) >= sizeof folder)
        return SIZE_MAX;
    for (;;) {
        char *end;

        left = least(left, in_group(folder, names, in_all));
        end = strrchr(folder, '/');
        if (strlen(folder) <= strlen(root) || end == NULL || (size_t)(end - folder) < strlen(root))
            return left;
        *end = '\0';
    }
}

/* Whether `name` is one of the comma-separated controllers. */
static bool names_controller(const char *list, const char *name)
{
    const size_t n = strlen(name);

    for (const char *p = list; p != NULL; p = strchr(p, ',') == NULL ? NULL : strchr(p, ',') + 1)
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0'))
            return true;
    return false;
}

/* Lines of /proc/self/cgroup: hierarchy number, controllers (none: version 2), path. */
static size_t in_groups(const char *proc, const char *cgroup, bool in_all)
{
    char path[PATH_ROOM], line[PATH_ROOM];
    size_t left = SIZE_MAX;
    FILE *f;

    if ((size_t)snprintf(path, sizeof path, "%s/self/cgroup", proc) >= sizeof path || (f = fopen(path, "r")) == NULL)
        return on_path(cgroup, "", &version_2, in_all);
    while (fgets(line, sizeof line, f) != NULL) {
        char *controllers = strchr(line, ':'), *at;

        line[strcspn(line, "\n")] = '\0';
        if (controllers == NULL || (at = strchr(++controllers, ':')) == NULL)
            continue;
        *at++ = '\0';
        if (*controllers == '\0') {
            /* beside version 1 it lies one folder deeper */
            left = least(left, on_path(cgroup, at, &version_2, in_all));
            snprintf(path, sizeof path, "%s/unified", cgroup);
            left = least(left, on_path(path, at, &version_2, in_all));
        } else if (names_controller(controllers, "memory")) {
            snprintf(path, sizeof path, "%s/memory", cgroup);
            left = least(left, on_path(path, at, &version_1, in_all));
        }
    }
    fclose(f);
    return left;
}

static size_t in_system(const char *proc, const char *key)
{
    const size_t kilobytes = read_number(proc, "meminfo", key);

    return kilobytes > SIZE_MAX / 1024 ? SIZE_MAX : kilobytes * 1024;
}

size_t llm_memory_available_below(const char *proc, const char *cgroup)
{
    return least(in_system(proc, "MemAvailable:"), in_groups(proc, cgroup, false));
}

size_t llm_memory_available(void) { return llm_memory_available_below("/proc", "/sys/fs/cgroup"); }

size_t llm_memory_total_below(const char *proc, const char *cgroup)
{
    return least(in_system(proc, "MemTotal:"), in_groups(proc, cgroup, true));
}

size_t llm_memory_total(void)
{
    const size_t total = llm_memory_total_below("/proc", "/sys/fs/cgroup");
#ifdef _SC_PHYS_PAGES
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

    if (pages > 0 && page > 0)
        return least(total, (size_t)pages * (size_t)page);
#endif
    return total;
}
