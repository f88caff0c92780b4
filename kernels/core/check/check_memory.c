/* check_memory.c -- how much memory control groups leave, asking before taking, and sampling that can be stopped. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "check.h"
#include "engine/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char root[] = "/tmp/llm-check-XXXXXX";

/* Writes a file below the root, and the folders above it. */
static void put(const char *path, const char *text)
{
    char whole[512];
    FILE *f;

    snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0700);
        *slash = '/';
    }
    f = fopen(whole, "w");
    if (f == NULL) {
        fail("cannot write %s", whole);
        return;
    }
    fputs(text, f);
    fclose(f);
}

static void expect(const char *what, const char *of, size_t (*ask)(const char *, const char *), size_t wanted)
{
    char proc[64], cgroup[64];
    size_t got;

    snprintf(proc, sizeof proc, "%s/proc", root);
    snprintf(cgroup, sizeof cgroup, "%s/cgroup", root);
    got = ask(proc, cgroup);
    if (got != wanted)
        fail("memory: %s %s %zu, not %zu", what, of, got, wanted);
}

static void expect_left(const char *what, size_t wanted) { expect(what, "leaves", llm_memory_available_below, wanted); }

static void expect_total(const char *what, size_t wanted) { expect(what, "has", llm_memory_total_below, wanted); }

static void check_groups(void)
{
    char remove[64];

    if (mkdtemp(root) == NULL) {
        fail("cannot make a folder in /tmp");
        return;
    }
    expect_left("a system that says nothing", SIZE_MAX);
    expect_total("a system that says nothing", SIZE_MAX);
    put("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n");
    expect_left("the system", 5000 * 1024);
    expect_total("the system", (size_t)9000 * 1024);
    put("proc/self/cgroup", "0::/system.slice/postgresql.service\n");
    put("cgroup/system.slice/postgresql.service/memory.max", "max\n");
    put("cgroup/system.slice/postgresql.service/memory.current", "700\n");
    expect_left("a group without a limit", 5000 * 1024);
    expect_total("a group without a limit", (size_t)9000 * 1024);
    put("cgroup/system.slice/postgresql.service/memory.max", "3000\n");
    expect_left("a nested group", 2300);
    expect_total("a nested group", 3000);
    put("cgroup/system.slice/postgresql.service/memory.stat", "anon 1\ninactive_file 200\n");
    expect_left("a nested group with cache", 2500);
    put("cgroup/system.slice/memory.max", "1000\n");
    put("cgroup/system.slice/memory.current", "900\n");
    expect_left("the group above it", 100);
    expect_total("the group above it", 1000);
    put("cgroup/system.slice/memory.current", "1200\n");
    expect_left("a group that is over its limit", 0);
    put("proc/self/cgroup", "12:cpu,cpuacct:/x\n7:memory:/docker/abc\n0::/none\n");
    put("cgroup/memory/docker/abc/memory.limit_in_bytes", "4000\n");
    put("cgroup/memory/docker/abc/memory.usage_in_bytes", "1000\n");
    put("cgroup/memory/docker/abc/memory.stat", "inactive_file 9\ntotal_inactive_file 500\n");
    expect_left("version 1", 3500);
    expect_total("version 1", 4000);
    put("proc/self/cgroup", "7:memory:/known/to/the/host/alone\n");
    put("cgroup/memory/memory.limit_in_bytes", "2000\n");
    put("cgroup/memory/memory.usage_in_bytes", "500\n");
    expect_left("version 1 in a container", 1500);
    expect_total("version 1 in a container", 2000);
    put("proc/self/cgroup", "nonsense\n7:memory\n:\n");
    expect_left("a file of another kind", 5000 * 1024);
    snprintf(remove, sizeof remove, "rm -r %s", root);
    if (system(remove) != 0)
        fail("cannot remove %s", root);
}

static bool refuse(size_t bytes)
{
    (void)bytes;
    return false;
}

static bool stop_at_once(void *arg)
{
    ++*(int *)arg;
    return true;
}

static void check_sampling(void)
{
    const size_t vocab = 1 << 20;
    float *logits = noise(vocab, 5), *alike = same(logits, vocab);
    int32_t seen[] = { 3, 1, 3, 77777, 3 };
    int asked = 0;
    llm_sampler s = { .temperature = 1, .top_k = 50, .top_p = 0.9, .uniform = 0.5 };
    double log_probs[4];
    int32_t ids[4];

    llm_memory_set_room(refuse);
    if (llm_sample(logits, vocab, &s) != -2 || llm_top_tokens(logits, vocab, 4, ids, log_probs, NULL, NULL) != -2)
        fail("sampling takes memory that it was refused");
    llm_memory_set_room(NULL);
    s.stop = stop_at_once;
    s.arg = &asked;
    if (llm_sample(logits, vocab, &s) != -3 || asked != 1)
        fail("sampling does not stop");
    s.temperature = 0;
    if (llm_sample(logits, vocab, &s) != -3 ||
        llm_top_tokens(logits, vocab, 4, ids, log_probs, stop_at_once, &asked) != -3 ||
        llm_penalize(logits, vocab, seen, 5, 2, 0, 0, stop_at_once, &asked) != LLM_STOPPED)
        fail("sampling does not stop");
    expect_bits("penalties", "stopped", logits, alike, vocab);
    /* each token once, by how often it was seen; counted on the stack, and in memory */
    for (size_t n = 4096; n <= vocab; n *= 256) {
        const int32_t tokens[] = { 3, 1, (int32_t)n - 1 }, times[] = { 3, 1, 1 };

        seen[3] = (int32_t)n - 1;
        for (int i = 0; i < 3; i++) {
            double x = alike[tokens[i]];

            x = x > 0 ? x / 2 : x * 2;
            alike[tokens[i]] = (float)(x - 0.5 - 0.25 * times[i]);
        }
        if (llm_penalize(logits, n, seen, 5, 2, 0.5, 0.25, NULL, NULL) != LLM_OK)
            fail("penalties fail");
        expect_bits("penalties", n == 4096 ? "few tokens" : "many tokens", logits, alike, vocab);
    }
    free(logits), free(alike);
}

void check_memory(void)
{
    check_groups();
    check_sampling();
    printf("memory and sampling: %ld comparisons\n", compared);
}
