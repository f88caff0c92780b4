/*
 * memcheck.h -- what PostgreSQL tells Valgrind about its memory contexts, told to AddressSanitizer.
 *
 * A server built with -DUSE_VALGRIND and this folder on the include path reports accesses beyond a palloc'ed chunk and
 * to one that was freed, which a sanitizer by itself sees only where a chunk has a malloc block of its own.
 */
#ifndef HUNTS_MEMCHECK_H
#define HUNTS_MEMCHECK_H

#include <sanitizer/asan_interface.h>

#define VALGRIND_MAKE_MEM_DEFINED(addr, size)   __asan_unpoison_memory_region((addr), (size))
#define VALGRIND_MAKE_MEM_UNDEFINED(addr, size) __asan_unpoison_memory_region((addr), (size))
#define VALGRIND_MAKE_MEM_NOACCESS(addr, size)  __asan_poison_memory_region((addr), (size))

/* Chunks: what is freed was made inaccessible before (wipe_mem), and pools themselves have no bytes. */
#define VALGRIND_CREATE_MEMPOOL(context, redzones, zeroed)      do { } while (0)
#define VALGRIND_DESTROY_MEMPOOL(context)                       do { } while (0)
#define VALGRIND_MEMPOOL_ALLOC(context, addr, size)             __asan_unpoison_memory_region((addr), (size))
#define VALGRIND_MEMPOOL_FREE(context, addr)                    do { } while (0)
#define VALGRIND_MEMPOOL_CHANGE(context, before, after, size)   __asan_unpoison_memory_region((after), (size))

/* Whether bytes were ever written is not AddressSanitizer's to know. */
#define VALGRIND_CHECK_MEM_IS_DEFINED(addr, size)               do { } while (0)
#define VALGRIND_GET_VBITS(addr, bits, size)                    0
#define VALGRIND_SET_VBITS(addr, bits, size)                    0

#endif
