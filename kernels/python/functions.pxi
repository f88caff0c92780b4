# What needs no engine: randomness, schedules, sampling, the machine. Included by core.pyx.

def available_isas():
    """Names of the instruction sets this machine can run, slowest first."""
    return [llm_isa_name(<llm_isa>i).decode() for i in range(LLM_ISA_COUNT) if llm_isa_available(<llm_isa>i)]


def best_isa():
    """The instruction set an Engine takes when none is named."""
    return llm_isa_name(llm_isa_best()).decode()


def cpu_count():
    """Cores that threads=0 stands for."""
    return llm_cpu_count()


def numerics_version():
    """Version of the rules that fix every bit of a result; it is logged with each training run."""
    return llm_numerics_version()


def site(str name):
    """The stable 64-bit hash of a dropout site's name."""
    cdef bytes encoded = name.encode()
    return llm_site(encoded)


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011): 4 words from a counter of 4 words and a key of 2, as uint32 arrays."""
    cdef uint32_t[4] out, c
    cdef uint32_t[2] k
    if len(counter) != 4 or len(key) != 2:
        raise ValueError(f"counter has {len(counter)} words and key {len(key)}, expected 4 and 2")
    for i in range(4):
        c[i] = counter[i]
    for i in range(2):
        k[i] = key[i]
    llm_philox(out, c, k)
    return np.array([out[0], out[1], out[2], out[3]], np.uint32)


def uniform(seed, stream, index):
    """The `index`-th number in [0, 1) of a stream."""
    return llm_uniform(seed, stream, index)


def permutation(n, seed, epoch):
    """A permutation of 0 .. n-1 keyed by (seed, epoch): int64 (n)."""
    if n < 0:
        raise ValueError(f"n is {n}, expected at least 0")
    out = np.empty(n, np.int64)
    cdef int64_t *o = <int64_t *><uintptr_t>out.ctypes.data
    cdef size_t count = n
    cdef uint64_t s = seed, ep = epoch
    with nogil:
        llm_permutation(o, count, s, ep)
    return out


def lr_schedule(str kind, i, warmup, total, lr_max, min_lr=0.0):
    """Learning rate at the i-th step (from 1) of a 'cosine', 'linear' or 'constant' schedule with linear warm-up."""
    kinds = {"cosine": LLM_COSINE, "linear": LLM_LINEAR, "constant": LLM_CONSTANT}
    if kind not in kinds:
        raise ValueError(f"unknown schedule {kind!r}, expected one of {', '.join(kinds)}")
    if i < 1 or warmup < 0 or total < 1:
        raise ValueError(f"step {i}, warmup {warmup}, total {total}: expected at least 1, 0 and 1")
    return llm_lr_schedule(kinds[kind], i, warmup, total, lr_max, min_lr)


def mean_loss(losses, targets):
    """(mean, count) of losses over the targets >= 0, summed in index order; (0.0, 0) when there is none."""
    losses = _f32("losses", losses)
    targets = _ids("targets", targets, 2**31, True, losses.shape)
    cdef size_t count = 0
    mean = llm_mean_loss(_data(losses), _int_data(targets), losses.size, &count)
    return mean, count


def penalize(logits, seen, *, repetition=1.0, presence=0.0, frequency=0.0):
    """logits (vocab) after repetition, then presence and frequency penalties for the token ids in `seen`: a new array.

    Repetition as Keskar et al. 2019 (positive logits divided, negative multiplied, once per distinct id), presence and
    frequency as in OpenAI's interface (subtracted once, and once per occurrence).
    """
    out = np.array(_f32("logits", logits))
    if out.ndim != 1:
        raise ValueError(f"logits has shape {out.shape}, expected one row")
    if not repetition > 0.0:
        raise ValueError(f"repetition penalty {repetition} is not positive")
    seen = _ids("seen", seen, out.shape[0])
    if llm_penalize(_data(out), out.size, _int_data(seen), seen.size, repetition, presence, frequency, NULL, NULL) != LLM_OK:
        raise MemoryError("no memory for penalties")
    return out


def sample(logits, *, uniform, temperature=1.0, top_k=0, top_p=1.0):
    """A token id from logits (vocab), drawn by `uniform` in [0, 1).

    Temperature 0 takes the largest logit. Otherwise softmax(logits / temperature), limited to the top_k largest (0: all)
    and then to the smallest set with probability >= top_p (1: all). Ties are broken by token id.
    """
    logits = _f32("logits", logits)
    if logits.ndim != 1 or not logits.size:
        raise ValueError(f"logits has shape {logits.shape}, expected one row of at least one element")
    if not (temperature >= 0.0 and temperature != float("inf")):
        raise ValueError(f"temperature {temperature} is not a number of at least 0")
    if top_k < 0:
        raise ValueError(f"top_k {top_k} is negative")
    if not 0.0 <= top_p <= 1.0:
        raise ValueError(f"top_p {top_p} is outside [0, 1]")
    if not 0.0 <= uniform < 1.0:
        raise ValueError(f"uniform {uniform} is outside [0, 1)")
    cdef llm_sampler s
    s.temperature, s.top_k, s.top_p, s.uniform = temperature, top_k, top_p, uniform
    s.stop, s.arg = NULL, NULL
    cdef const float *row = _data(logits)
    cdef size_t vocab = logits.size
    cdef int64_t token
    with nogil:
        token = llm_sample(row, vocab, &s)
    if token == -1:
        raise ValueError("no logit is finite")
    if token < 0:
        raise MemoryError("no memory for sampling")
    return token
