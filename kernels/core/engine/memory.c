/*
 * memory.c -- how much memory there is: the system's, and what control groups leave; and asking before taking much.
 */
#include "memory.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* What one group can still give: its limit less what it uses, but for the cache that the kernel drops when asked. */
static size_t left_in_group(const char *folder, const char *limit_file, const char *usage_file, const char *cache_key)
{
    const size_t limit = read_number(folder, limit_file, "");
    size_t used = read_number(folder, usage_file, "");
    const size_t cache = read_number(folder, "memory.stat", cache_key);

    if (limit == SIZE_MAX || used == SIZE_MAX)
        return SIZE_MAX;
    if (cache != SIZE_MAX)
        used -= least(used, cache);
    return limit - least(limit, used);
}

/* The least over a group and all above it: `path` below `root`, as /proc/self/cgroup names it. */
static size_t left_on_path(const char *root, const char *path, const char *limit_file, const char *usage_file,
                           const char *cache_key)
{
    char folder[PATH_ROOM];
    size_t left = SIZE_MAX;

    /* a container may see its own group as the root, under a path that only the host knows */
    if ((size_t)snprintf(folder, sizeof folder, "%s%s", root, path) >= sizeof folder)
        return SIZE_MAX;
    for (;;) {
        char *end;

        left = least(left, left_in_group(folder, limit_file, usage_file, cache_key));
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
static size_t left_in_groups(const char *proc, const char *cgroup)
{
    char path[PATH_ROOM], line[PATH_ROOM];
    size_t left = SIZE_MAX;
    FILE *f;

    if ((size_t)snprintf(path, sizeof path, "%s/self/cgroup", proc) >= sizeof path || (f = fopen(path, "r")) == NULL)
        return left_on_path(cgroup, "", "memory.max", "memory.current", "inactive_file ");
    while (fgets(line, sizeof line, f) != NULL) {
        char *controllers = strchr(line, ':'), *at;

        line[strcspn(line, "\n")] = '\0';
        if (controllers == NULL || (at = strchr(++controllers, ':')) == NULL)
            continue;
        *at++ = '\0';
        if (*controllers == '\0') {
            /* beside version 1 it lies one folder deeper */
            left = least(left, left_on_path(cgroup, at, "memory.max", "memory.current", "inactive_file "));
            snprintf(path, sizeof path, "%s/unified", cgroup);
            left = least(left, left_on_path(path, at, "memory.max", "memory.current", "inactive_file "));
        } else if (names_controller(controllers, "memory")) {
            snprintf(path, sizeof path, "%s/memory", cgroup);
            left = least(left, left_on_path(path, at, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                            "total_inactive_file "));
        }
    }
    fclose(f);
    return left;
}

size_t llm_memory_available_below(const char *proc, const char *cgroup)
{
    const size_t kilobytes = read_number(proc, "meminfo", "MemAvailable:");
    const size_t system = kilobytes > SIZE_MAX / 1024 ? SIZE_MAX : kilobytes * 1024;

    return least(system, left_in_groups(proc, cgroup));
}

size_t llm_memory_available(void) { return llm_memory_available_below("/proc", "/sys/fs/cgroup"); }
