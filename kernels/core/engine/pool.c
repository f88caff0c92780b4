/*
 * pool.c -- threads that run one job at a time and otherwise sleep.
 *
 * Waking a sleeper takes tens of microseconds on a virtual machine, and a token is some hundred jobs of that length. So
 * a worker looks out for the next job for SPIN_NS before it sleeps, and the caller as long for the last tasks' end. One
 * that has slept for IDLE_SECONDS ends: a session that waits for its client holds no threads.
 *
 * A process may fork or call from several threads of its own: a child starts with an empty pool, and a
 * caller that finds the pool busy runs its job alone.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "pool.h"

#include <errno.h>
#include <fenv.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define STACK_BYTES       ((size_t)1 << 20)
#define STRAGGLER_WAIT_NS 1000000 /* between two polls of should_stop while others finish */
#define SPIN_NS           30000   /* that waiting threads stay awake: about what waking them takes */
#define IDLE_SECONDS      5       /* a worker without a job ends */
#define SPIN_STEPS        64      /* pauses between two looks at the clock */

typedef struct job {
    llm_task fn;
    void *arg;
    size_t tasks;
    atomic_size_t next;
    atomic_bool stop;
} job;

static struct pool {
    pthread_mutex_t busy; /* held by the engine whose job runs */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, idle;
    int workers;              /* started, and not ended */
    int limit;                /* of workers: those beyond it end */
    job *current;             /* NULL: nothing to join */
    uint64_t generation;      /* of current: a worker joins a job once */
    int seats, taken;         /* workers that may join, and did */
    int active;               /* workers inside current */
    int asleep;               /* workers that only a signal wakes */
    atomic_bool finished;     /* active is 0 and stays so: known to the caller who closes a job */
    atomic_uint_fast64_t due; /* generation, to be seen without the lock */
} pool = { .busy = PTHREAD_MUTEX_INITIALIZER,
           .lock = PTHREAD_MUTEX_INITIALIZER,
           .work = PTHREAD_COND_INITIALIZER,
           .limit = INT_MAX };

static pthread_once_t pool_once = PTHREAD_ONCE_INIT;
static _Thread_local int thread_index; /* within the running job: 0 the caller, then the workers */
static _Thread_local bool inside_job;
static _Thread_local job *running; /* the job that the thread takes part in */

/* ---- floating-point environment ---- */

#if defined(__x86_64__)
#define MXCSR_CONTROL 0xffc0u /* all but the sticky exception flags */
#define MXCSR_WANTED  0x1f80u

llm_fpenv llm_fp_enter(void)
{
    unsigned saved = _mm_getcsr();
    if ((saved & MXCSR_CONTROL) != MXCSR_WANTED)
        _mm_setcsr(MXCSR_WANTED);
    return saved;
}

void llm_fp_leave(llm_fpenv saved)
{
    if (((unsigned)saved & MXCSR_CONTROL) != MXCSR_WANTED)
        _mm_setcsr((unsigned)saved);
}
#elif defined(__aarch64__)
llm_fpenv llm_fp_enter(void)
{
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    if (saved != 0)
        __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
    return saved;
}

void llm_fp_leave(llm_fpenv saved)
{
    if (saved != 0)
        __asm__ volatile("msr fpcr, %0" : : "r"(saved) : "memory");
}
#else
llm_fpenv llm_fp_enter(void)
{
    int saved = fegetround();
    if (saved != FE_TONEAREST)
        fesetround(FE_TONEAREST);
    return (llm_fpenv)saved;
}

void llm_fp_leave(llm_fpenv saved)
{
    if ((int)saved != FE_TONEAREST)
        fesetround((int)saved);
}
#endif

/* ---- workers ---- */

static void run_tasks(job *j)
{
    while (!atomic_load_explicit(&j->stop, memory_order_relaxed)) {
        size_t task = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (task >= j->tasks)
            return;
        j->fn(j->arg, task);
    }
}

static uint64_t nanoseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void pause_core(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool job_is_due(uint64_t seen) { return atomic_load_explicit(&pool.due, memory_order_relaxed) != seen; }

static bool job_is_finished(uint64_t unused)
{
    (void)unused;
    return atomic_load_explicit(&pool.finished, memory_order_relaxed);
}

/* Wait awake, without the lock and not for long; who returns takes the lock and looks again. */
static inline void look_out(bool (*done)(uint64_t), uint64_t seen)
{
    const uint64_t end = nanoseconds() + SPIN_NS;

    do
        for (int i = 0; i < SPIN_STEPS; i++) {
            if (done(seen))
                return;
            pause_core();
        }
    while (nanoseconds() < end);
}

/* The time after so many nanoseconds on the clock of the pool's conditions */
static struct timespec after(uint64_t ns)
{
    struct timespec t;
#if defined(__APPLE__)
    clock_gettime(CLOCK_REALTIME, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    t.tv_sec += (time_t)(ns / 1000000000);
    t.tv_nsec += (long)(ns % 1000000000);
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

static bool nothing_to_join(uint64_t seen)
{
    return pool.current == NULL || pool.generation == seen || pool.taken == pool.seats;
}

/* Sleeps until there is a job; false when the worker should end. With the lock. */
static bool wait_for_job(uint64_t seen)
{
    const struct timespec until = after((uint64_t)IDLE_SECONDS * 1000000000);

    while (nothing_to_join(seen)) {
        bool late;

        if (pool.workers > pool.limit)
            return false;
        pool.asleep++;
        late = pthread_cond_timedwait(&pool.work, &pool.lock, &until) == ETIMEDOUT;
        pool.asleep--;
        if (late && nothing_to_join(seen))
            return false;
    }
    return true;
}

static void *worker(void *unused)
{
    uint64_t seen = 0;

    (void)unused;
    llm_fp_enter();
    inside_job = true;
    pthread_mutex_lock(&pool.lock);
    while (wait_for_job(seen)) {
        job *j = pool.current;
        seen = pool.generation;
        thread_index = ++pool.taken;
        pool.active++;
        pthread_mutex_unlock(&pool.lock);
        running = j;
        run_tasks(j);
        running = NULL;
        pthread_mutex_lock(&pool.lock);
        if (--pool.active == 0) {
            atomic_store_explicit(&pool.finished, true, memory_order_relaxed);
            pthread_cond_signal(&pool.idle);
        }
        pthread_mutex_unlock(&pool.lock);
        look_out(job_is_due, seen);
        pthread_mutex_lock(&pool.lock);
    }
    pool.workers--;
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

static void pool_init(void)
{
    pthread_mutex_init(&pool.busy, NULL);
    pthread_mutex_init(&pool.lock, NULL);
#if defined(__APPLE__)
    pthread_cond_init(&pool.work, NULL);
    pthread_cond_init(&pool.idle, NULL);
#else
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool.work, &attr);
    pthread_cond_init(&pool.idle, &attr);
    pthread_condattr_destroy(&attr);
#endif
    pool.workers = 0;
    pool.current = NULL;
    pool.active = 0;
    pool.asleep = 0;
}

/* The child of a fork has none of the workers, and locks in whatever state they were. */
static void pool_after_fork(void)
{
    pool_init();
    thread_index = 0;
    inside_job = false;
    running = NULL;
}

static void pool_first_use(void)
{
    pool_init();
    pthread_atfork(NULL, NULL, pool_after_fork);
}

void llm_limit_workers(int workers)
{
    pthread_once(&pool_once, pool_first_use);
    pthread_mutex_lock(&pool.lock);
    pool.limit = workers;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}

/*
 * Start workers up to `wanted`. Fewer than that is no error: the caller does their share. Counted before they run,
 * since any of them may end at any time.
 */
static void pool_grow(int wanted)
{
    int missing;

    pthread_mutex_lock(&pool.lock);
    if (wanted > pool.limit)
        wanted = pool.limit;
    missing = wanted - pool.workers;
    if (missing > 0)
        pool.workers += missing;
    pthread_mutex_unlock(&pool.lock);
    if (missing <= 0)
        return;

    sigset_t all, before;
    pthread_attr_t attr;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (; missing > 0; missing--) {
        pthread_t thread;
        if (pthread_create(&thread, &attr, worker, NULL) != 0)
            break;
    }
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (missing > 0) {
        pthread_mutex_lock(&pool.lock);
        pool.workers -= missing;
        pthread_mutex_unlock(&pool.lock);
    }
}

/* ---- the caller ---- */

static bool poll_stop(llm_engine *e)
{
    if (e->status == LLM_OK && e->should_stop != NULL && e->should_stop(e->stop_arg))
        e->status = LLM_STOPPED;
    return e->status != LLM_OK;
}

static void run_polling(llm_engine *e, job *j)
{
    running = j;
    while (!poll_stop(e)) {
        size_t task = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
        if (task >= j->tasks)
            return;
        j->fn(j->arg, task);
    }
    atomic_store_explicit(&j->stop, true, memory_order_relaxed);
}

bool llm_task_stopped(llm_engine *e)
{
    if (running == NULL)
        return llm_failed(e);
    if (thread_index == 0 && poll_stop(e))
        atomic_store_explicit(&running->stop, true, memory_order_relaxed);
    return atomic_load_explicit(&running->stop, memory_order_relaxed);
}

static void open_job(job *j, int seats)
{
    int awake;

    pthread_mutex_lock(&pool.lock);
    pool.current = j;
    pool.generation++;
    pool.seats = seats;
    pool.taken = 0;
    atomic_store_explicit(&pool.due, pool.generation, memory_order_relaxed);
    awake = pool.workers - pool.asleep; /* these look for themselves */
    pthread_mutex_unlock(&pool.lock);
    for (int i = awake; i < seats; i++)
        pthread_cond_signal(&pool.work);
}

/* Let nobody join any more and wait until those who did are out, so that `j` and its buffers can go. */
static void close_job(llm_engine *e, job *j)
{
    pthread_mutex_lock(&pool.lock);
    pool.current = NULL;
    if (pool.active > 0) {
        atomic_store_explicit(&pool.finished, false, memory_order_relaxed);
        pthread_mutex_unlock(&pool.lock);
        look_out(job_is_finished, 0);
        pthread_mutex_lock(&pool.lock);
    }
    while (pool.active > 0) {
        struct timespec until = after(STRAGGLER_WAIT_NS);
        if (pthread_cond_timedwait(&pool.idle, &pool.lock, &until) == 0)
            continue;
        pthread_mutex_unlock(&pool.lock);
        if (poll_stop(e))
            atomic_store_explicit(&j->stop, true, memory_order_relaxed);
        pthread_mutex_lock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
}

bool llm_parallel(llm_engine *e, size_t tasks, llm_task fn, void *arg)
{
    if (llm_failed(e))
        return false;

    job j = { .fn = fn, .arg = arg, .tasks = tasks };
    if (inside_job) { /* within a task: the caller of that job polls */
        run_tasks(&j);
        return true;
    }

    llm_fpenv saved = llm_fp_enter();
    bool shared = false;
    inside_job = true;
    if (e->threads > 1 && tasks > 1) {
        pthread_once(&pool_once, pool_first_use);
        shared = pthread_mutex_trylock(&pool.busy) == 0;
    }
    if (shared) {
        int seats = tasks - 1 < (size_t)e->threads - 1 ? (int)(tasks - 1) : e->threads - 1;
        pool_grow(seats);
        open_job(&j, seats);
        run_polling(e, &j);
        close_job(e, &j);
        pthread_mutex_unlock(&pool.busy);
    } else
        run_polling(e, &j);
    inside_job = false;
    running = NULL;
    llm_fp_leave(saved);
    return !llm_failed(e);
}

typedef struct range_job {
    llm_range_task fn;
    void *arg;
    size_t n, grain;
} range_job;

static void run_range(void *arg, size_t task)
{
    const range_job *r = arg;
    size_t begin = task * r->grain;
    r->fn(r->arg, begin, r->n - begin < r->grain ? r->n : begin + r->grain);
}

bool llm_parallel_for(llm_engine *e, size_t n, size_t grain, llm_range_task fn, void *arg)
{
    range_job r = { .fn = fn, .arg = arg, .n = n, .grain = grain > 0 ? grain : 1 };
    return llm_parallel(e, n / r.grain + (n % r.grain != 0), run_range, &r);
}

float *llm_thread_scratch(const llm_engine *e) { return e->scratch[thread_index]; }
