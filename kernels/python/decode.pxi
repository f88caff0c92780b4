# GPT-2's next-token loop in C, for benchmarks to hold generation in SQL against. Included by core.pyx.

cdef extern from "llm_core.h" nogil:
    ctypedef struct llm_decode
    llm_decode *llm_decode_create(llm_engine *e, size_t n_layer, size_t n_head, size_t d, size_t n_positions,
                                  size_t vocab, llm_precision precision)
    void llm_decode_destroy(llm_decode *g)
    bint llm_decode_prompt(llm_decode *g, size_t past)
    int64_t llm_decode_tokens(llm_decode *g, size_t past, size_t n)


cdef class DecodeLoop:
    """Generating with a GPT-2 of these sizes whose weights mean nothing: its time is that of the arithmetic alone.

    Weights are held as 'float32', 'bf16', 'int8' or 'int4'. ValueError: sizes that make no model.
    """
    cdef llm_decode *g
    cdef EngineState engine
    cdef readonly size_t n_positions

    def __init__(self, EngineState engine not None, *, size_t n_layer, size_t n_head, size_t d_model,
                 size_t n_positions, size_t vocab, str precision="float32"):
        cdef llm_precision which = LLM_FLOAT32 if precision == "float32" else _packed_precision(precision)
        if 0 in (n_layer, n_head, d_model, n_positions, vocab) or d_model % n_head:
            raise ValueError("sizes must be positive, and n_head must divide d_model")
        llm_decode_destroy(self.g)
        self.engine = engine
        self.n_positions = n_positions
        with _running, nogil:
            self.g = llm_decode_create(engine.e, n_layer, n_head, d_model, n_positions, vocab, which)
        engine._check()
        if self.g == NULL:
            raise MemoryError("no memory for the loop's weights")

    def __dealloc__(self):
        llm_decode_destroy(self.g)

    def prompt(self, size_t n):
        """Fills the key/value caches as a prompt of n tokens would."""
        cdef bint filled
        if n > self.n_positions:
            raise ValueError(f"{n} tokens do not fit into {self.n_positions} positions")
        with _running, nogil:
            filled = llm_decode_prompt(self.g, n)
        self.engine._check()
        if not filled:
            raise MemoryError("no memory for a prompt")

    def tokens(self, size_t past, size_t n):
        """Computes n tokens after `past` ones, greedily, each from all before it; returns the last."""
        cdef int64_t token
        if past > self.n_positions or n > self.n_positions - past:
            raise ValueError(f"{n} tokens after {past} do not fit into {self.n_positions} positions")
        with _running, nogil:
            token = llm_decode_tokens(self.g, past, n)
        self.engine._check()
        return token
