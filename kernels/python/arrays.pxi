# Checks between NumPy and the engine, which trusts its arguments: types, shapes, strides, ids. Included by core.pyx.

cdef inline float *_data(object a) except? NULL:
    return <float *><uintptr_t>a.ctypes.data


cdef inline int32_t *_int_data(object a) except? NULL:
    return <int32_t *><uintptr_t>a.ctypes.data


def _typed(str name, x):
    """x as an ndarray, refused unless it is float32: a silent conversion would lose bits."""
    if not isinstance(x, np.ndarray):
        x = np.asarray(x)
        if x.dtype != np.float32 and x.dtype.kind in "fiu":
            x = x.astype(np.float32)     # a list or a scalar has no type of its own
    if x.dtype != np.float32:
        raise TypeError(f"{name} must be float32, got {x.dtype}")
    return x


def _f32(str name, x, shape=None):
    """x as a contiguous float32 array, of the given shape when one is given."""
    x = _typed(name, x)
    if shape is not None and x.shape != tuple(shape):
        raise ValueError(f"{name} has shape {x.shape}, expected {tuple(shape)}")
    return np.require(x, np.float32, ["C", "A"])


def _new(*shape):
    return np.empty(shape, np.float32)


def _count(shape):
    """How many rows a leading shape stands for, also when rows are empty."""
    return math.prod(shape)


def _rows(str name, x):
    """x with at least one axis, its number of rows, and the length of a row (not 0)."""
    x = _f32(name, x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{name} has shape {x.shape}, expected rows of at least one element")
    return x, x.size // x.shape[-1], x.shape[-1]


def _gradient(str name, into, shape):
    """Where a gradient goes: (array, add to it). None: a new array; an array: a copy of it to add to; False: nowhere."""
    if into is False:
        return None, False
    if into is None:
        return np.empty(shape, np.float32), False
    return np.array(_f32(name, into, shape)), True


def _check_out(str name, x, shape, *operands):
    """An error unless x is a contiguous, writable float32 array of the given shape, apart from the operands."""
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.shape != tuple(shape):
        raise ValueError(f"{name} must be a float32 array of shape {tuple(shape)}")
    if not (x.flags.c_contiguous and x.flags.aligned and x.flags.writeable):
        raise ValueError(f"{name} must be contiguous, aligned and writable")
    if any(np.may_share_memory(x, operand) for operand in operands):
        raise ValueError(f"{name} overlaps an operand")


def _matrix(str name, x):
    """A two-dimensional x and its leading dimension: views of whole rows stay views, anything else is copied."""
    x = _typed(name, x)
    if x.ndim != 2:
        raise ValueError(f"{name} has shape {x.shape}, expected a matrix")
    rows, cols = x.shape
    ok = x.flags.aligned and (cols <= 1 or x.strides[1] == 4)
    if ok and rows > 1 and x.strides[0] % 4 == 0 and x.strides[0] >= 4 * max(cols, 1):
        return x, x.strides[0] // 4
    return np.require(x, np.float32, ["C", "A"]), max(cols, 1)


def _tokens(str name, x, shape):
    """x (B,T,D) and the stride of a token in floats: slices of an interleaved [q | k | v] stay views."""
    x = _typed(name, x)
    if x.shape != tuple(shape):
        raise ValueError(f"{name} has shape {x.shape}, expected {tuple(shape)}")
    B, T, D = shape
    between_batches, between_tokens, within = x.strides
    if (x.flags.aligned and (within == 4 or D == 1) and between_tokens % 4 == 0 and between_tokens >= 4 * D
            and (B == 1 or between_batches == T * between_tokens)):
        return x, between_tokens // 4
    return np.require(x, np.float32, ["C", "A"]), D


def _strided_gradient(str name, into, shape, size_t stride):
    """A (B,T,D) view whose tokens lie `stride` floats apart, holding `into` when it is given; and whether to add."""
    B, T, D = shape
    grad = np.empty((B, T, stride), np.float32)[..., :D]
    if into is None:
        return grad, False
    grad[...] = _f32(name, into, shape)
    return grad, True


def _ids(str name, ids, limit, bint ignore_negative=False, shape=None):
    """ids as contiguous int32, each in [0, limit), or negative where that means "ignored"."""
    ids = np.asarray(ids)
    if ids.dtype.kind not in "iu":
        if ids.size:
            raise TypeError(f"{name} must be integers, got {ids.dtype}")
        ids = ids.astype(np.int32)
    if shape is not None and ids.shape != tuple(shape):
        raise ValueError(f"{name} has shape {ids.shape}, expected {tuple(shape)}")
    if ids.size:
        low, high = int(ids.min()), int(ids.max())
        if high >= limit or (low < 0 and not ignore_negative) or low < -2**31:
            raise ValueError(f"{name} holds {high if high >= limit else low}, outside [0, {limit})")
    return np.require(ids, np.int32, ["C", "A"])


def _lengths(lengths, rows=None):
    """The lengths of sequences laid end to end as contiguous int32, each at least 1, adding up to `rows`."""
    lengths = _ids("lengths", lengths, 2**31)
    if lengths.ndim != 1 or (lengths < 1).any():
        raise ValueError("lengths is not a list of numbers of tokens, each at least 1")
    if rows is not None and int(lengths.sum(dtype=np.int64)) != rows:
        raise ValueError(f"lengths add up to {lengths.sum(dtype=np.int64)} rows, not to {rows}")
    return lengths


cdef llm_dropout_key _dropout_key(seed, step, site_) except *:
    cdef llm_dropout_key key
    key.seed = seed
    key.step = step
    key.site = site(site_) if isinstance(site_, str) else site_
    return key


def _probability(p):
    p = float(p)
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout probability {p} is outside [0, 1)")
    return p
