# Weight files (kernels/core/formats/weights.h): .safetensors, .npz, the gzip stream of (name, .npy) records. Included by core.pyx.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINTR, errno
from libc.stdlib cimport calloc, free
from posix.unistd cimport pread, write as posix_write

import os

cdef extern from "formats/weights.h" nogil:
    const int LLM_WEIGHTS_MAX_NDIM
    const int LLM_WEIGHTS_ERROR
    ctypedef enum llm_weights_format:
        LLM_SAFETENSORS
        LLM_NPZ
        LLM_NPY_GZIP
    ctypedef enum llm_dtype:
        LLM_DTYPE_F32
        LLM_DTYPE_BF16
        LLM_DTYPE_U8
    ctypedef enum llm_weights_status:
        LLM_WEIGHTS_OK
        LLM_WEIGHTS_INVALID
        LLM_WEIGHTS_UNREADABLE
        LLM_WEIGHTS_NO_MEMORY
    ctypedef struct llm_source:
        void *arg
        uint64_t size
        bint (*read)(void *arg, uint64_t offset, void *out, size_t n) noexcept nogil
    ctypedef struct llm_sink:
        void *arg
        bint (*write)(void *arg, const void *data, size_t n) noexcept nogil
    ctypedef struct llm_weights_entry:
        const char *name
        llm_dtype dtype
        int ndim
        uint64_t dims[8]
        uint64_t count
    ctypedef struct llm_weights_pair:
        const char *key
        const char *value
    ctypedef struct llm_weights:
        pass
    ctypedef struct llm_weights_writer:
        pass
    llm_weights *llm_weights_open(const llm_source *source, uint64_t max_bytes, llm_weights_status *status, char *error)
    void llm_weights_close(llm_weights *w)
    llm_weights_format llm_weights_format_of(const llm_weights *w)
    size_t llm_weights_count(const llm_weights *w)
    const llm_weights_entry *llm_weights_get(const llm_weights *w, size_t i)
    size_t llm_weights_find(const llm_weights *w, const char *name)
    const char *llm_weights_metadata(const llm_weights *w, const char *key)
    llm_weights_status llm_weights_read(llm_weights *w, size_t i, uint64_t first, uint64_t n, float *out)
    llm_weights_status llm_weights_read_bytes(llm_weights *w, size_t i, uint64_t first, uint64_t n, void *out)
    const char *llm_weights_error(const llm_weights *w)
    const char *llm_dtype_name(llm_dtype dtype)
    llm_weights_writer *llm_weights_write_begin(const llm_sink *sink, llm_weights_format format,
                                                const llm_weights_entry *entries, size_t n_entries,
                                                const llm_weights_pair *metadata, size_t n_metadata,
                                                llm_weights_status *status, char *error)
    llm_weights_status llm_weights_write(llm_weights_writer *w, const void *data, size_t n)
    llm_weights_status llm_weights_write_end(llm_weights_writer *w)
    void llm_weights_write_free(llm_weights_writer *w)
    const char *llm_weights_write_error(const llm_weights_writer *w)
    uint64_t llm_megatron_row(uint64_t row, uint64_t n_head, uint64_t d_head, bint version_2)


class WeightsFileError(ValueError):
    """A weight file is not what it should be."""


cdef struct _OpenFile:
    int fd
    int error


cdef bint _read_fd(void *arg, uint64_t offset, void *out, size_t n) noexcept nogil:
    cdef _OpenFile *f = <_OpenFile *>arg
    cdef ssize_t k
    while n > 0:
        k = pread(f.fd, out, n, <long long>offset)
        if k < 0 and errno == EINTR:
            continue
        if k <= 0:
            f.error = errno if k < 0 else 0
            return False
        offset += <uint64_t>k
        out = <char *>out + k
        n -= <size_t>k
    return True


cdef bint _write_fd(void *arg, const void *data, size_t n) noexcept nogil:
    cdef _OpenFile *f = <_OpenFile *>arg
    cdef ssize_t k
    while n > 0:
        k = posix_write(f.fd, data, n)
        if k < 0 and errno == EINTR:
            continue
        if k < 0:
            f.error = errno
            return False
        data = <const char *>data + k
        n -= <size_t>k
    return True


cdef _raise(llm_weights_status status, bytes message, _OpenFile *f, str path):
    if status == LLM_WEIGHTS_NO_MEMORY:
        raise MemoryError
    if status == LLM_WEIGHTS_UNREADABLE and f.error:
        raise OSError(f.error, os.strerror(f.error), path)
    raise WeightsFileError(message.decode("utf-8", "replace"))


_FORMATS = {"safetensors": LLM_SAFETENSORS, "npz": LLM_NPZ, "gzip": LLM_NPY_GZIP}


cdef class WeightsFile:
    """A weight file open for reading; its format is told by its content. A context manager; one thread at a time.

    Raises WeightsFileError when the file is damaged or of no known format, OSError when it cannot be read.
    """

    cdef llm_weights *w
    cdef _OpenFile file
    cdef readonly str path

    def __cinit__(self, path, *, max_bytes=None):
        cdef llm_source source
        cdef llm_weights_status status = LLM_WEIGHTS_OK
        cdef char error[256]
        cdef uint64_t limit = 2**62 if max_bytes is None else max_bytes
        self.file.fd = -1
        self.path = os.fspath(path)
        self.file.fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        source.arg = &self.file
        source.size = os.fstat(self.file.fd).st_size
        source.read = _read_fd
        with nogil:
            self.w = llm_weights_open(&source, limit, &status, error)
        if self.w == NULL:
            _raise(status, error, &self.file, self.path)

    def __dealloc__(self):
        self.close()

    def close(self):
        """Let the file go; closing twice is fine."""
        llm_weights_close(self.w)
        self.w = NULL
        if self.file.fd >= 0:
            os.close(self.file.fd)
            self.file.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    cdef llm_weights *_open(self) except NULL:
        if self.w == NULL:
            raise ValueError(f"{self.path} is closed")
        return self.w

    cdef size_t _find(self, str name) except? <size_t>-1:
        cdef bytes encoded = name.encode()
        cdef size_t i = llm_weights_find(self._open(), encoded)
        if i == <size_t>-1:
            raise KeyError(name)
        return i

    @property
    def format(self):
        """'safetensors', 'npz' or 'gzip'."""
        cdef llm_weights_format found = llm_weights_format_of(self._open())
        return next(name for name, value in _FORMATS.items() if value == found)

    def tensors(self):
        """(name, element type as safetensors calls it, shape) of every tensor, in the order of the data."""
        cdef llm_weights *w = self._open()
        cdef const llm_weights_entry *e
        result = []
        for i in range(llm_weights_count(w)):
            e = llm_weights_get(w, i)
            shape = tuple([e.dims[k] for k in range(e.ndim)])
            result.append((e.name.decode(), llm_dtype_name(e.dtype).decode(), shape))
        return result

    def metadata(self, str key):
        """The value of a key of safetensors' __metadata__; None when there is none."""
        cdef bytes encoded = key.encode()
        cdef const char *value = llm_weights_metadata(self._open(), encoded)
        return None if value == NULL else value.decode()

    def read(self, str name, first_row=0, rows=None):
        """A tensor, or some of its rows (indices of the first axis), as float32. KeyError: no such tensor."""
        cdef size_t i = self._find(name)
        cdef const llm_weights_entry *e = llm_weights_get(self.w, i)
        shape = [e.dims[k] for k in range(e.ndim)]
        width = math.prod(shape[1:])
        if shape:
            rows = shape[0] - first_row if rows is None else rows
            if first_row < 0 or rows < 0 or first_row + rows > shape[0]:
                raise ValueError(f"{name} has {shape[0]} rows, not {first_row} + {rows}")
            shape[0] = rows
        out = np.empty(shape, np.float32)
        cdef uint64_t first = first_row * width, n = out.size
        cdef float *p = _data(out)
        cdef llm_weights_status status
        with nogil:
            status = llm_weights_read(self.w, i, first, n, p)
        if status != LLM_WEIGHTS_OK:
            _raise(status, llm_weights_error(self.w), &self.file, self.path)
        return out


cdef class WeightsWriter:
    """A weight file being written to an open file descriptor: tensors of float32, in the order of `tensors`.

    `tensors` lists (name, shape), or (name, shape, "BF16") of one whose elements are bf16, which safetensors can hold.
    Call write() with the data in pieces of any size, then finish().
    """

    cdef llm_weights_writer *w
    cdef llm_weights_entry *entries
    cdef _OpenFile file
    cdef list names

    def __cinit__(self, int fd, str format, tensors, metadata=None):
        cdef llm_sink sink
        cdef llm_weights_status status = LLM_WEIGHTS_OK
        cdef char error[256]
        cdef llm_weights_pair *pairs
        if format not in _FORMATS:
            raise ValueError(f"unknown format {format!r}, expected one of {', '.join(_FORMATS)}")
        self.file.fd = fd
        tensors = [(*tensor, "F32")[:3] for tensor in tensors]
        self.names = [name.encode() for name, _, _ in tensors]
        texts = [(key.encode(), value.encode()) for key, value in (metadata or {}).items()]
        if any(b"\0" in text for text in (*self.names, *(text for pair in texts for text in pair))):
            raise WeightsFileError("a name or metadata hold NUL")
        self.entries = <llm_weights_entry *>calloc(len(tensors) + 1, sizeof(llm_weights_entry))
        pairs = <llm_weights_pair *>calloc(len(texts) + 1, sizeof(llm_weights_pair))
        try:
            if self.entries == NULL or pairs == NULL:
                raise MemoryError
            for i, (name, shape, dtype) in enumerate(tensors):
                if dtype not in ("F32", "BF16"):
                    raise ValueError(f"{name} has elements of type {dtype!r}, expected F32 or BF16")
                if len(shape) > LLM_WEIGHTS_MAX_NDIM:
                    raise ValueError(f"{name} has {len(shape)} axes, at most {LLM_WEIGHTS_MAX_NDIM} can be written")
                self.entries[i].name = <bytes>self.names[i]
                self.entries[i].dtype = LLM_DTYPE_F32 if dtype == "F32" else LLM_DTYPE_BF16
                self.entries[i].ndim = len(shape)
                for k, n in enumerate(shape):
                    self.entries[i].dims[k] = n
            for i, (key, value) in enumerate(texts):
                pairs[i].key = <bytes>key
                pairs[i].value = <bytes>value
            sink.arg = &self.file
            sink.write = _write_fd
            self.w = llm_weights_write_begin(&sink, _FORMATS[format], self.entries, len(tensors), pairs, len(texts),
                                             &status, error)
        finally:
            free(pairs)
        if self.w == NULL:
            _raise(status, error, &self.file, "the file")

    def __dealloc__(self):
        llm_weights_write_free(self.w)
        free(self.entries)

    def write(self, data):
        """The next elements: a float32 array, or a buffer of little-endian elements of the tensor's type."""
        cdef Py_buffer view
        cdef llm_weights_status status
        if isinstance(data, np.ndarray):
            data = memoryview(_f32("data", data).reshape(-1)).cast("B") if data.size else b""
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                status = llm_weights_write(self.w, view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        self._check(status)

    def finish(self):
        """End the file; WeightsFileError when data are missing."""
        self._check(llm_weights_write_end(self.w))

    cdef _check(self, llm_weights_status status):
        if status != LLM_WEIGHTS_OK:
            _raise(status, llm_weights_write_error(self.w), &self.file, "the file")


def megatron_rows(n_head, d_head, version):
    """Rows of Megatron-LM's query_key_value that make [q; k; v], heads in order: an index array of 3 * n_head * d_head.

    Checkpoint version 1.0 orders them heads x d_head x 3, versions from 2.0 heads x 3 x d_head.
    """
    cdef uint64_t heads = n_head, width = d_head
    cdef bint second = version >= 2
    return np.array([llm_megatron_row(row, heads, width, second) for row in range(3 * n_head * d_head)], np.int64)
