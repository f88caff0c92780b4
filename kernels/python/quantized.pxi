# Linear layers over weights in fewer bits. Included by core.pyx.

from cpython.bytes cimport PyBytes_FromStringAndSize

cdef extern from "llm_core.h" nogil:
    ctypedef enum llm_precision:
        LLM_FLOAT32
        LLM_BF16
        LLM_INT8
        LLM_INT4
    ctypedef struct llm_packed
    llm_packed *llm_pack(llm_engine *e, const float *w, size_t i, size_t o, bint transposed, llm_precision precision)
    void llm_packed_destroy(llm_packed *w)
    size_t llm_packed_bytes(const llm_packed *w)
    size_t llm_pack_bytes(size_t i, size_t o, llm_precision precision)
    int LLM_PACKED_ALIGNMENT
    const void *llm_packed_data(const llm_packed *w, size_t *n)
    llm_packed *llm_packed_view(const void *bytes, size_t n, size_t i, size_t o, llm_precision precision)
    void llm_packed_forward(llm_engine *e, float *out, const float *x, const llm_packed *w, const float *b, size_t n)


cdef llm_precision _packed_precision(precision) except *:
    if precision not in ("bf16", "int8", "int4"):
        raise ValueError(f"precision is {precision!r}, expected 'bf16', 'int8' or 'int4'")
    return LLM_BF16 if precision == "bf16" else LLM_INT8 if precision == "int8" else LLM_INT4


cdef class PackedWeights:
    """A linear layer's weights as 'bf16', 'int8' or 'int4', made by Engine.pack or from the bytes of such weights."""
    cdef llm_packed *w
    cdef object held  # what a view's bytes lie in
    cdef readonly size_t inputs, outputs
    cdef readonly str precision

    def __dealloc__(self):
        llm_packed_destroy(self.w)

    @property
    def nbytes(self):
        """Memory it takes."""
        return llm_packed_bytes(self.w)

    def tobytes(self):
        """What view() reads: the same from every instruction set."""
        cdef size_t n = 0
        cdef const void *data
        if self.w == NULL:
            raise ValueError("no weights: Engine.pack makes packed weights")
        data = llm_packed_data(self.w, &n)
        return PyBytes_FromStringAndSize(<const char *> data, n)

    @staticmethod
    def view(data, inputs, outputs, precision):
        """Weights that stay where they lie, in an array of bytes that starts at a multiple of 64: a mapped file, say."""
        cdef llm_precision which = _packed_precision(precision)
        cdef const unsigned char[::1] bytes = data
        cdef size_t i = inputs, o = outputs, n = bytes.shape[0], needed = llm_pack_bytes(i, o, which)
        cdef const void *at = NULL if n == 0 else <const void *> &bytes[0]
        if n != needed:
            raise ValueError(f"{n} bytes are not {precision} weights of ({i}, {o}), which take {needed}")
        if <size_t> at % LLM_PACKED_ALIGNMENT:
            raise ValueError(f"the bytes do not start at a multiple of {LLM_PACKED_ALIGNMENT}")
        cdef PackedWeights packed = PackedWeights()
        packed.inputs, packed.outputs, packed.precision, packed.held = i, o, precision, bytes
        packed.w = llm_packed_view(at, n, i, o, which)
        if packed.w == NULL:
            raise MemoryError("no memory for packed weights")
        return packed


cdef class PackedOps(LossOps):

    def pack(self, w, precision, *, transposed=False):
        """w (i,o), or (o,i) when transposed, rounded to 'bf16', 'int8' (a scale per output and 128 inputs)
        or 'int4' (a scale and a minimum per output and 32 inputs)."""
        w = _f32("w", w)
        if w.ndim != 2:
            raise ValueError(f"w has shape {w.shape}, expected a matrix")
        cdef llm_precision which = _packed_precision(precision)
        if not np.isfinite(w).all():
            raise ValueError("w holds a number that is not finite")
        packed = PackedWeights()
        packed.inputs, packed.outputs = w.shape[::-1] if transposed else w.shape
        packed.precision = precision
        cdef PackedWeights p = packed
        cdef const float *pw = _data(w)
        cdef bint t = transposed
        with _running, nogil:
            p.w = llm_pack(self.e, pw, p.inputs, p.outputs, t, which)
        self._check()
        if p.w == NULL:
            raise MemoryError("no memory for packed weights")
        return packed

    def packed_forward(self, x, PackedWeights w not None, b=None):
        """x (...,i) @ w (i,o) + b (o): (...,o)."""
        x = _f32("x", x)
        if w.w == NULL:
            raise ValueError("w is empty: Engine.pack makes packed weights")
        if x.ndim == 0 or x.shape[-1] != w.inputs:
            raise ValueError(f"x {x.shape} does not fit weights of ({w.inputs}, {w.outputs})")
        b = None if b is None else _f32("b", b, (w.outputs,))
        out = _new(*x.shape[:-1], w.outputs)
        cdef size_t n = _count(x.shape[:-1])
        cdef float *po = _data(out)
        cdef const float *px = _data(x)
        cdef const float *pb = NULL if b is None else _data(b)
        with _running, nogil:
            llm_packed_forward(self.e, po, px, w.w, pb, n)
        self._check()
        return out
