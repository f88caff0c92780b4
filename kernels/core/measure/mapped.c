/*
 * mapped.c -- what it costs to read weights from a mapped file instead of private memory: GPT-2's next-token loop over
 * both, in turns, in one process. A line per way to write and to map the file; the ratio is the median of pairs.
 *
 * usage: mapped FOLDER [threads] [precision] [pairs]    (Linux)
 *
 * Time is the processes' CPU time, so that a busy machine does not blur it; waiting for the disk is not in it: the file
 * is in the page cache. `map` is the time until all pages are mapped, or until the first token is there.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "measure_decode.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { LAYERS = 12, HEADS = 12, D = 768, POSITIONS = 1024, VOCAB = 50257, PAST = 64, TOKENS = 4, MOST_PAIRS = 99 };

#define HUGE_BYTES ((size_t)2 << 20)

#if !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22
#endif
#if !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25
#endif

typedef struct way {
    const char *name;
    size_t piece;  /* of a write */
    size_t offset; /* of the mapping's address past a huge page's boundary */
    int advice[3]; /* of madvise, in order; 0: none */
    int flags;     /* of mmap */
} way;

static const way ways[] = {
    { "8 MiB writes, touched", 8u << 20, 0, { 0 }, 0 },
    { "8 MiB writes, populated", 8u << 20, 0, { MADV_POPULATE_READ }, 0 },
    { "8 MiB writes, MAP_POPULATE", 8u << 20, 0, { 0 }, MAP_POPULATE },
    { "8 MiB writes, not aligned", 8u << 20, 4096, { MADV_POPULATE_READ }, 0 },
    { "8 MiB writes, huge pages asked", 8u << 20, 0, { MADV_HUGEPAGE, MADV_POPULATE_READ }, 0 },
    { "8 MiB writes, collapsed", 8u << 20, 0, { MADV_HUGEPAGE, MADV_POPULATE_READ, MADV_COLLAPSE }, 0 },
    { "4 KiB writes, touched", 4096, 0, { 0 }, 0 },
    { "4 KiB writes, populated", 4096, 0, { MADV_POPULATE_READ }, 0 },
    { "4 KiB writes, collapsed", 4096, 0, { MADV_HUGEPAGE, MADV_POPULATE_READ, MADV_COLLAPSE }, 0 },
    { "8 MiB writes, anonymous copy", 8u << 20, 0, { 0 }, -1 },
};

static double seconds(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double cpu(void) { return seconds(CLOCK_PROCESS_CPUTIME_ID); }

static void give_up(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- the file: weights one after the other, each at a multiple of 64 ---- */

typedef struct file {
    int fd;
    char *block; /* what will be in it, or NULL: sizes are added up */
    const char *mapped;
    size_t at, bytes;
} file;

static const void *measure(void *arg, const void *bytes, size_t n)
{
    file *f = arg;

    f->at += (n + 63) / 64 * 64;
    return bytes;
}

/* Copies into the block; returns where the mapping will have it. */
static const void *lay_out(void *arg, const void *bytes, size_t n)
{
    file *f = arg;
    const size_t at = f->at;

    memcpy(f->block + at, bytes, n);
    f->at += (n + 63) / 64 * 64;
    return f->mapped + at;
}

static void write_file(const file *f, size_t piece)
{
    if (ftruncate(f->fd, 0) != 0 || posix_fallocate(f->fd, 0, (off_t)f->bytes) != 0)
        give_up("posix_fallocate");
    for (size_t at = 0; at < f->bytes; at += piece) {
        const size_t n = f->bytes - at < piece ? f->bytes - at : piece;
        if (pwrite(f->fd, f->block + at, n, (off_t)at) != (ssize_t)n)
            give_up("pwrite");
    }
}

/* Kilobytes of the mapping that holds this address: of the key in /proc/self/smaps. */
static long in_smaps(const void *address, const char *key)
{
    FILE *smaps = fopen("/proc/self/smaps", "r");
    unsigned long begin = 0, end = 0, number;
    char line[512];
    long found = -1;

    while (smaps != NULL && found < 0 && fgets(line, sizeof line, smaps) != NULL)
        if (sscanf(line, "%lx-%lx ", &begin, &end) != 2 && (unsigned long)address >= begin &&
            (unsigned long)address < end && strncmp(line, key, strlen(key)) == 0 &&
            sscanf(line + strlen(key), ": %lu", &number) == 1)
            found = (long)number;
    if (smaps != NULL)
        fclose(smaps);
    return found;
}

/* ---- one way ---- */

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double one_run(llm_decode *g)
{
    const double start = cpu();

    llm_decode_tokens(g, PAST, TOKENS);
    return cpu() - start;
}

static double median_ratio(llm_decode *mapped, llm_decode *private, int pairs, double *usual)
{
    double ratio[MOST_PAIRS], base[MOST_PAIRS];

    for (int i = 0; i < pairs; i++) {
        double a, b;
        if (i % 2 == 0) {
            a = one_run(mapped);
            b = one_run(private);
        } else {
            b = one_run(private);
            a = one_run(mapped);
        }
        ratio[i] = a / b;
        base[i] = b;
    }
    qsort(ratio, (size_t)pairs, sizeof *ratio, by_size);
    qsort(base, (size_t)pairs, sizeof *base, by_size);
    *usual = base[pairs / 2] / TOKENS;
    return ratio[pairs / 2];
}

static void try_way(llm_engine *e, const way *w, llm_decode *private, file *f, llm_precision precision, int pairs)
{
    llm_decode *g = llm_decode_create(e, LAYERS, HEADS, D, POSITIONS, VOCAB, precision);
    char *room = mmap(NULL, f->bytes + 2 * HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at;
    double start, took, usual;
    bool refused = false;

    if (g == NULL || room == MAP_FAILED)
        give_up("memory");
    at = room + (HUGE_BYTES - (size_t)room % HUGE_BYTES) + w->offset;
    f->at = 0;
    f->mapped = at;
    if (!llm_decode_move(g, lay_out, f) || !llm_decode_prompt(g, PAST))
        give_up("the loop");
    write_file(f, w->piece);
    start = seconds(CLOCK_MONOTONIC);
    if (w->flags == -1) {
        if (mmap(at, f->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            give_up("mmap");
        madvise(at, f->bytes, MADV_HUGEPAGE);
        memcpy(at, f->block, f->bytes);
    } else if (mmap(at, f->bytes, PROT_READ, MAP_SHARED | MAP_FIXED | w->flags, f->fd, 0) == MAP_FAILED)
        give_up("mmap");
    for (int i = 0; i < 3 && w->advice[i] != 0; i++)
        refused |= madvise(at, f->bytes, w->advice[i]) != 0;
    if (w->advice[0] == 0)
        llm_decode_tokens(g, PAST, 1);
    took = seconds(CLOCK_MONOTONIC) - start;
    llm_decode_tokens(g, PAST, 1);
    const double ratio = median_ratio(g, private, pairs, &usual);
    printf("%-32s %6.3f %9.2f ms %8.1f ms %7ld MB huge%s\n", w->name, ratio, usual * 1e3, took * 1e3,
           (in_smaps(at, "FilePmdMapped") + in_smaps(at, "ShmemPmdMapped") + in_smaps(at, "AnonHugePages")) >> 10,
           refused ? ", advice refused" : "");
    fflush(stdout);
    llm_decode_destroy(g);
    munmap(room, f->bytes + 2 * HUGE_BYTES);
}

static void try_precision(llm_engine *e, const char *folder, llm_precision precision, int pairs)
{
    llm_decode *private = llm_decode_create(e, LAYERS, HEADS, D, POSITIONS, VOCAB, precision),
               *sizes = llm_decode_create(e, LAYERS, HEADS, D, POSITIONS, VOCAB, precision);
    char path[4096];
    file f = { 0 };

    snprintf(path, sizeof path, "%s/llm-mapped-XXXXXX", folder);
    if (private == NULL || sizes == NULL || !llm_decode_prompt(private, PAST))
        give_up("memory");
    if ((f.fd = mkstemp(path)) < 0)
        give_up(path);
    unlink(path);
    llm_decode_move(sizes, measure, &f);
    llm_decode_destroy(sizes);
    f.bytes = (f.at + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    f.block = calloc(1, f.bytes);
    if (f.block == NULL)
        give_up("memory");
    llm_decode_tokens(private, PAST, 1);
    printf("%s, %zu MB in %s\n%-32s %6s %12s %11s\n", llm_precision_name(precision), f.bytes >> 20, folder, "", "ratio",
           "a token", "map");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        try_way(e, &ways[i], private, &f, precision, pairs);
    llm_decode_destroy(private);
    free(f.block);
    close(f.fd);
}

int main(int argc, char **argv)
{
    llm_engine *e = llm_engine_create();
    const char *const only = argc > 3 ? argv[3] : "";
    const int pairs = argc > 4 ? atoi(argv[4]) : 9;

    if (e == NULL || argc < 2 || pairs < 1 || pairs > MOST_PAIRS) {
        fprintf(stderr, "usage: mapped FOLDER [threads] [float32|bf16|int8|int4|all] [pairs]\n");
        return 2;
    }
    llm_engine_set_threads(e, argc > 2 ? atoi(argv[2]) : 1);
    for (int precision = 0; precision < LLM_PRECISIONS; precision++)
        if (*only == '\0' || strcmp(only, "all") == 0 ||
            strcmp(only, llm_precision_name((llm_precision)precision)) == 0)
            try_precision(e, argv[1], (llm_precision)precision, pairs);
    llm_engine_destroy(e);
    return 0;
}
