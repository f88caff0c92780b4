# Multi-head attention, whole and with a key/value cache. Included by core.pyx.

cdef class KVCache:
    """Keys and values of one attention layer: room for `capacity` tokens of n_head heads of d_head floats."""
    cdef llm_kv_cache *c
    cdef readonly size_t n_head, d_head, capacity, length

    def __cinit__(self, n_head, d_head, capacity):
        if n_head < 1 or d_head < 1 or capacity < 1:
            raise ValueError(f"n_head {n_head}, d_head {d_head}, capacity {capacity}: each must be positive")
        if n_head * d_head * capacity > 2**48:
            raise MemoryError(f"a cache of {n_head} x {d_head} x {capacity} floats is too large")
        self.n_head, self.d_head, self.capacity, self.length = n_head, d_head, capacity, 0
        self.c = llm_kv_cache_create(n_head, d_head, capacity)
        if self.c == NULL:
            raise MemoryError("no memory for the key/value cache")

    def __dealloc__(self):
        llm_kv_cache_destroy(self.c)

    @property
    def nbytes(self):
        return llm_kv_cache_bytes(self.c)


cdef llm_attention_shape _attention_shape(shape, n_head, n_kv_head, window, bidirectional, lengths, dropout_p, seed,
                                          step, site_, first) except *:
    if len(shape) != 3:
        raise ValueError(f"q has shape {shape}, expected (B,T,D)")
    B, T, D = shape
    if n_head < 1 or D == 0 or D % n_head:
        raise ValueError(f"n_head {n_head} does not divide D {D}")
    n_kv_head = n_head if n_kv_head is None else n_kv_head
    if n_kv_head < 1 or n_head % n_kv_head:
        raise ValueError(f"n_kv_head {n_kv_head} does not divide n_head {n_head}")
    window = 0 if window is None else window
    if window < 0 or window and bidirectional:
        raise ValueError(f"window {window} is negative, or of attention both ways")
    cdef llm_attention_shape s
    s.B, s.T, s.D, s.n_head, s.n_kv_head, s.window = B, T, D, n_head, n_kv_head, window
    s.q_stride = s.k_stride = s.v_stride = D
    s.bidirectional = bidirectional
    s.lengths = NULL
    if lengths is not None:
        if B != 1 or T != lengths.sum(dtype=np.int64):
            raise ValueError(f"q has shape {shape}, expected (1,{lengths.sum(dtype=np.int64)},D) with these lengths")
        s.B, s.T, s.lengths = lengths.size, max(lengths, default=0), _int_data(lengths)
    s.dropout_p = _probability(dropout_p)
    s.key = _dropout_key(seed, step, site_)
    s.first = first
    s.kept = NULL
    return s


cdef llm_rotary_shape _rotary_shape(x, n_positions, n_head, half) except *:
    if x.ndim == 0 or n_head < 1 or x.shape[-1] == 0 or x.shape[-1] % n_head:
        raise ValueError(f"n_head {n_head} does not divide the last axis of x {x.shape}")
    cdef llm_rotary_shape s
    s.n, s.n_positions, s.n_head = x.size // x.shape[-1], n_positions, n_head
    s.d_head, s.half = x.shape[-1] // n_head, half
    if 2 * s.half > s.d_head:
        raise ValueError(f"{2 * half} rotated dimensions are more than the {s.d_head} of a head")
    if n_positions < 1 or s.n % s.n_positions:
        raise ValueError(f"{n_positions} positions do not fit {s.n} rows")
    return s


cdef class AttentionOps(RowOps):

    def rotary_forward(self, x, positions, n_head, *, double theta=10000.0, dims=0, scaling=None):
        """(out, cosine, sine (n,half)): rotary position embedding of x (...,D), Hugging Face's half-split form.

        Of each of n_head heads the first `dims` elements (0: all) are turned; half is dims / 2. `positions` (n) has a
        number for each row of x, or for the rows of each sequence. `scaling` is None, ("linear", factor) or ("llama3",
        factor, low_freq_factor, high_freq_factor, original_max_position_embeddings).
        """
        x = _f32("x", x)
        positions = _ids("positions", positions, 2**31)
        kinds = {None: LLM_ROTARY_UNSCALED, "linear": LLM_ROTARY_LINEAR, "llama3": LLM_ROTARY_LLAMA3}
        kind, *factors = scaling if scaling is not None else (None,)
        dims = dims or x.shape[-1] // max(n_head, 1)
        if kind not in kinds or dims % 2:
            raise ValueError(f"scaling {kind} is not known, or the number of dimensions {dims} is odd")
        cdef llm_rotary_shape s = _rotary_shape(x, positions.size, n_head, dims // 2)
        cdef llm_rotary_scaling r
        r.kind = kinds[kind]
        r.factor, r.low_freq_factor, r.high_freq_factor, r.context = (*factors, 1.0, 1.0, 4.0, 1.0)[:4] \
            if kind != "linear" else (factors[0], 1.0, 4.0, 1.0)
        out, cosine, sine = _new(*x.shape), _new(s.n_positions, s.half), _new(s.n_positions, s.half)
        cdef float *po = _data(out)
        cdef float *pc = _data(cosine)
        cdef float *ps = _data(sine)
        cdef const float *px = _data(x)
        cdef const int32_t *pp = _int_data(positions)
        with _running, nogil:
            llm_rotary_forward(self.e, po, pc, ps, px, pp, theta, &r, &s)
        self._check()
        return out, cosine, sine

    def rotary_backward(self, dout, cosine, sine, n_head, *, dx=None):
        """dx (...,D) from dout and the forward's tables: the turns taken back."""
        dout = _f32("dout", dout)
        cosine = _f32("cosine", cosine)
        sine = _f32("sine", sine, cosine.shape)
        cdef llm_rotary_shape s = _rotary_shape(dout, cosine.shape[0], n_head, cosine.shape[1])
        dx, acc = _gradient("dx", dx, dout.shape)
        cdef float *px = _data(dx)
        cdef const float *pd = _data(dout)
        cdef const float *pc = _data(cosine)
        cdef const float *ps = _data(sine)
        cdef bint add = acc
        with _running, nogil:
            llm_rotary_backward(self.e, px, add, pd, pc, ps, &s)
        self._check()
        return dx

    def attention_forward(self, q, k, v, n_head, *, n_kv_head=None, window=None, bidirectional=False, lengths=None,
                          dropout_p=0.0, seed=0, step=0, site=0, first=0):
        """(out (B,T,D), row_max, row_sum (B,n_head,T)) of attention, scores q.k / sqrt(D / n_head).

        q, k, v are (B,T,D); the column slices of an interleaved (B,T,3D) are read in place. With n_kv_head, k and v have
        as many heads (B,T,D/n_head*n_kv_head), each for n_head/n_kv_head of q's in a row. Attention is causal, with a
        window to the token itself and the window - 1 before it, or bidirectional. Dropout acts on the weights, keyed by (seed, step, site) and the index in (B,n_head,T,T), counted
        from `first`. With `lengths`, q, k, v (1,N,D) hold sequences of so many tokens end to end, and row_max, row_sum
        and the weights those of one after another.
        """
        shape = np.shape(q)
        lengths = None if lengths is None else _lengths(lengths)
        cdef llm_attention_shape s = _attention_shape(shape, n_head, n_kv_head, window, bidirectional, lengths, dropout_p,
                                                      seed, step, site, first)
        kv_shape = (*shape[:2], shape[2] // n_head * s.n_kv_head)
        q, s.q_stride = _tokens("q", q, shape)
        k, s.k_stride = _tokens("k", k, kv_shape)
        v, s.v_stride = _tokens("v", v, kv_shape)
        out = _new(*shape)
        row_max, row_sum = _new(shape[0], n_head, shape[1]), _new(shape[0], n_head, shape[1])
        cdef float *po = _data(out)
        cdef float *pm = _data(row_max)
        cdef float *ps = _data(row_sum)
        cdef const float *pq = _data(q)
        cdef const float *pk = _data(k)
        cdef const float *pv = _data(v)
        if out.size:
            with _running, nogil:
                llm_attention_forward(self.e, po, pm, ps, pq, pk, pv, &s)
            self._check()
        return out, row_max, row_sum

    def attention_backward(self, dout, out, row_max, row_sum, q, k, v, n_head, *, into=None, n_kv_head=None,
                           window=None, bidirectional=False, lengths=None, dropout_p=0.0, seed=0, step=0, site=0, first=0):
        """(dq, dk, dv), of the shapes of q, k, v, from the forward's inputs and results and the same dropout key.

        `into` is a (dq, dk, dv) so far, which the new gradients are added to.
        """
        shape = np.shape(q)
        lengths = None if lengths is None else _lengths(lengths)
        cdef llm_attention_shape s = _attention_shape(shape, n_head, n_kv_head, window, bidirectional, lengths, dropout_p,
                                                      seed, step, site, first)
        kv_shape = (*shape[:2], shape[2] // n_head * s.n_kv_head)
        q, s.q_stride = _tokens("q", q, shape)
        k, s.k_stride = _tokens("k", k, kv_shape)
        v, s.v_stride = _tokens("v", v, kv_shape)
        dout = _f32("dout", dout, shape)
        out = _f32("out", out, shape)
        row_max = _f32("row_max", row_max, (shape[0], n_head, shape[1]))
        row_sum = _f32("row_sum", row_sum, (shape[0], n_head, shape[1]))
        so_far = (None, None, None) if into is None else into
        if len(so_far) != 3 or (into is not None and any(g is None for g in into)):
            raise ValueError("into needs three gradients, for q, k and v")
        dq, acc = _strided_gradient("dq", so_far[0], shape, s.q_stride)
        dk, acc = _strided_gradient("dk", so_far[1], kv_shape, s.k_stride)
        dv, acc = _strided_gradient("dv", so_far[2], kv_shape, s.v_stride)
        cdef bint add = acc
        cdef float *pdq = _data(dq)
        cdef float *pdk = _data(dk)
        cdef float *pdv = _data(dv)
        cdef const float *pd = _data(dout)
        cdef const float *po = _data(out)
        cdef const float *pm = _data(row_max)
        cdef const float *ps = _data(row_sum)
        cdef const float *pq = _data(q)
        cdef const float *pk = _data(k)
        cdef const float *pv = _data(v)
        if out.size:
            with _running, nogil:
                llm_attention_backward(self.e, pdq, pdk, pdv, add, pd, po, pm, ps, pq, pk, pv, &s)
            self._check()
        return dq, dk, dv

    def attention_cached(self, KVCache cache not None, q, k, v, past=None, *, n_head=None, window=None):
        """out (T,D): the attention of T new tokens, whose keys and values the cache keeps from now on.

        q, k, v are (T,D); the tokens follow the first `past` cached ones (None: all of them), later ones are forgotten.
        The cache's heads are those of k and v; q has n_head (None: as many), and window is attention_forward's.
        """
        shape = (1, *np.shape(q))
        cdef size_t heads = cache.n_head if n_head is None else n_head, seen = 0 if window is None else window
        if heads < 1 or heads % cache.n_head:
            raise ValueError(f"the cache's {cache.n_head} heads do not divide n_head {n_head}")
        if len(shape) != 3 or shape[2] != heads * cache.d_head:
            raise ValueError(f"q has shape {shape[1:]}, expected (T, {heads * cache.d_head})")
        kv_shape = (*shape[:2], cache.n_head * cache.d_head)
        start = cache.length if past is None else past
        if not 0 <= start <= cache.length:
            raise ValueError(f"past {start} is outside [0, {cache.length}]")
        if start + shape[1] > cache.capacity:
            raise ValueError(f"{start} + {shape[1]} tokens do not fit the cache's capacity {cache.capacity}")
        q, q_stride = _tokens("q", np.expand_dims(q, 0), shape)
        k, k_stride = _tokens("k", np.expand_dims(k, 0), kv_shape)
        v, v_stride = _tokens("v", np.expand_dims(v, 0), kv_shape)
        out = _new(*shape[1:])
        cdef float *po = _data(out)
        cdef const float *pq = _data(q)
        cdef const float *pk = _data(k)
        cdef const float *pv = _data(v)
        cdef size_t sq = q_stride, sk = k_stride, sv = v_stride, before = start, T = shape[1]
        if T:
            with _running, nogil:
                llm_attention_cached(self.e, po, &cache.c, &before, 1, pq, pk, pv, T, sq, sk, sv, heads, seen)
            cache.length = start     # an interrupted op leaves the new entries undefined
            self._check()
        cache.length = start + T
        return out
