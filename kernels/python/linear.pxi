# Matrix products, linear layers and embeddings. Included by core.pyx.

cdef class LinearOps(EngineState):

    def gemm(self, a, b, *, ta=False, tb=False, c=None, out=None):
        """op(a) @ op(b), (M,N), plus c when it is given. a is (M,K), or (K,M) with ta; b (K,N), or (N,K) with tb.

        Row-strided views (a column slice of a wider matrix) are read in place. `out` is a contiguous array that is
        written and returned instead of a new one, as NumPy has it.
        """
        a, lda = _matrix("a", a)
        b, ldb = _matrix("b", b)
        M, K = a.shape[::-1] if ta else a.shape
        K_b, N = b.shape[::-1] if tb else b.shape
        if K != K_b:
            raise ValueError(f"a {a.shape} and b {b.shape} disagree on K: {K} and {K_b}")
        if out is None:
            out, acc = _gradient("c", c, (M, N))
        elif c is not None:
            raise ValueError("c and out exclude each other")
        else:
            _check_out("out", out, (M, N), a, b)
            acc = False
        cdef float *po = _data(out)
        cdef const float *pa = _data(a)
        cdef const float *pb = _data(b)
        cdef size_t m = M, n = N, k = K, la = lda, lb = ldb, lc = max(N, 1)
        cdef bint t_a = ta, t_b = tb, add = acc
        with _running, nogil:
            llm_gemm(self.e, po, pa, pb, m, n, k, lc, la, lb, t_a, t_b, add)
        self._check()
        return out

    def linear_forward(self, x, w, b=None):
        """x (...,i) @ w (i,o) + b (o): (...,o)."""
        w = _f32("w", w)
        x = _f32("x", x)
        if w.ndim != 2 or x.ndim == 0 or x.shape[-1] != w.shape[0]:
            raise ValueError(f"x {x.shape} and w {w.shape} do not fit (...,i) and (i,o)")
        b = None if b is None else _f32("b", b, w.shape[1:])
        out = _new(*x.shape[:-1], w.shape[1])
        cdef size_t i = w.shape[0], o = w.shape[1], n = _count(x.shape[:-1])
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        cdef const float *pw = _data(w)
        cdef const float *pb = NULL if b is None else _data(b)
        with _running, nogil:
            llm_linear_forward(self.e, po, px, pw, pb, n, i, o)
        self._check()
        return out

    def linear_backward(self, dout, x, w, *, dx=None, dw=None, db=None):
        """(dx, dw, db) from dout (...,o), x (...,i), w (i,o)."""
        w = _f32("w", w)
        x = _f32("x", x)
        if w.ndim != 2 or x.ndim == 0 or x.shape[-1] != w.shape[0]:
            raise ValueError(f"x {x.shape} and w {w.shape} do not fit (...,i) and (i,o)")
        dout = _f32("dout", dout, (*x.shape[:-1], w.shape[1]))
        dx, acc_x = _gradient("dx", dx, x.shape)
        dw, acc_w = _gradient("dw", dw, w.shape)
        db, acc_b = _gradient("db", db, w.shape[1:])
        cdef size_t i = w.shape[0], o = w.shape[1], n = _count(x.shape[:-1])
        cdef float *pdx = NULL if dx is None else _data(dx)
        cdef float *pdw = NULL if dw is None else _data(dw)
        cdef float *pdb = NULL if db is None else _data(db)
        cdef const float *pd = _data(dout)
        cdef const float *px = _data(x)
        cdef const float *pw = _data(w)
        cdef bint ax = acc_x, aw = acc_w, ab = acc_b
        with _running, nogil:
            llm_linear_backward(self.e, pdx, ax, pdw, aw, pdb, ab, pd, px, pw, n, i, o)
        self._check()
        return dx, dw, db

    def transpose(self, x):
        """x (rows,cols) as a new array (cols,rows)."""
        x = _f32("x", x)
        if x.ndim != 2:
            raise ValueError(f"x has shape {x.shape}, expected a matrix")
        out = _new(x.shape[1], x.shape[0])
        cdef size_t rows = x.shape[0], cols = x.shape[1]
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        with _running, nogil:
            llm_transpose(self.e, po, px, rows, cols)
        self._check()
        return out

    def embedding_forward(self, w, ids):
        """Rows of w (rows,d) at ids (...): (...,d)."""
        w = _f32("w", w)
        if w.ndim != 2:
            raise ValueError(f"w has shape {w.shape}, expected a matrix")
        ids = _ids("ids", ids, w.shape[0])
        out = _new(*ids.shape, w.shape[1])
        cdef size_t n = ids.size, d = w.shape[1]
        cdef float *po = _data(out)
        cdef const float *pw = _data(w)
        cdef const int32_t *pi = _int_data(ids)
        with _running, nogil:
            llm_embedding_forward(self.e, po, pw, pi, n, d)
        self._check()
        return out

    def embedding_backward(self, dout, ids, rows, *, dw=None):
        """dw (rows,d): the rows of dout (...,d) summed by id, in index order."""
        dout = _f32("dout", dout)
        if dout.ndim == 0:
            raise ValueError("dout is a scalar, expected (...,d)")
        ids = _ids("ids", ids, rows, shape=dout.shape[:-1])
        dw, acc = _gradient("dw", dw, (rows, dout.shape[-1]))
        if not acc:
            dw[...] = 0
        cdef size_t n = ids.size, r = rows, d = dout.shape[-1]
        cdef float *pw = _data(dw)
        cdef const float *pd = _data(dout)
        cdef const int32_t *pi = _int_data(ids)
        with _running, nogil:
            llm_embedding_backward(self.e, pw, pd, pi, n, r, d)
        self._check()
        return dw
