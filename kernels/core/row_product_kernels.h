/*
 * row_product_kernels.h -- products of few rows, which read B once and straight from memory where it can be
 * read in place. Part of gemm_kernels.h, whose micro-kernel and packing it uses, and the same order of sums.
 */
#ifndef LLM_ROW_PRODUCT_KERNELS_H
#define LLM_ROW_PRODUCT_KERNELS_H

/* One row, ROW_NV vectors wide: what reading B in place wants. */
static void tile_row(size_t k, const float *a, const float *b, size_t b_row, float *c, bool first)
{
    micro_kernel(1, ROW_NV, k, a, b, b_row, c, 0, first);
}

/*
 * One row times a B whose columns are contiguous, 16 columns at a time, straight from memory through the
 * registers: c (n) = or += a (k) B. Returns how many columns are done, the rest being fewer than 16.
 */
static size_t row_times_columns(float *c, const float *a, llm_view b, size_t n, size_t k, bool acc)
{
    size_t j = 0;

    for (; j + 16 <= n; j += 16) {
        const float *from = b.p + j * b.column;
        v16 total = acc ? v16_load(c + j) : v16_zero();
        for (size_t p0 = 0; p0 < k; p0 += LLM_GEMM_KB) {
            const size_t end = smaller(p0 + LLM_GEMM_KB, k);
            v16 sum = v16_zero();
            for (size_t p = p0; p < end; p += 16) {
                const size_t rest = smaller(16, end - p);
                v16 r[16];
#pragma GCC unroll 16
                for (size_t i = 0; i < 16; i++) {
                    const float *column = from + i * b.column + p;
                    __builtin_prefetch(column + 16 * b.column, 0, 2);
                    r[i] = rest == 16 ? v16_load(column) : v16_load_n(column, rest);
                }
                v16_transpose(r);
                if (rest == 16)
#pragma GCC unroll 16
                    for (size_t q = 0; q < 16; q++)
                        sum = v16_fma(v16_set1(a[p + q]), r[q], sum);
                else {
                    float t[16 * 16]; /* r stays in registers when no index varies */
#pragma GCC unroll 16
                    for (size_t q = 0; q < 16; q++)
                        v16_store(t + 16 * q, r[q]);
                    for (size_t q = 0; q < rest; q++)
                        sum = v16_fma(v16_set1(a[p + q]), v16_load(t + 16 * q), sum);
                }
            }
            total = v16_add(total, sum);
        }
        v16_store(c + j, total);
    }
    return j;
}

/* Few rows: A is packed whole, B is read once, in place where its rows are contiguous. */
static void product_few_rows(float *c, size_t ldc, llm_view a, llm_view b, size_t m, size_t n, size_t k,
                             bool acc, float *scratch)
{
    float *ap = scratch, *bp = scratch + round_up(m * k + PANEL_SLACK, 16);
    const float *packed = ap;
    size_t j = 0;

    if (m == 1 && a.column == 1)
        packed = a.p;
    else
        pack_block(ap, a, m, k);
    if (b.column == 1) {
        if (m == 1)
            for (; j + 16 * ROW_NV <= n; j += 16 * ROW_NV)
                tile_row(k, packed, b.p + j, b.row, c + j, !acc);
        for (; j + NR <= n; j += NR)
            for (size_t i = 0; i < m; i += MR)
                tiles[smaller(MR, m - i)](k, packed + i * k, b.p + j, b.row, c + i * ldc + j, ldc, !acc);
    } else if (m == 1)
        j = row_times_columns(c, packed, b, n, k, acc);
    for (; j < n; j += NR) {
        size_t cols = smaller(NR, n - j);
        for (size_t p = 0; p < k; p += KC) {
            size_t kc = smaller(KC, k - p);
            llm_view block = { b.p + p * b.row + j * b.column, b.row, b.column };
            pack_columns(bp, block, kc, cols);
            for (size_t i = 0; i < m; i += MR) {
                size_t rows = smaller(MR, m - i);
                run_tile(rows, cols, kc, packed + i * k + p * rows, bp, NR, c + i * ldc + j, ldc,
                         !acc && p == 0);
            }
        }
    }
}

#endif /* LLM_ROW_PRODUCT_KERNELS_H */
