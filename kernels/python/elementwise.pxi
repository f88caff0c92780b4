# Elementwise ops and dropout. Included by core.pyx.

ctypedef void (*unary_op)(llm_engine *, float *, const float *, size_t) noexcept nogil
ctypedef void (*binary_op)(llm_engine *, float *, const float *, const float *, size_t) noexcept nogil
ctypedef void (*unary_backward)(llm_engine *, float *, c_bool, const float *, const float *, size_t) noexcept nogil


cdef class ElementwiseOps(LinearOps):

    cdef object _unary(self, unary_op f, x):
        x = _f32("x", x)
        out = _new(*x.shape)
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        cdef size_t n = x.size
        with _running, nogil:
            f(self.e, po, px, n)
        self._check()
        return out

    cdef object _binary(self, binary_op f, a, b):
        a = _f32("a", a)
        b = _f32("b", b, a.shape)
        out = _new(*a.shape)
        cdef float *po = _data(out)
        cdef const float *pa = _data(a)
        cdef const float *pb = _data(b)
        cdef size_t n = a.size
        with _running, nogil:
            f(self.e, po, pa, pb, n)
        self._check()
        return out

    cdef object _unary_backward(self, unary_backward f, dout, x, dx):
        x = _f32("x", x)
        dout = _f32("dout", dout, x.shape)
        dx, acc = _gradient("dx", dx, x.shape)
        cdef float *pdx = _data(dx)
        cdef const float *pd = _data(dout)
        cdef const float *px = _data(x)
        cdef bint add = acc
        cdef size_t n = x.size
        with _running, nogil:
            f(self.e, pdx, add, pd, px, n)
        self._check()
        return dx

    def fill(self, shape, float value):
        """A new array of `shape` holding `value`."""
        out = np.empty(shape, np.float32)
        cdef float *po = _data(out)
        cdef size_t n = out.size
        with _running, nogil:
            llm_fill(self.e, po, value, n)
        self._check()
        return out

    def copy(self, x, *, out=None):
        """x, added to `out` when that is given."""
        x = _f32("x", x)
        out, acc = _gradient("out", out, x.shape)
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        cdef bint add = acc
        cdef size_t n = x.size
        with _running, nogil:
            llm_copy(self.e, po, px, add, n)
        self._check()
        return out

    def add(self, a, b):
        """a + b, of one shape."""
        return self._binary(llm_add, a, b)

    def sub(self, a, b):
        """a - b, of one shape."""
        return self._binary(llm_sub, a, b)

    def mul(self, a, b):
        """a * b, of one shape."""
        return self._binary(llm_mul, a, b)

    def div(self, a, b):
        """a / b, of one shape."""
        return self._binary(llm_div, a, b)

    def neg(self, x):
        """-x."""
        return self._unary(llm_neg, x)

    def scale(self, x, float s, *, out=None):
        """s * x, added to `out` when that is given."""
        x = _f32("x", x)
        out, acc = _gradient("out", out, x.shape)
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        cdef bint add = acc
        cdef size_t n = x.size
        with _running, nogil:
            llm_scale(self.e, po, px, s, add, n)
        self._check()
        return out

    def mul_acc(self, a, b, *, out=None):
        """a * b, of one shape, added to `out` when that is given."""
        a = _f32("a", a)
        b = _f32("b", b, a.shape)
        out, acc = _gradient("out", out, a.shape)
        cdef float *po = _data(out)
        cdef const float *pa = _data(a)
        cdef const float *pb = _data(b)
        cdef bint add = acc
        cdef size_t n = a.size
        with _running, nogil:
            llm_mul_acc(self.e, po, pa, pb, add, n)
        self._check()
        return out

    def gelu_forward(self, x):
        """GELU of x in the tanh form of Hendrycks & Gimpel 2016, as GPT-2 has it."""
        return self._unary(llm_gelu_forward, x)

    def gelu_backward(self, dout, x, *, dx=None):
        """dx from dout and the forward's x."""
        return self._unary_backward(llm_gelu_backward, dout, x, dx)

    def gelu_exact_forward(self, x):
        """x Phi(x): GELU by the normal distribution itself, PyTorch's approximate='none'."""
        return self._unary(llm_gelu_exact_forward, x)

    def gelu_exact_backward(self, dout, x, *, dx=None):
        """dx from dout and the forward's x."""
        return self._unary_backward(llm_gelu_exact_backward, dout, x, dx)

    def relu_forward(self, x):
        """max(x, 0)."""
        return self._unary(llm_relu_forward, x)

    def relu_backward(self, dout, x, *, dx=None):
        """dx from dout and the forward's x."""
        return self._unary_backward(llm_relu_backward, dout, x, dx)

    def silu_forward(self, x):
        """x sigmoid(x) (Hendrycks & Gimpel 2016), also called swish."""
        return self._unary(llm_silu_forward, x)

    def silu_backward(self, dout, x, *, dx=None):
        """dx from dout and the forward's x."""
        return self._unary_backward(llm_silu_backward, dout, x, dx)

    def swiglu_forward(self, gate, up):
        """silu(gate) * up, of one shape."""
        return self._binary(llm_swiglu_forward, gate, up)

    def swiglu_backward(self, dout, gate, up, *, dgate=None, dup=None):
        """(dgate, dup) from dout and the forward's inputs; a gradient given is added to, False leaves it out."""
        gate = _f32("gate", gate)
        up = _f32("up", up, gate.shape)
        dout = _f32("dout", dout, gate.shape)
        dgate, acc_gate = _gradient("dgate", dgate, gate.shape)
        dup, acc_up = _gradient("dup", dup, gate.shape)
        cdef float *pdg = NULL if dgate is None else _data(dgate)
        cdef float *pdu = NULL if dup is None else _data(dup)
        cdef const float *pd = _data(dout)
        cdef const float *pg = _data(gate)
        cdef const float *pu = _data(up)
        cdef bint add_gate = acc_gate, add_up = acc_up
        cdef size_t n = gate.size
        with _running, nogil:
            llm_swiglu_backward(self.e, pdg, add_gate, pdu, add_up, pd, pg, pu, n)
        self._check()
        return dgate, dup

    def dropout(self, x, p, *, seed, step, site, first=0, out=None):
        """Inverted dropout of x with probability p, added to `out` when that is given.

        The mask is keyed by (seed, step, site) and each element's logical index, x[0] being element `first`; `site` is a
        name or its hash. The backward is the same call on the gradient.
        """
        x = _f32("x", x)
        out, acc = _gradient("out", out, x.shape)
        cdef llm_dropout_key key = _dropout_key(seed, step, site)
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        cdef float probability = _probability(p)
        cdef uint64_t start = first
        cdef bint add = acc
        cdef size_t n = x.size
        with _running, nogil:
            llm_dropout(self.e, po, add, px, probability, key, start, n, NULL)
        self._check()
        return out

    def normal(self, shape, *, float mean=0.0, float std=1.0, seed, stream):
        """A new array of `shape` with mean + std * N(0, 1), element i keyed by (seed, stream, i)."""
        out = np.empty(shape, np.float32)
        cdef float *po = _data(out)
        cdef size_t n = out.size
        cdef uint64_t s = seed, st = stream
        with _running, nogil:
            llm_normal(self.e, po, mean, std, s, st, n)
        self._check()
        return out
