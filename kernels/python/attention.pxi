# Causal multi-head attention, whole and with a key/value cache. Included by core.pyx.

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


cdef llm_attention_shape _attention_shape(shape, n_head, dropout_p, seed, step, site_, first) except *:
    if len(shape) != 3:
        raise ValueError(f"q has shape {shape}, expected (B,T,D)")
    B, T, D = shape
    if n_head < 1 or D == 0 or D % n_head:
        raise ValueError(f"n_head {n_head} does not divide D {D}")
    cdef llm_attention_shape s
    s.B, s.T, s.D, s.n_head = B, T, D, n_head
    s.q_stride = s.k_stride = s.v_stride = D
    s.dropout_p = _probability(dropout_p)
    s.key = _dropout_key(seed, step, site_)
    s.first = first
    s.kept = NULL
    return s


cdef class AttentionOps(RowOps):

    def attention_forward(self, q, k, v, n_head, *, dropout_p=0.0, seed=0, step=0, site=0, first=0):
        """(out (B,T,D), row_max, row_sum (B,n_head,T)) of causal attention, scores q.k / sqrt(D / n_head).

        q, k, v are (B,T,D); the column slices of an interleaved (B,T,3D) are read in place. Dropout acts on the weights,
        keyed by (seed, step, site) and the index in (B,n_head,T,T), counted from `first`.
        """
        shape = np.shape(q)
        cdef llm_attention_shape s = _attention_shape(shape, n_head, dropout_p, seed, step, site, first)
        q, s.q_stride = _tokens("q", q, shape)
        k, s.k_stride = _tokens("k", k, shape)
        v, s.v_stride = _tokens("v", v, shape)
        out = _new(*shape)
        row_max, row_sum = _new(s.B, n_head, s.T), _new(s.B, n_head, s.T)
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

    def attention_backward(self, dout, out, row_max, row_sum, q, k, v, n_head, *, into=None,
                           dropout_p=0.0, seed=0, step=0, site=0, first=0):
        """(dq, dk, dv), each (B,T,D), from the forward's inputs and results and the same dropout key.

        `into` is a (dq, dk, dv) so far, which the new gradients are added to.
        """
        shape = np.shape(q)
        cdef llm_attention_shape s = _attention_shape(shape, n_head, dropout_p, seed, step, site, first)
        q, s.q_stride = _tokens("q", q, shape)
        k, s.k_stride = _tokens("k", k, shape)
        v, s.v_stride = _tokens("v", v, shape)
        dout = _f32("dout", dout, shape)
        out = _f32("out", out, shape)
        row_max = _f32("row_max", row_max, (s.B, n_head, s.T))
        row_sum = _f32("row_sum", row_sum, (s.B, n_head, s.T))
        so_far = (None, None, None) if into is None else into
        if len(so_far) != 3 or (into is not None and any(g is None for g in into)):
            raise ValueError("into needs three gradients, for q, k and v")
        dq, acc = _strided_gradient("dq", so_far[0], shape, s.q_stride)
        dk, acc = _strided_gradient("dk", so_far[1], shape, s.k_stride)
        dv, acc = _strided_gradient("dv", so_far[2], shape, s.v_stride)
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

    def attention_cached(self, KVCache cache not None, q, k, v, past=None):
        """out (T,D): the attention of T new tokens, whose keys and values the cache keeps from now on.

        q, k, v are (T,D); the tokens follow the first `past` cached ones (None: all of them), later ones are forgotten.
        """
        shape = (1, *np.shape(q))
        if len(shape) != 3 or shape[2] != cache.n_head * cache.d_head:
            raise ValueError(f"q has shape {shape[1:]}, expected (T, {cache.n_head * cache.d_head})")
        start = cache.length if past is None else past
        if not 0 <= start <= cache.length:
            raise ValueError(f"past {start} is outside [0, {cache.length}]")
        if start + shape[1] > cache.capacity:
            raise ValueError(f"{start} + {shape[1]} tokens do not fit the cache's capacity {cache.capacity}")
        q, q_stride = _tokens("q", np.expand_dims(q, 0), shape)
        k, k_stride = _tokens("k", np.expand_dims(k, 0), shape)
        v, v_stride = _tokens("v", np.expand_dims(v, 0), shape)
        out = _new(*shape[1:])
        cdef float *po = _data(out)
        cdef const float *pq = _data(q)
        cdef const float *pk = _data(k)
        cdef const float *pv = _data(v)
        cdef size_t sq = q_stride, sk = k_stride, sv = v_stride, before = start, T = shape[1]
        if T:
            with _running, nogil:
                llm_attention_cached(self.e, po, &cache.c, &before, 1, pq, pk, pv, T, sq, sk, sv)
            cache.length = start     # an interrupted op leaves the new entries undefined
            self._check()
        cache.length = start + T
        return out
