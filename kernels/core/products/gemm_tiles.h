/*
 * gemm_tiles.h -- a micro-tile of C: held in registers over a numeric block of K, then added to memory. Part of
 * gemm_kernels.h.
 */
#ifndef LLM_GEMM_TILES_H
#define LLM_GEMM_TILES_H

/*
 * Memory to ask for while a tile computes: in each numeric block NR lines, `step` floats apart from p on; the next
 * block's begin `jump` floats further. In a burst they would hold up the tile's own loads, one by one they are free.
 */
typedef struct ahead {
    const float *p;
    size_t step, jump;
} ahead;

enum { SLOT = LLM_GEMM_KB / NR }; /* values of k from one of these lines to the next */

_Static_assert(NR >= MR * NV, "a block has a slot for each line of the tile of C");

/* Some values of k, those between two lines that are asked for: acc (rows, 16 nv) += a b */
LLM_INLINE void micro_steps(const size_t rows, const size_t nv, v16 acc[MR][NV], size_t steps, const float **a,
                            const float **b, size_t b_row)
{
#pragma GCC unroll 2
    for (size_t p = 0; p < steps; p++) {
        v16 bv[NV];
#pragma GCC unroll 8
        for (size_t v = 0; v < nv; v++)
            bv[v] = v16_load(*b + 16 * v);
#pragma GCC unroll 16
        for (size_t i = 0; i < rows; i++) {
            v16 ai = v16_set1((*a)[i]);
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++)
                acc[i][v] = v16_fma(ai, bv[v], acc[i][v]);
        }
        *a += rows;
        *b += b_row;
    }
}

/*
 * c (rows, 16 nv) = [first: 0, else c] + a b over k. a is a panel, element (i,k) at a[k * rows + i]; row k of
 * b begins at b[k * b_row]. rows and nv are constants wherever this is inlined, so acc lives in registers.
 * next: what to ask for, and c with it (NULL: nothing).
 */
LLM_INLINE void micro_kernel(const size_t rows, const size_t nv, size_t k, const float *a, const float *b, size_t b_row,
                             float *c, size_t ldc, bool first, const ahead *next)
{
    const float *block = next == NULL ? NULL : next->p, *row = next == NULL ? NULL : c;

    while (k > 0) {
        size_t kb = k < LLM_GEMM_KB ? k : LLM_GEMM_KB;
        v16 acc[MR][NV];
#pragma GCC unroll 16
        for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++)
                acc[i][v] = v16_zero();
        if (next == NULL)
            micro_steps(rows, nv, acc, kb, &a, &b, b_row);
        else {
            const float *line = block;
            for (size_t p = 0; p < kb; p += SLOT, line += next->step) {
                __builtin_prefetch(line, 0, 2);
                if (row != NULL) {
                    const size_t part = p / SLOT % nv;
                    __builtin_prefetch(row + 16 * part, 1);
                    row += part + 1 == nv ? ldc : 0;
                }
                micro_steps(rows, nv, acc, kb - p < SLOT ? kb - p : SLOT, &a, &b, b_row);
            }
            block += next->jump;
            row = NULL;
        }
#pragma GCC unroll 16
        for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++) {
                float *to = c + i * ldc + 16 * v;
                v16_store(to, v16_add(first ? v16_zero() : v16_load(to), acc[i][v]));
            }
        first = false;
        k -= kb;
    }
}

enum { ROW_GROUP = 3 }; /* rows that one pointer reaches: itself, and a row's length once and twice further */

/*
 * c (rows, 16 nv) = [first: 0, else c] + a b over k, like micro_kernel, but a is not packed: its rows begin lda apart.
 * For an a that is near the core and is used once.
 */
LLM_INLINE void rows_kernel(const size_t rows, const size_t nv, size_t k, const float *a, size_t lda, const float *b,
                            size_t b_row, float *c, size_t ldc, bool first)
{
    const float *group[(MR + ROW_GROUP - 1) / ROW_GROUP];

#pragma GCC unroll 16
    for (size_t i = 0; i < rows; i += ROW_GROUP)
        group[i / ROW_GROUP] = a + i * lda;
    while (k > 0) {
        size_t kb = k < LLM_GEMM_KB ? k : LLM_GEMM_KB;
        v16 acc[MR][NV];
#pragma GCC unroll 16
        for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++)
                acc[i][v] = v16_zero();
#pragma GCC unroll 2
        for (size_t p = 0; p < kb; p++) {
            v16 bv[NV];
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++)
                bv[v] = v16_load(b + 16 * v);
#pragma GCC unroll 16
            for (size_t i = 0; i < rows; i++) {
                v16 ai = v16_set1(group[i / ROW_GROUP][i % ROW_GROUP * lda]);
#pragma GCC unroll 8
                for (size_t v = 0; v < nv; v++)
                    acc[i][v] = v16_fma(ai, bv[v], acc[i][v]);
            }
#pragma GCC unroll 16
            for (size_t i = 0; i < rows; i += ROW_GROUP)
                group[i / ROW_GROUP]++;
            b += b_row;
        }
#pragma GCC unroll 16
        for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++) {
                float *to = c + i * ldc + 16 * v;
                v16_store(to, v16_add(first ? v16_zero() : v16_load(to), acc[i][v]));
            }
        first = false;
        k -= kb;
    }
}

enum { RESUME_AHEAD = 4 * NR }; /* along the rows of b, which the tiles to the right go on with */

/* sums (rows, 16 nv) = [first: 0, else sums] + a b: a numeric block of which some values of k are through goes on. */
LLM_INLINE void resume_kernel(const size_t rows, const size_t nv, size_t k, const float *a, const float *b,
                              size_t b_row, float *sums, size_t lds, bool first)
{
    v16 acc[MR][NV];

#pragma GCC unroll 16
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (size_t v = 0; v < nv; v++)
            acc[i][v] = first ? v16_zero() : v16_load(sums + i * lds + 16 * v);
#pragma GCC unroll 2
    for (size_t p = 0; p < k; p++) {
        __builtin_prefetch(b + RESUME_AHEAD, 0, 3);
        micro_steps(rows, nv, acc, 1, &a, &b, b_row);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (size_t v = 0; v < nv; v++)
            v16_store(sums + i * lds + 16 * v, acc[i][v]);
}

typedef void (*tile_function)(size_t k, const float *a, const float *b, size_t b_row, float *c, size_t ldc, bool first);
typedef void (*rows_tile_function)(size_t k, const float *a, size_t lda, const float *b, size_t b_row, float *c,
                                   size_t ldc, bool first);
typedef void (*panel_tile_function)(size_t k, const float *a, const float *b, float *c, size_t ldc, bool first,
                                    const ahead *next);

/*
 * tile_R for any b; rows_tile_R for an a that is not packed; resume_tile_R for part of a block; panel_tile_R for a packed
 * panel, looking ahead
 */
#define DEFINE_TILE(R)                                                                                                 \
    static void tile_##R(size_t k, const float *a, const float *b, size_t b_row, float *c, size_t ldc, bool first)     \
    {                                                                                                                  \
        micro_kernel(R, NV, k, a, b, b_row, c, ldc, first, NULL);                                                      \
    }                                                                                                                  \
    static void rows_tile_##R(size_t k, const float *a, size_t lda, const float *b, size_t b_row, float *c,            \
                              size_t ldc, bool first)                                                                  \
    {                                                                                                                  \
        rows_kernel(R, NV, k, a, lda, b, b_row, c, ldc, first);                                                        \
    }                                                                                                                  \
    static void resume_tile_##R(size_t k, const float *a, const float *b, size_t b_row, float *sums, size_t lds,       \
                                bool first)                                                                            \
    {                                                                                                                  \
        resume_kernel(R, NV, k, a, b, b_row, sums, lds, first);                                                        \
    }                                                                                                                  \
    static void panel_tile_##R(size_t k, const float *a, const float *b, float *c, size_t ldc, bool first,             \
                               const ahead *next)                                                                      \
    {                                                                                                                  \
        micro_kernel(R, NV, k, a, b, NR, c, ldc, first, next);                                                         \
    }
FOR_EACH_TILE(DEFINE_TILE)

#define NAME_TILE(R) tile_##R,
static const tile_function tiles[MR + 1] = { NULL, FOR_EACH_TILE(NAME_TILE) };

#define NAME_ROWS_TILE(R) rows_tile_##R,
static const rows_tile_function rows_tiles[MR + 1] = { NULL, FOR_EACH_TILE(NAME_ROWS_TILE) };

#define NAME_RESUME_TILE(R) resume_tile_##R,
static const tile_function resume_tiles[MR + 1] = { NULL, FOR_EACH_TILE(NAME_RESUME_TILE) };

#define NAME_PANEL_TILE(R) panel_tile_##R,
static const panel_tile_function panel_tiles[MR + 1] = { NULL, FOR_EACH_TILE(NAME_PANEL_TILE) };

/* A tile at the right edge is computed in a buffer of full width: b must be padded to NR columns. */
static void edge_tile(size_t rows, size_t cols, size_t k, const float *a, const float *b, size_t b_row, float *c,
                      size_t ldc, bool first)
{
    float t[MR * NR];
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < NR; j += 16)
            v16_store(t + i * NR + j, v16_load_n(c + i * ldc + j, first || j >= cols ? 0 : cols - j));
    tiles[rows](k, a, b, b_row, t, NR, first);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j += 16)
            v16_store_n(c + i * ldc + j, v16_load(t + i * NR + j), cols - j);
}

LLM_INLINE void run_tile(size_t rows, size_t cols, size_t k, const float *a, const float *b, size_t b_row, float *c,
                         size_t ldc, bool first)
{
    if (cols >= NR)
        tiles[rows](k, a, b, b_row, c, ldc, first);
    else
        edge_tile(rows, cols, k, a, b, b_row, c, ldc, first);
}

#endif /* LLM_GEMM_TILES_H */
