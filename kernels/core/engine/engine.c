/* engine.c -- what the machine can run, and the state an engine carries from op to op. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "isa.h"
#include "memory.h"
#include "numerics.h"

#include <stdlib.h>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define DEFAULT_ATTENTION_CHUNK 64
#define MAX_THREADS             1024

/* ---- instruction sets ---- */

#if defined(__x86_64__)
#define XCR0_YMM 0x06u /* the system saves SSE and AVX registers */
#define XCR0_ZMM 0xe6u /* ... and AVX-512's */

/* A CPU's flag is not enough: the system must save the registers too. */
static bool x86_runs(llm_isa isa)
{
    unsigned a, b, c, d, b7, xcr0, high;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX) || !(c & bit_FMA))
        return false;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c, &d))
        return false;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    if ((xcr0 & XCR0_YMM) != XCR0_YMM || !(b7 & bit_AVX2))
        return false;
    if (isa == LLM_ISA_AVX2)
        return true;
    const unsigned wanted = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    return isa == LLM_ISA_AVX512 && (xcr0 & XCR0_ZMM) == XCR0_ZMM && (b7 & wanted) == wanted;
}
#endif

static const llm_kernels *const kernel_tables[LLM_ISA_COUNT] = {
    [LLM_ISA_SCALAR] = &llm_kernels_scalar,
    [LLM_ISA_NEON] = &llm_kernels_neon,
    [LLM_ISA_AVX2] = &llm_kernels_avx2,
    [LLM_ISA_AVX512] = &llm_kernels_avx512,
};

bool llm_isa_available(llm_isa isa)
{
    if ((unsigned)isa >= LLM_ISA_COUNT || !kernel_tables[isa]->compiled)
        return false;
#if defined(__x86_64__)
    return isa == LLM_ISA_SCALAR || x86_runs(isa);
#else
    return true; /* Advanced SIMD is part of AArch64 */
#endif
}

llm_isa llm_isa_best(void)
{
    for (int isa = LLM_ISA_COUNT - 1; isa > LLM_ISA_SCALAR; isa--)
        if (llm_isa_available((llm_isa)isa))
            return (llm_isa)isa;
    return LLM_ISA_SCALAR;
}

const char *llm_isa_name(llm_isa isa)
{
    static const char *const names[LLM_ISA_COUNT] = { "scalar", "neon", "avx2", "avx512" };
    return (unsigned)isa < LLM_ISA_COUNT ? names[isa] : "unknown";
}

/* Cores this process may run on, at least 1. */
int llm_cpu_count(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n < MAX_THREADS ? (int)n : 1;
}

int llm_numerics_version(void) { return LLM_NUMERICS_VERSION; }

/* ---- engine ---- */

llm_engine *llm_engine_create(void)
{
    llm_engine *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->kernels = kernel_tables[llm_isa_best()];
    e->threads = 1;
    e->attention_chunk = DEFAULT_ATTENTION_CHUNK;
    return e;
}

void llm_engine_destroy(llm_engine *e)
{
    if (e == NULL)
        return;
    llm_engine_trim(e);
    free(e->scratch);
    free(e->scratch_size);
    free(e);
}

void llm_engine_trim(llm_engine *e)
{
    for (int i = 0; i < e->scratch_count; i++) {
        free(e->scratch[i]);
        e->scratch[i] = NULL;
        e->scratch_size[i] = 0;
    }
    free(e->logits);
    e->logits = NULL;
    e->logits_size = 0;
}

bool llm_engine_set_isa(llm_engine *e, llm_isa isa)
{
    if (!llm_isa_available(isa))
        return false;
    e->kernels = kernel_tables[isa];
    return true;
}

llm_isa llm_engine_isa(const llm_engine *e) { return e->kernels->isa; }

void llm_engine_set_threads(llm_engine *e, int threads)
{
    if (threads <= 0)
        threads = llm_cpu_count();
    e->threads = threads < MAX_THREADS ? threads : MAX_THREADS;
}

int llm_engine_threads(const llm_engine *e) { return e->threads; }

void llm_engine_set_should_stop(llm_engine *e, llm_should_stop f, void *arg)
{
    e->should_stop = f;
    e->stop_arg = arg;
}

void llm_engine_set_attention_chunk(llm_engine *e, int query_rows)
{
    e->attention_chunk = query_rows > 0 ? (size_t)query_rows : DEFAULT_ATTENTION_CHUNK;
}

llm_status llm_engine_status(const llm_engine *e) { return e->status; }

void llm_engine_clear_status(llm_engine *e) { e->status = LLM_OK; }

/* ---- scratch ---- */

static bool add_slots(llm_engine *e)
{
    float **scratch = realloc(e->scratch, (size_t)e->threads * sizeof *scratch);
    if (scratch == NULL)
        return false;
    e->scratch = scratch;
    size_t *size = realloc(e->scratch_size, (size_t)e->threads * sizeof *size);
    if (size == NULL)
        return false;
    e->scratch_size = size;
    for (; e->scratch_count < e->threads; e->scratch_count++) {
        e->scratch[e->scratch_count] = NULL;
        e->scratch_size[e->scratch_count] = 0;
    }
    return true;
}

/*
 * Large blocks lie on huge pages where the system has them: a product walks many rows at once, and each would
 * cost it an entry of the TLB.
 */
float *llm_aligned_alloc(size_t floats)
{
    const size_t huge = (size_t)2 << 20;
    size_t bytes, alignment;
    void *p;

    if (floats > (SIZE_MAX - huge) / sizeof(float))
        return NULL;
    bytes = floats * sizeof(float);
    alignment = bytes < huge ? 64 : huge;
    if (alignment == huge)
        bytes = (bytes + huge - 1) / huge * huge;
    if (!llm_memory_room(bytes) || posix_memalign(&p, alignment, bytes) != 0)
        return NULL;
#if defined(MADV_HUGEPAGE)
    if (alignment == huge)
        madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

static bool grow_slot(llm_engine *e, int slot, size_t floats)
{
    void *p;
    if (e->scratch_size[slot] >= floats)
        return true;
    free(e->scratch[slot]);
    e->scratch[slot] = NULL;
    e->scratch_size[slot] = 0;
    p = llm_aligned_alloc(floats);
    if (p == NULL)
        return false;
    e->scratch[slot] = p;
    e->scratch_size[slot] = floats;
    return true;
}

bool llm_scratch(llm_engine *e, size_t floats)
{
    bool ok = e->scratch_count >= e->threads || add_slots(e);
    for (int i = 0; ok && i < e->threads; i++)
        ok = grow_slot(e, i, floats);
    if (!ok)
        e->status = LLM_NO_MEMORY;
    return ok;
}
