/*
 * unmap.c -- munmap in a thread of its own.
 *
 * A version of GPT-2 124M that is being trained is 2 GB. Where the system has no huge pages to give, taking back as
 * many small ones is more than a tenth of a second in one go, in which a cancelled session would not answer. So
 * mappings wait in a list, and a thread that lives as long as the list does unmaps them. It calls nothing of
 * PostgreSQL, and no signal reaches it.
 */
#include "unmap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#define STACK_BYTES ((size_t) 256 << 10)

/* Lies at the start of what is to be unmapped. */
typedef struct Mapping
{
    struct Mapping *next;
    size_t          bytes;
} Mapping;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t  idle = PTHREAD_COND_INITIALIZER;
static Mapping        *waiting = NULL;
static bool            running = false;

static void *
unmap_all(void *arg)
{
    Mapping *m;

    (void) arg;
    pthread_mutex_lock(&lock);
    while ((m = waiting) != NULL)
    {
        waiting = m->next;
        pthread_mutex_unlock(&lock);
        munmap(m, m->bytes);
        pthread_mutex_lock(&lock);
    }
    running = false;
    pthread_cond_broadcast(&idle);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static bool
start_thread(void)
{
    pthread_t      thread;
    pthread_attr_t attributes;
    sigset_t       all;
    sigset_t       before;
    bool           started;

    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&thread, &attributes, unmap_all, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

void
unmap_later(void *mapping, size_t bytes)
{
    Mapping *m = mapping;

    m->bytes = bytes;
    pthread_mutex_lock(&lock);
    m->next = waiting;
    waiting = m;
    if (!running)
    {
        running = start_thread();
        if (!running)
        {
            waiting = m->next;
            munmap(m, bytes);
        }
    }
    pthread_mutex_unlock(&lock);
}

bool
unmap_finished(int milliseconds)
{
    struct timespec until;
    bool            finished;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long) milliseconds * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lock);
    while (running && pthread_cond_timedwait(&idle, &lock, &until) != ETIMEDOUT)
        ;
    finished = !running;
    pthread_mutex_unlock(&lock);
    return finished;
}
