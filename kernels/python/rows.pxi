# Ops on the rows of the last axis, and sums. Included by core.pyx.

cdef class RowOps(ElementwiseOps):

    def layernorm_forward(self, x, gamma=None, beta=None, *, float eps=1e-5):
        """(out (...,d), mean (...), rstd (...)) of x (...,d) with gain gamma (d) and bias beta (d)."""
        x, rows, width = _rows("x", x)
        gamma = None if gamma is None else _f32("gamma", gamma, (width,))
        beta = None if beta is None else _f32("beta", beta, (width,))
        out, mean, rstd = _new(*x.shape), _new(*x.shape[:-1]), _new(*x.shape[:-1])
        cdef size_t n = rows, d = width
        cdef float *po = _data(out)
        cdef float *pm = _data(mean)
        cdef float *pr = _data(rstd)
        cdef const float *px = _data(x)
        cdef const float *pg = NULL if gamma is None else _data(gamma)
        cdef const float *pb = NULL if beta is None else _data(beta)
        with _running, nogil:
            llm_layernorm_forward(self.e, po, pm, pr, px, pg, pb, eps, n, d)
        self._check()
        return out, mean, rstd

    def layernorm_backward(self, dout, x, gamma, mean, rstd, *, dx=None, dgamma=None, dbeta=None):
        """(dx, dgamma, dbeta) from dout, the forward's x and gamma (None: gain 1), and its mean and rstd."""
        x, rows, width = _rows("x", x)
        dout = _f32("dout", dout, x.shape)
        gamma = None if gamma is None else _f32("gamma", gamma, (width,))
        mean = _f32("mean", mean, x.shape[:-1])
        rstd = _f32("rstd", rstd, x.shape[:-1])
        dx, acc_x = _gradient("dx", dx, x.shape)
        dgamma, acc_g = _gradient("dgamma", dgamma, (width,))
        dbeta, acc_b = _gradient("dbeta", dbeta, (width,))
        cdef size_t n = rows, d = width
        cdef float *pdx = NULL if dx is None else _data(dx)
        cdef float *pdg = NULL if dgamma is None else _data(dgamma)
        cdef float *pdb = NULL if dbeta is None else _data(dbeta)
        cdef const float *pd = _data(dout)
        cdef const float *px = _data(x)
        cdef const float *pg = NULL if gamma is None else _data(gamma)
        cdef const float *pm = _data(mean)
        cdef const float *pr = _data(rstd)
        cdef bint ax = acc_x, ag = acc_g, ab = acc_b
        with _running, nogil:
            llm_layernorm_backward(self.e, pdx, ax, pdg, ag, pdb, ab, pd, px, pg, pm, pr, n, d)
        self._check()
        return dx, dgamma, dbeta

    def rmsnorm_forward(self, x, gain=None, *, float eps=1e-5):
        """(out (...,d), rstd (...)): x / sqrt(mean(x^2) + eps), times gain (d) unless that is None."""
        x, rows, width = _rows("x", x)
        gain = None if gain is None else _f32("gain", gain, (width,))
        out, rstd = _new(*x.shape), _new(*x.shape[:-1])
        cdef const float *pg = NULL if gain is None else _data(gain)
        cdef size_t n = rows, d = width
        cdef float *po = _data(out)
        cdef float *pr = _data(rstd)
        cdef const float *px = _data(x)
        with _running, nogil:
            llm_rmsnorm_forward(self.e, po, pr, px, pg, eps, n, d)
        self._check()
        return out, rstd

    def rmsnorm_backward(self, dout, x, rstd, gain=None, *, dx=None, dgain=None):
        """dx from dout, the forward's x and its rstd; with a gain (dx, dgain)."""
        x, rows, width = _rows("x", x)
        dout = _f32("dout", dout, x.shape)
        rstd = _f32("rstd", rstd, x.shape[:-1])
        gain = None if gain is None else _f32("gain", gain, (width,))
        dx, acc = _gradient("dx", dx, x.shape)
        dgain, acc_gain = _gradient("dgain", False if gain is None else dgain, (width,))
        cdef size_t n = rows, d = width
        cdef float *pdx = _data(dx)
        cdef float *pdg = NULL if dgain is None else _data(dgain)
        cdef const float *pd = _data(dout)
        cdef const float *px = _data(x)
        cdef const float *pg = NULL if gain is None else _data(gain)
        cdef const float *pr = _data(rstd)
        cdef bint add = acc, add_gain = acc_gain
        with _running, nogil:
            llm_rmsnorm_backward(self.e, pdx, add, pdg, add_gain, pd, px, pg, pr, n, d)
        self._check()
        return dx if gain is None else (dx, dgain)

    def l2_normalize_forward(self, x):
        """(out (...,d), norm (...)): x / max(|x|, 1e-12), |x| each row's 2-norm."""
        x, rows, width = _rows("x", x)
        out, norm = _new(*x.shape), _new(*x.shape[:-1])
        cdef size_t n = rows, d = width
        cdef float *po = _data(out)
        cdef float *pn = _data(norm)
        cdef const float *px = _data(x)
        with _running, nogil:
            llm_l2_normalize_forward(self.e, po, pn, px, n, d)
        self._check()
        return out, norm

    def l2_normalize_backward(self, dout, out, norm, *, dx=None):
        """dx from dout, the forward's output and its norm."""
        out, rows, width = _rows("out", out)
        dout = _f32("dout", dout, out.shape)
        norm = _f32("norm", norm, out.shape[:-1])
        dx, acc = _gradient("dx", dx, out.shape)
        cdef size_t n = rows, d = width
        cdef float *pdx = _data(dx)
        cdef const float *pd = _data(dout)
        cdef const float *po = _data(out)
        cdef const float *pn = _data(norm)
        cdef bint add = acc
        with _running, nogil:
            llm_l2_normalize_backward(self.e, pdx, add, pd, po, pn, n, d)
        self._check()
        return dx

    def mean_pool_forward(self, x, lengths):
        """The mean (B,d) of the rows of each of B sequences, of so many rows each, laid end to end in x (N,d)."""
        return self._pooled(x, lengths, True)

    def mean_pool_backward(self, dout, lengths, *, dx=None):
        """dx (N,d) from dout (B,d)."""
        return self._pool_gradient(dout, lengths, True, dx)

    def cls_pool_forward(self, x, lengths):
        """The first row (B,d) of each of B sequences, of so many rows each, laid end to end in x (N,d)."""
        return self._pooled(x, lengths, False)

    def cls_pool_backward(self, dout, lengths, *, dx=None):
        """dx (N,d) from dout (B,d)."""
        return self._pool_gradient(dout, lengths, False, dx)

    def _pooled(self, x, lengths, bint mean):
        x, rows, width = _rows("x", x)
        lengths = _lengths(lengths, rows)
        out = _new(lengths.size, width)
        cdef size_t B = lengths.size, d = width
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        cdef const int32_t *pl = _int_data(lengths)
        with _running, nogil:
            if mean:
                llm_mean_pool_forward(self.e, po, px, pl, B, d)
            else:
                llm_cls_pool_forward(self.e, po, px, pl, B, d)
        self._check()
        return out

    def _pool_gradient(self, dout, lengths, bint mean, dx):
        lengths = _lengths(lengths)
        dout, rows, width = _rows("dout", dout)
        if dout.shape != (lengths.size, width):
            raise ValueError(f"dout has shape {dout.shape}, expected ({lengths.size}, {width})")
        dx, acc = _gradient("dx", dx, (int(lengths.sum(dtype=np.int64)), width))
        cdef size_t B = lengths.size, d = width
        cdef float *pdx = _data(dx)
        cdef const float *pd = _data(dout)
        cdef const int32_t *pl = _int_data(lengths)
        cdef bint add = acc
        with _running, nogil:
            if mean:
                llm_mean_pool_backward(self.e, pdx, add, pd, pl, B, d)
            else:
                llm_cls_pool_backward(self.e, pdx, add, pd, pl, B, d)
        self._check()
        return dx

    def softmax_forward(self, x):
        """Softmax of each row of x (...,d)."""
        x, rows, width = _rows("x", x)
        out = _new(*x.shape)
        cdef size_t n = rows, d = width
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        with _running, nogil:
            llm_softmax_forward(self.e, po, px, n, d)
        self._check()
        return out

    def softmax_backward(self, dout, out, *, dx=None):
        """dx from dout and the forward's output."""
        out, rows, width = _rows("out", out)
        dout = _f32("dout", dout, out.shape)
        dx, acc = _gradient("dx", dx, out.shape)
        cdef size_t n = rows, d = width
        cdef float *pdx = _data(dx)
        cdef const float *pd = _data(dout)
        cdef const float *po = _data(out)
        cdef bint add = acc
        with _running, nogil:
            llm_softmax_backward(self.e, pdx, add, pd, po, n, d)
        self._check()
        return dx

    def sum_rows(self, x, *, out=None):
        """The sum of all rows of x (...,d): (d), added to `out` when that is given."""
        x, rows, width = _rows("x", x)
        out, acc = _gradient("out", out, (width,))
        cdef size_t n = rows, d = width
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        cdef bint add = acc
        with _running, nogil:
            llm_sum_rows(self.e, po, add, px, n, d)
        self._check()
        return out

    def sum(self, x):
        """The sum of all elements, a float."""
        x = _f32("x", x)
        cdef const float *px = _data(x)
        cdef size_t n = x.size
        cdef double total
        with _running, nogil:
            total = llm_sum(self.e, px, n)
        self._check()
        return total

    def sum_squares(self, x):
        """The sum of the squares of all elements, a float."""
        x = _f32("x", x)
        cdef const float *px = _data(x)
        cdef size_t n = x.size
        cdef double total
        with _running, nogil:
            total = llm_sum_squares(self.e, px, n)
        self._check()
        return total

    def all_finite(self, x):
        """Whether no element is NaN or infinite."""
        x = _f32("x", x)
        cdef const float *px = _data(x)
        cdef size_t n = x.size
        cdef bint finite
        with _running, nogil:
            finite = llm_all_finite(self.e, px, n)
        self._check()
        return bool(finite)
