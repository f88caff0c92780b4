/*
 * check_pool.c -- the thread pool: jobs that are stopped at any moment, by whichever poll; engines of several
 * threads that share it; a fork. What it shows of races it shows under a thread sanitizer.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "check.h"
#include "engine/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_SECONDS 20

/* ---- stopping ---- */

static bool stop_after(void *left) { return (*(int *)left)-- <= 0; }

/* Stopped, the engine does nothing until its status is cleared. */
static void check_stop(void)
{
    const size_t n = 200;
    float *a = noise(n * n, 1), *c = room(n * n);
    llm_engine *e = engine_of((setting){ llm_isa_best(), 2, 64 });
    int left = 0;

    llm_engine_set_should_stop(e, stop_after, &left);
    llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
    if (llm_engine_status(e) != LLM_STOPPED)
        fail("a stopped engine says %d", (int)llm_engine_status(e));
    c[0] = 42;
    llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
    if (c[0] != 42)
        fail("an engine that was stopped goes on");
    left = 1 << 20;
    llm_engine_clear_status(e);
    llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
    if (c[0] == 42)
        fail("a cleared engine does not run");
    finish(e);
    free(a), free(c);
}

/* Products and attention that are stopped at their n-th poll, for each n until one runs to its end. */
static void check_stop_moments(void)
{
    const llm_attention_shape shape = {
        .B = 2, .T = 70, .D = 32, .n_head = 4, .q_stride = 96, .k_stride = 96, .v_stride = 96
    };
    const size_t n = 230, tokens = shape.B * shape.T;
    float *a = noise(n * n, 1), *c = room(n * n), *wanted = room(n * n), *qkv = noise(tokens * 96, 2);

    plain_gemm(wanted, a, a, n, n, n, n, n, n, false, false, false);
    for (int threads = 1; threads <= 4; threads++) {
        llm_engine *e = engine_of((setting){ llm_isa_best(), threads, 16 });
        bool stopped = true;
        for (int polls = 0; stopped; polls++) {
            float *out = room(tokens * shape.D), *max = room(tokens * 4), *sum = room(tokens * 4);
            int left = polls;
            llm_engine_set_should_stop(e, stop_after, &left);
            llm_attention_forward(e, out, max, sum, qkv, qkv + 32, qkv + 64, &shape);
            llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
            stopped = llm_engine_status(e) == LLM_STOPPED;
            llm_engine_clear_status(e);
            free(out), free(max), free(sum); /* a worker that still wrote would show */
        }
        llm_engine_set_should_stop(e, NULL, NULL);
        expect_bits("product after stops", name_of((setting){ llm_isa_best(), threads, 16 }), c, wanted, n * n);
        finish(e);
    }
    free(a), free(c), free(wanted), free(qkv);
}

/* The caller has nothing left to do, a worker goes on until it is told to stop: only close_job can poll. */
typedef struct straggling {
    llm_engine *e;
    pthread_t caller;
    atomic_bool worker_in, in_time;
    atomic_int left; /* polls that say no, counted once the caller is through */
    atomic_bool caller_out;
} straggling;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void straggle(void *arg, size_t task)
{
    straggling *s = arg;
    const double end = now() + PATIENCE_SECONDS;

    (void)task;
    if (pthread_equal(pthread_self(), s->caller)) {
        while (!atomic_load(&s->worker_in) && now() < end)
            ;
        atomic_store(&s->caller_out, true);
        return;
    }
    atomic_store(&s->worker_in, true);
    while (now() < end)
        if (llm_task_stopped(s->e)) {
            atomic_store(&s->in_time, true);
            return;
        }
}

static bool stop_stragglers(void *arg)
{
    straggling *s = arg;
    return atomic_load(&s->caller_out) && atomic_fetch_sub(&s->left, 1) <= 0;
}

static void check_stragglers(void)
{
    for (int polls = 1; polls <= 8; polls++) {
        llm_engine *e = engine_of((setting){ llm_isa_best(), 2, 64 });
        straggling s = { .e = e, .caller = pthread_self(), .left = polls };
        llm_engine_set_should_stop(e, stop_stragglers, &s);
        llm_parallel(e, 2, straggle, &s);
        if (!atomic_load(&s.in_time) || llm_engine_status(e) != LLM_STOPPED)
            fail("a straggler was not stopped by poll %d", polls);
        llm_engine_clear_status(e);
        finish(e);
    }
}

/* ---- sharing ---- */

static void *products(void *unused)
{
    const size_t n = 150;
    float *a = noise(n * n, 1), *c = room(n * n), *wanted = room(n * n);

    plain_gemm(wanted, a, a, n, n, n, n, n, n, false, false, false);
    for (int i = 0; i < 50; i++) {
        llm_engine *e = engine_of((setting){ llm_isa_best(), 1 + i % 3, 64 });
        llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
        if (memcmp(c, wanted, n * n * sizeof *c) != 0 || llm_engine_status(e) != LLM_OK)
            abort();
        llm_engine_destroy(e);
    }
    free(a), free(c), free(wanted);
    return unused;
}

/* Engines of several threads share the pool. */
static void check_sharing(void)
{
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        if (pthread_create(&threads[i], NULL, products, NULL) != 0)
            abort();
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

/* A child of a process whose pool runs starts its own. */
static void check_fork(void)
{
    const size_t n = 300;
    float *a = noise(n * n, 1), *c = room(n * n), *wanted = room(n * n);
    llm_engine *e = engine_of((setting){ llm_isa_best(), 2, 64 });

    llm_gemm(e, wanted, a, a, n, n, n, n, n, n, false, false, false);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        llm_gemm(e, c, a, a, n, n, n, n, n, n, false, false, false);
        _exit(memcmp(c, wanted, n * n * sizeof *c) != 0);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        fail("a forked child: status %d", status);
    finish(e);
    free(a), free(c), free(wanted);
}

void check_pool(bool may_fork)
{
    check_stop();
    check_stop_moments();
    check_stragglers();
    check_sharing();
    if (may_fork)
        check_fork();
    printf("thread pool: %ld comparisons\n", compared);
}
