/*
 * gemm_packing.h -- A in panels of MR rows, B in panels of NR columns, each laid out as the micro-kernel reads it.
 * Part of gemm_kernels.h.
 */
#ifndef LLM_GEMM_PACKING_H
#define LLM_GEMM_PACKING_H

/*
 * Columns of a 16 x 16 block become rows: dst row j gets element j of each of 16 source rows that are lds apart, of
 * which `rows` exist and the others may hold anything.
 */
LLM_INLINE void transpose_whole(float *dst, size_t ldd, const float *src, size_t lds, const size_t rows)
{
#pragma GCC unroll 16
    for (size_t j = 0; j < 16; j += V16_COLUMNS) {
        v16 r[V16_COLUMNS];
        v16_load_columns(r, src + j, lds, rows);
#pragma GCC unroll 16
        for (size_t i = 0; i < V16_COLUMNS; i++)
            v16_store(dst + (j + i) * ldd, r[i]);
    }
}

/* The same of a block that may end early: `rows` source rows, zeros after them, and `cols` columns. */
LLM_INLINE void transpose_block(float *dst, size_t ldd, const float *src, size_t lds, size_t rows, size_t cols)
{
    v16 r[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        r[i] = i < rows ? (cols == 16 ? v16_load(src + i * lds) : v16_load_n(src + i * lds, cols)) : v16_zero();
    v16_transpose(r);
#pragma GCC unroll 16
    for (size_t j = 0; j < 16; j++)
        if (j < cols)
            v16_store(dst + j * ldd, r[j]);
}

/*
 * Panel of `rows` rows of A, which begin lda apart: dst[k * rows + i]. Each stored vector runs over into the next row of
 * the panel, which is written after it.
 */
static void pack_rows(float *dst, const float *a, size_t lda, size_t rows, size_t k)
{
    if (rows == 1)
        memcpy(dst, a, k * sizeof *dst);
    else
        for (size_t p = 0; p < k; p += 16) {
            /* The next panel: its rows are many short streams. Near the core they would push out each other. */
            for (size_t i = rows; i < 2 * rows; i++)
                __builtin_prefetch(a + i * lda + p, 0, 2);
            if (k - p >= 16 && rows == MR)
                transpose_whole(dst + p * MR, MR, a + p, lda, MR);
            else
                transpose_block(dst + p * rows, rows, a + p, lda, rows, smaller(16, k - p));
        }
}

/* The same of a view of A. */
static void pack_panel(float *dst, llm_view a, size_t rows, size_t k)
{
    if (a.column == 1)
        pack_rows(dst, a.p, a.row, rows, k);
    else
        for (size_t p = 0; p < k; p++)
            v16_store(dst + p * rows, v16_load_n(a.p + p * a.column, rows));
}

/* Whole panels of columns of memory, where row k of A^T is contiguous: read along it, a few k at a time. */
static void pack_full_panels(float *dst, llm_view a, size_t panels, size_t k)
{
    for (size_t p = 0; p < k; p += 16)
        for (size_t i = 0; i < panels; i++) {
            const float *from = a.p + p * a.column + i * MR;
            float *to = dst + i * MR * k + p * MR;
            size_t n = smaller(16, k - p);
            for (size_t q = 0; q < n; q++) {
                v16 row = v16_load_n(from + q * a.column, MR);
                __builtin_prefetch(from + (q + 16) * a.column);
                if ((k - p - q) * MR >= 16)
                    v16_store(to + q * MR, row);
                else /* it would run into the next panel, which has been begun */
                    v16_store_n(to + q * MR, row, MR);
            }
        }
}

/* A (m,k) as panels of MR rows, the last with fewer; panel i begins at dst + i * MR * k. */
static void pack_block(float *dst, llm_view a, size_t m, size_t k)
{
    size_t i = 0;

    if (a.column != 1) {
        pack_full_panels(dst, a, m / MR, k);
        i = m / MR * MR;
    }
    for (; i < m; i += MR) {
        llm_view panel = { a.p + i * a.row, a.row, a.column };
        pack_panel(dst + i * k, panel, smaller(MR, m - i), k);
    }
}

/* Panel of NR columns of B, zeros past `cols`: dst[k * NR + j]. */
static void pack_columns(float *dst, llm_view b, size_t k, size_t cols)
{
    if (b.column == 1 && cols >= NR)
        for (size_t p = 0; p < k; p++)
            for (size_t j = 0; j < NR; j += 16)
                v16_store(dst + p * NR + j, v16_load(b.p + p * b.row + j));
    else if (b.column == 1)
        for (size_t p = 0; p < k; p++)
            for (size_t j = 0; j < NR; j += 16)
                v16_store(dst + p * NR + j, v16_load_n(b.p + p * b.row + j, j < cols ? cols - j : 0));
    else
        for (size_t j = 0; j < NR; j += 16)
            for (size_t p = 0; p < k; p += 16) {
                const float *from = b.p + (j < cols ? j : 0) * b.column + p;
                if (j + 16 <= cols && p + 16 <= k)
                    transpose_whole(dst + p * NR + j, NR, from, b.column, 16);
                else
                    transpose_block(dst + p * NR + j, NR, from, b.column, j < cols ? smaller(16, cols - j) : 0,
                                    smaller(16, k - p));
            }
}

#endif /* LLM_GEMM_PACKING_H */
