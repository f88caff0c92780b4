/*
 * row_product_kernels.h -- products of few rows, which read B once and straight from memory where it can be
 * read in place. Part of gemm_kernels.h, whose micro-kernel and packing it uses, and the same order of sums.
 */
#ifndef LLM_ROW_PRODUCT_KERNELS_H
#define LLM_ROW_PRODUCT_KERNELS_H

/* Vectors of C that are in registers at a time, and rows of B they meet: runs of these, side by side, are read. */
#if defined(LLM_VEC_AVX512)
enum { RUN_NV = 4, RUN_ROWS = 4 };
#elif defined(LLM_VEC_SCALAR)
enum { RUN_NV = 1, RUN_ROWS = 4 };
#else
enum { RUN_NV = 2, RUN_ROWS = 4 };
#endif

/* sums (16 nv) = [first: 0, else sums] + a (rows) times rows of B, in their order */
LLM_INLINE void add_run(float *sums, const v16 *a, const float *b, size_t b_row, const size_t rows, const size_t nv,
                        bool first)
{
    v16 sum[RUN_NV];

#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++)
        sum[v] = first ? v16_zero() : v16_load(sums + 16 * v);
#pragma GCC unroll 4
    for (size_t i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (size_t v = 0; v < nv; v++)
            sum[v] = v16_fma(a[i], v16_load(b + i * b_row + 16 * v), sum[v]);
#pragma GCC unroll 4
    for (size_t v = 0; v < nv; v++)
        v16_store(sums + 16 * v, sum[v]);
}

/* The same over n columns, the last of which may fill no vector. */
LLM_INLINE void add_rows(float *sums, const float *a, const float *b, size_t b_row, size_t n, const size_t rows,
                         bool first)
{
    v16 ai[RUN_ROWS];
    size_t j = 0;

#pragma GCC unroll 4
    for (size_t i = 0; i < rows; i++)
        ai[i] = v16_set1(a[i]);
    for (; j + 16 * RUN_NV <= n; j += 16 * RUN_NV)
        add_run(sums + j, ai, b + j, b_row, rows, RUN_NV, first);
    for (; j + 16 <= n; j += 16)
        add_run(sums + j, ai, b + j, b_row, rows, 1, first);
    if (j < n) {
        v16 sum = first ? v16_zero() : v16_load_n(sums + j, n - j);
        for (size_t i = 0; i < rows; i++)
            sum = v16_fma(ai[i], v16_load_n(b + i * b_row + j, n - j), sum);
        v16_store_n(sums + j, sum, n - j);
    }
}

/*
 * A numeric block of one row times a B whose rows are contiguous. A few rows of B at a time are read along their
 * whole length, which is what hardware prefetching knows best; the sums stay near the core.
 */
static void row_block(float *sums, const float *a, const float *b, size_t b_row, size_t n, size_t kb)
{
    size_t p = 0;

    for (; p + RUN_ROWS <= kb; p += RUN_ROWS)
        add_rows(sums, a + p, b + p * b_row, b_row, n, RUN_ROWS, p == 0);
    for (; p < kb; p++)
        add_rows(sums, a + p, b + p * b_row, b_row, n, 1, p == 0);
}

static void row_add_blocks(float *c, const float *sums, size_t blocks, size_t n, bool acc, const float *row)
{
    for (size_t j = 0; j < n; j += 16) {
        const size_t lanes = smaller(16, n - j);
        v16 total = acc ? v16_load_n(c + j, lanes) : v16_zero();
        for (size_t block = 0; block < blocks; block++)
            total = v16_add(total, v16_load_n(sums + block * n + j, lanes));
        if (row != NULL)
            total = v16_add(total, v16_load_n(row + j, lanes));
        v16_store_n(c + j, total, lanes);
    }
}

/*
 * Values ahead of the reading of one column: sixteen are read side by side, too many and too short for the hardware.
 */
#if defined(LLM_VEC_AVX512)
enum { COLUMN_AHEAD = 128 };
#else
enum { COLUMN_AHEAD = 64 };
#endif

/* sum + a (16) times 16 rows of 16 columns that are `step` apart; `distance` is to what will be read in a while. */
LLM_INLINE v16 add_columns(v16 sum, const float *a, const float *columns, size_t step, size_t distance)
{
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        __builtin_prefetch(columns + i * step + distance, 0, 3);
#pragma GCC unroll 16
    for (size_t q = 0; q < 16; q += V16_COLUMNS) {
        v16 r[V16_COLUMNS];
        v16_load_columns(r, columns + q, step, 16);
#pragma GCC unroll 16
        for (size_t i = 0; i < V16_COLUMNS; i++)
            sum = v16_fma(v16_set1(a[q + i]), r[i], sum);
    }
    return sum;
}

/* The same of n rows and of `lanes` columns, either of which may be fewer than 16. */
static v16 add_some_columns(v16 sum, const float *a, const float *columns, size_t step, size_t lanes, size_t n)
{
    float some[16] = { 0 };

    for (size_t q = 0; q < n; q++) {
        for (size_t i = 0; i < lanes; i++)
            some[i] = columns[i * step + q];
        sum = v16_fma(v16_set1(a[q]), v16_load(some), sum);
    }
    return sum;
}

/* From place p of a column of k to what is read COLUMN_AHEAD values later: further on, or in the next 16 columns. */
LLM_INLINE size_t columns_ahead(size_t p, size_t k, size_t step)
{
    return p + COLUMN_AHEAD < k ? COLUMN_AHEAD : 16 * step + COLUMN_AHEAD - k;
}

/* c (lanes) = or += a (k) times that many columns */
LLM_INLINE void row_times_16(float *c, const float *a, const float *from, size_t step, const size_t lanes, size_t k,
                             bool acc)
{
    v16 total = acc ? v16_load_n(c, lanes) : v16_zero();

    for (size_t p0 = 0; p0 < k; p0 += LLM_GEMM_KB) {
        const size_t end = smaller(p0 + LLM_GEMM_KB, k);
        v16 sum = v16_zero();
        size_t p = p0;
        if (lanes == 16)
            for (; p + 16 <= end; p += 16)
                sum = add_columns(sum, a + p, from + p, step, columns_ahead(p, k, step));
        sum = add_some_columns(sum, a + p, from + p, step, lanes, end - p);
        total = v16_add(total, sum);
    }
    v16_store_n(c, total, lanes);
}

/*
 * One row times a B whose columns are contiguous, 16 columns at a time, straight from memory through the
 * registers: c (n) = or += a (k) B.
 */
static void row_columns(float *c, const float *a, llm_view b, size_t n, size_t k, bool acc)
{
    size_t j = 0;

    for (; j + 16 <= n; j += 16)
        row_times_16(c + j, a, b.p + j * b.column, b.column, 16, k, acc);
    if (j < n)
        row_times_16(c + j, a, b.p + j * b.column, b.column, n - j, k, acc);
}

#define ROW_PRODUCT_KERNELS { .block = row_block, .add_blocks = row_add_blocks, .columns = row_columns }

/*
 * Rows of B that few rows of A meet at a time, and how many sums stay near the core while the rows of a numeric block
 * pass. So B is read along some rows, not down a strip of columns, where each line is on a page of its own.
 */
enum { FEW_RUN = 16, FEW_SUMS = 4096 };

_Static_assert(FEW_SUMS >= DIRECT_ROWS * NR, "a micro-tile of every row fits");

/* Whole micro-tiles of columns whose sums with m rows fit. */
LLM_INLINE size_t few_columns(size_t m, size_t n)
{
    size_t most = FEW_SUMS / m / NR * NR;
    return n / NR * NR < most ? n / NR * NR : most > NR ? most : NR;
}

/* c (m,n) = or += packed panels of A (m,k) times a B whose rows are contiguous; n is whole micro-tiles. */
static void few_rows_in_place(float *c, size_t ldc, const float *packed, llm_view b, size_t m, size_t n, size_t k,
                              bool acc, size_t height, float *sums)
{
    const size_t width = few_columns(m, n);

    for (size_t j0 = 0; j0 < n; j0 += width) {
        const size_t cols = smaller(width, n - j0);
        for (size_t p0 = 0; p0 < k; p0 += LLM_GEMM_KB) {
            const size_t end = smaller(p0 + LLM_GEMM_KB, k);
            for (size_t p = p0; p < end; p += FEW_RUN)
                for (size_t j = 0; j < cols; j += NR)
                    for (size_t i = 0; i < m; i += height) {
                        const size_t rows = smaller(height, m - i);
                        resume_tiles[rows](smaller(FEW_RUN, end - p), packed + i * k + p * rows,
                                           b.p + p * b.row + j0 + j, b.row, sums + i * width + j, width, p == p0);
                    }
            for (size_t i = 0; i < m; i++)
                row_add_blocks(c + i * ldc + j0, sums + i * width, 1, cols, acc || p0 > 0, NULL);
        }
    }
}

/* Few rows: A is packed whole, B is read once, in place where its rows are contiguous. */
static void product_few_rows(float *c, size_t ldc, llm_view a, llm_view b, size_t m, size_t n, size_t k, bool acc,
                             float *scratch)
{
    /* Panels of about the same height: one of a row or two keeps no unit busy. */
    const size_t height = equal_parts(m, MR, 1);
    float *ap = scratch, *bp = scratch + round_up(m * k + PANEL_SLACK, 16);
    const float *packed = ap;
    size_t j = 0;

    if (m == 1 && a.column == 1)
        packed = a.p;
    else
        for (size_t i = 0; i < m; i += height) {
            llm_view panel = { a.p + i * a.row, a.row, a.column };
            pack_panel(ap + i * k, panel, smaller(height, m - i), k);
        }
    if (b.column == 1) {
        j = n / NR * NR;
        few_rows_in_place(c, ldc, packed, b, m, j, k, acc, height, bp);
    } else if (m == 1) {
        row_columns(c, packed, b, n, k, acc);
        j = n;
    }
    for (; j < n; j += NR) {
        size_t cols = smaller(NR, n - j);
        for (size_t p = 0; p < k; p += KC) {
            size_t kc = smaller(KC, k - p);
            llm_view block = { b.p + p * b.row + j * b.column, b.row, b.column };
            pack_columns(bp, block, kc, cols);
            for (size_t i = 0; i < m; i += height) {
                size_t rows = smaller(height, m - i);
                run_tile(rows, cols, kc, packed + i * k + p * rows, bp, NR, c + i * ldc + j, ldc, !acc && p == 0);
            }
        }
    }
}

#endif /* LLM_ROW_PRODUCT_KERNELS_H */
