# The engine's settings, what happens when an op is interrupted or out of memory. Included by core.pyx.

cdef double POLL_SECONDS = 0.02

cdef struct Poll:
    double next          # when to look at signals again: taking the GIL for each tile would be slow
    void *engine


cdef c_bool _poll(void *arg) noexcept nogil:
    cdef Poll *poll = <Poll *>arg
    cdef timespec now
    cdef double t
    clock_gettime(CLOCK_MONOTONIC, &now)
    t = now.tv_sec + 1e-9 * now.tv_nsec
    if t < poll.next:
        return False
    poll.next = t + POLL_SECONDS
    with gil:
        return (<EngineState>poll.engine)._interrupted()


# The engine's thread pool serves one caller at a time.
_running = threading.Lock()


cdef class EngineState:
    """How ops run: instruction set, threads, tile height, interruption. Engine adds the ops."""
    cdef llm_engine *e
    cdef Poll poll
    cdef object pending

    def __cinit__(self, isa=None, threads=1, attention_chunk=None):
        self.e = llm_engine_create()
        if self.e == NULL:
            raise MemoryError("no memory for an engine")
        self.poll.engine = <void *>self
        self.poll.next = 0
        llm_engine_set_should_stop(self.e, _poll, &self.poll)
        if isa is not None:
            self.isa = isa
        self.threads = threads
        if attention_chunk is not None:
            self.set_attention_chunk(attention_chunk)

    def __dealloc__(self):
        llm_engine_destroy(self.e)

    def __repr__(self):
        return f"Engine(isa={self.isa!r}, threads={self.threads})"

    @property
    def isa(self):
        return llm_isa_name(llm_engine_isa(self.e)).decode()

    @isa.setter
    def isa(self, name):
        for i in range(LLM_ISA_COUNT):
            if llm_isa_name(<llm_isa>i).decode() == name:
                if not llm_engine_set_isa(self.e, <llm_isa>i):
                    raise ValueError(f"this machine cannot run {name}, only {', '.join(available_isas())}")
                return
        raise ValueError(f"unknown instruction set {name!r}")

    @property
    def threads(self):
        return llm_engine_threads(self.e)

    @threads.setter
    def threads(self, int n):
        if n < 0:
            raise ValueError(f"threads {n} is negative")
        llm_engine_set_threads(self.e, n)

    def set_attention_chunk(self, int query_rows):
        """Query rows that attention handles at a time."""
        if query_rows < 1:
            raise ValueError(f"attention_chunk {query_rows} is not positive")
        llm_engine_set_attention_chunk(self.e, query_rows)

    def fma_burst(self, tasks):
        """Multiply-adds in registers, `tasks` bursts shared among the threads; returns how many flops that was."""
        cdef size_t n = tasks
        cdef double flops
        with _running, nogil:
            flops = llm_fma_burst(self.e, n)
        self._check()
        return flops

    cdef bint _interrupted(self) noexcept:
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            self.pending = error
            return True
        return False

    cdef int _check(self) except -1:
        cdef llm_status status = llm_engine_status(self.e)
        if status == LLM_OK:
            return 0
        llm_engine_clear_status(self.e)
        error, self.pending = self.pending, None
        if status == LLM_STOPPED:
            raise error if error is not None else KeyboardInterrupt()
        raise MemoryError("no memory for the engine's scratch")
