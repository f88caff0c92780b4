# Byte-level BPE (kernels/core/tokenizer/bpe.h) for Python strings. Included by core.pyx.

from libc.stdint cimport uint8_t
from libc.string cimport memset

cdef extern from "tokenizer/bpe.h" nogil:
    ctypedef enum llm_bpe_status:
        LLM_BPE_OK
        LLM_BPE_NO_MEMORY
        LLM_BPE_DUPLICATE
        LLM_BPE_UNKNOWN_TOKEN
        LLM_BPE_BAD_TOKEN
        LLM_BPE_NO_BYTE
        LLM_BPE_TOO_LONG
    ctypedef struct llm_bpe:
        pass
    ctypedef struct llm_bpe_trainer:
        pass
    ctypedef struct llm_bpe_error:
        const char *message
        size_t line
    ctypedef c_bool (*llm_bpe_token_sink)(void *arg, const uint8_t *token, size_t n, int32_t id) noexcept
    ctypedef c_bool (*llm_bpe_merge_sink)(void *arg, uint32_t rank, const uint8_t *left, size_t n_left,
                                          const uint8_t *right, size_t n_right) noexcept

    ctypedef enum llm_bpe_pre_tokenizer:
        LLM_BPE_GPT2
    ctypedef enum llm_bpe_blank:
        LLM_BPE_BYTE_LEVEL
    ctypedef struct llm_bpe_settings:
        llm_bpe_pre_tokenizer pre_tokenizer
        c_bool nfc
        c_bool ignore_merges
        c_bool drop_unknown
        llm_bpe_blank blank
        c_bool split
        c_bool strip

    llm_bpe *llm_bpe_create(const llm_bpe_settings *settings)
    void llm_bpe_destroy(llm_bpe *t)
    llm_bpe_status llm_bpe_put_token(llm_bpe *t, int32_t id, const uint8_t *bytes, size_t n, unsigned flags)
    llm_bpe_status llm_bpe_put_merge(llm_bpe *t, uint32_t rank, const uint8_t *left, size_t n_left,
                                     const uint8_t *right, size_t n_right)
    llm_bpe_status llm_bpe_encode(llm_bpe *t, const uint8_t *text, size_t n, bint special, bint begins,
                                  llm_should_stop stop, void *arg, const int32_t **ids, size_t *n_ids)
    uint8_t llm_bpe_missing_byte(const llm_bpe *t)
    const uint8_t *llm_bpe_token(llm_bpe *t, int32_t id, size_t *n)
    size_t llm_bpe_decode_text(llm_bpe *t, const int32_t *ids, size_t n_ids, uint8_t *text, size_t *n)
    size_t llm_bpe_piece(llm_bpe_pre_tokenizer kind, const uint8_t *text, size_t n, size_t at)
    const char *llm_bpe_pre_tokenizer_name(int i)
    size_t llm_bpe_alphabet(uint8_t *token, const uint8_t *bytes, size_t n)
    size_t llm_bpe_alphabet_bytes(uint8_t *bytes, const uint8_t *token, size_t n)
    c_bool llm_bpe_parse_vocab(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg,
                               llm_bpe_error *error)
    c_bool llm_bpe_parse_merges(const uint8_t *text, size_t n, llm_bpe_merge_sink sink, void *arg,
                                llm_bpe_error *error)
    c_bool llm_bpe_parse_tiktoken(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg,
                                  llm_bpe_error *error)
    llm_bpe_status llm_bpe_recover_merges(const llm_bpe *t, llm_should_stop stop, void *stop_arg,
                                          llm_bpe_merge_sink sink, void *arg)
    llm_bpe_trainer *llm_bpe_trainer_create()
    void llm_bpe_trainer_destroy(llm_bpe_trainer *t)
    llm_bpe_status llm_bpe_trainer_add(llm_bpe_trainer *t, const uint8_t *text, size_t n, llm_should_stop stop,
                                       void *arg)
    llm_bpe_status llm_bpe_trainer_run(llm_bpe_trainer *t, size_t n_merges, int64_t min_count,
                                       llm_should_stop stop, void *arg, const int32_t **pairs, size_t *n_pairs)


BPE_FLAGS = {"added": 1, "special": 2, "lstrip": 4, "rstrip": 8, "single_word": 16, "normalized": 32, "base": 64}


cdef extern from "tokenizer/nfc.h" nogil:
    ctypedef struct llm_nfc_buffer:
        pass
    void llm_nfc_free(llm_nfc_buffer *b)
    llm_bpe_status llm_nfc(llm_nfc_buffer *b, const uint8_t *text, size_t n, llm_should_stop stop, void *arg,
                           const uint8_t **out, size_t *n_out)


cdef _pre_tokenizers():
    names = []
    while llm_bpe_pre_tokenizer_name(len(names)) != NULL:
        names.append(llm_bpe_pre_tokenizer_name(len(names)).decode())
    return tuple(names)


PRE_TOKENIZERS = _pre_tokenizers()
_BLANKS = ("never", "prepend", "always", "first")


cdef llm_bpe_pre_tokenizer _pre_tokenizer(name) except *:
    if name not in PRE_TOKENIZERS:
        raise ValueError(f"there is no pre-tokenizer {name!r}; there are {', '.join(PRE_TOKENIZERS)}")
    return <llm_bpe_pre_tokenizer><int>PRE_TOKENIZERS.index(name)


cdef bytes _utf8(text):
    """UTF-8, half surrogate pairs replaced by U+FFFD as tiktoken does."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


cdef class BPE:
    """A tokenizer from tokens (id and bytes of each), merges (bytes left and right, lowest rank first), special ids
    and, by id, the flags of added tokens (BPE_FLAGS); the others are the settings in llm_tokenizer. With prefix_space
    it is SentencePiece's BPE, whose tokens and merges are texts in UTF-8, else byte-level BPE.

    Encodes exactly as the database does.
    """

    cdef llm_bpe *_bpe
    cdef object _lock
    cdef bint _texts

    def __cinit__(self, tokens, merges, special=(), flags=None, *, pre_tokenizer="gpt2", normalizer=None,
                  ignore_merges=False, drop_unknown=False, prefix_space=None, split=False, strip=False):
        cdef llm_bpe_status status
        cdef llm_bpe_settings settings
        cdef bytes token, left, right
        cdef uint32_t rank = 0
        self._lock = threading.Lock()
        if normalizer not in (None, "nfc"):
            raise ValueError(f"there is no normalizer {normalizer!r}")
        settings.pre_tokenizer = _pre_tokenizer(pre_tokenizer)
        settings.nfc = normalizer is not None
        settings.ignore_merges = ignore_merges
        settings.drop_unknown = drop_unknown
        if prefix_space is not None and prefix_space not in _BLANKS:
            raise ValueError(f"prefix_space must be one of {', '.join(_BLANKS)}, got {prefix_space!r}")
        settings.blank = <llm_bpe_blank><int>(0 if prefix_space is None else 1 + _BLANKS.index(prefix_space))
        settings.split = split
        settings.strip = strip
        self._texts = prefix_space is not None
        self._bpe = llm_bpe_create(&settings)
        if self._bpe == NULL:
            raise MemoryError("no memory for a tokenizer")
        all_flags = {id_: 3 for id_ in special}
        all_flags.update(flags or {})
        ids = set()
        for id_, token in tokens:
            if id_ in ids:
                raise ValueError(f"two tokens have id {id_}")
            ids.add(id_)
            status = llm_bpe_put_token(self._bpe, id_, token, len(token), all_flags.get(id_, 0))
            if status == LLM_BPE_NO_MEMORY:
                raise MemoryError("no memory for a tokenizer")
            if status != LLM_BPE_OK:
                raise ValueError(f"token {id_}, {token!r}: " + (
                    "another stands for these bytes" if status == LLM_BPE_DUPLICATE else "not a token"))
        for left, right in merges:
            status = llm_bpe_put_merge(self._bpe, rank, left, len(left), right, len(right))
            if status == LLM_BPE_NO_MEMORY:
                raise MemoryError("no memory for a tokenizer")
            if status != LLM_BPE_OK:
                raise ValueError(f"merge {rank}, {left!r} and {right!r}: " + (
                    "there before" if status == LLM_BPE_DUPLICATE else "not all of it is in the vocabulary"))
            rank += 1

    def __dealloc__(self):
        llm_bpe_destroy(self._bpe)

    def encode(self, text, *, special=False):
        """Token ids of a text (str, or bytes in UTF-8) as an int32 array.

        special: what reads like a special token is that token; else it is text, as in the database. Added tokens that
        are not special are found in any case.
        """
        cdef bytes utf8 = text if isinstance(text, bytes) else _utf8(text)
        cdef const uint8_t *p = utf8
        cdef size_t n = len(utf8), n_ids = 0
        cdef bint with_special = special
        cdef const int32_t *ids = NULL
        cdef int32_t *out
        cdef llm_bpe_status status
        with self._lock:
            with nogil:
                status = llm_bpe_encode(self._bpe, p, n, with_special, True, NULL, NULL, &ids, &n_ids)
            if status == LLM_BPE_NO_MEMORY:
                raise MemoryError("no memory for encoding")
            if status == LLM_BPE_TOO_LONG:
                raise ValueError("a word of the text is longer than 16 MiB")
            if status != LLM_BPE_OK:
                raise ValueError(f"no token for the byte {llm_bpe_missing_byte(self._bpe):#04x}")
            result = np.empty(n_ids, np.int32)
            out = <int32_t *><uintptr_t>result.ctypes.data
            for i in range(n_ids):
                out[i] = ids[i]
        return result

    def decode_bytes(self, ids):
        """The bytes that the tokens stand for, one after another. KeyError for an unknown id."""
        cdef const uint8_t *p
        cdef size_t n = 0
        cdef list parts = []
        with self._lock:
            for id_ in ids:
                p = llm_bpe_token(self._bpe, id_, &n)
                if p == NULL:
                    raise KeyError(f"token {id_} is not in the tokenizer")
                parts.append(p[:n])
        return b"".join(parts)

    def decode(self, ids):
        """The text of the tokens; U+FFFD stands for bytes that are no UTF-8."""
        if self._texts:
            return self._decode_text(np.fromiter(ids, np.int32)).decode("utf-8", "replace")
        return self.decode_bytes(ids).decode("utf-8", "replace")


    def _decode_text(self, ids):
        cdef const int32_t *given = <const int32_t *><uintptr_t>ids.ctypes.data
        cdef size_t n = 0, n_ids = len(ids), known
        cdef bytearray out
        cdef uint8_t[:] view
        with self._lock:
            known = llm_bpe_decode_text(self._bpe, given, n_ids, NULL, &n)
            if known < n_ids:
                raise KeyError(f"token {ids[known]} is not in the tokenizer")
            out = bytearray(n + 1)
            view = out
            llm_bpe_decode_text(self._bpe, given, n_ids, &view[0], &n)
        return bytes(out[:n])


def nfc(text):
    """A text (str, or bytes in UTF-8) in Unicode's normalization form C, as bytes."""
    cdef bytes utf8 = text if isinstance(text, bytes) else _utf8(text)
    cdef llm_nfc_buffer buffer
    cdef const uint8_t *out = NULL
    cdef size_t n = 0
    memset(&buffer, 0, sizeof(buffer))
    try:
        if llm_nfc(&buffer, utf8, len(utf8), NULL, NULL, &out, &n) != LLM_BPE_OK:
            raise MemoryError("no memory for normalizing")
        return out[:n]
    finally:
        llm_nfc_free(&buffer)


def bpe_pieces(text, pre_tokenizer="gpt2"):
    """What a pre-tokenizer makes of a text (str, or bytes in UTF-8): a list of bytes."""
    cdef llm_bpe_pre_tokenizer kind = _pre_tokenizer(pre_tokenizer)
    cdef bytes utf8 = text if isinstance(text, bytes) else _utf8(text)
    cdef const uint8_t *p = utf8
    cdef size_t n = len(utf8), at = 0, end
    pieces = []
    while at < n:
        end = llm_bpe_piece(kind, p, n, at)
        pieces.append(utf8[at:end])
        at = end
    return pieces


def bpe_alphabet(bytes token):
    """Bytes in GPT-2's printable alphabet, one character each."""
    cdef bytearray out = bytearray(2 * len(token))
    cdef uint8_t[:] view
    if not token:
        return ""
    view = out
    return bytes(out[:llm_bpe_alphabet(&view[0], token, len(token))]).decode()


def bpe_alphabet_bytes(str token):
    """The bytes that a token in the printable alphabet stands for. ValueError: a character stands for none."""
    cdef bytes utf8 = token.encode()
    cdef bytearray out = bytearray(len(utf8) + 1)
    cdef uint8_t[:] view = out
    cdef size_t n = llm_bpe_alphabet_bytes(&view[0], utf8, len(utf8))
    if n > <size_t>len(utf8):
        raise ValueError(f"{token!r} is not in the byte-level alphabet")
    return bytes(out[:n])


cdef c_bool _collect_token(void *arg, const uint8_t *token, size_t n, int32_t id_) noexcept with gil:
    (<list>arg).append((id_, token[:n]))
    return True


cdef c_bool _collect_merge(void *arg, uint32_t rank, const uint8_t *left, size_t n_left, const uint8_t *right,
                           size_t n_right) noexcept with gil:
    (<list>arg).append((left[:n_left], right[:n_right]))
    return True


cdef _refuse(what, llm_bpe_error error):
    raise ValueError(f"{what}, line {error.line}: {error.message.decode()}")


def parse_bpe_vocab(bytes contents):
    """(id, token in the byte-level alphabet) of vocab.json or encoder.json. ValueError with the line for others."""
    cdef list found = []
    cdef llm_bpe_error error
    if not llm_bpe_parse_vocab(contents, len(contents), _collect_token, <void *>found, &error):
        _refuse("vocabulary", error)
    return [(id_, token.decode()) for id_, token in found]


def parse_bpe_merges(bytes contents):
    """(left, right) of merges.txt or vocab.bpe, lowest rank first. ValueError with the line for other files."""
    cdef list found = []
    cdef llm_bpe_error error
    if not llm_bpe_parse_merges(contents, len(contents), _collect_merge, <void *>found, &error):
        _refuse("merges", error)
    return [(left.decode(), right.decode()) for left, right in found]


def parse_tiktoken(bytes contents):
    """(id, bytes) of a .tiktoken file. ValueError with the line for other files."""
    cdef list found = []
    cdef llm_bpe_error error
    if not llm_bpe_parse_tiktoken(contents, len(contents), _collect_token, <void *>found, &error):
        _refuse("tiktoken file", error)
    return found


def recover_merges(tokens):
    """The merges (bytes left and right) behind tokens (id and bytes) whose ids are their ranks."""
    cdef BPE tokenizer = BPE(tokens, ())
    cdef list found = []
    if llm_bpe_recover_merges(tokenizer._bpe, NULL, NULL, _collect_merge, <void *>found) != LLM_BPE_OK:
        raise MemoryError("no memory for merges")
    return found


def train_bpe(texts, size_t n_merges, int64_t min_count=2):
    """Byte pair encoding learnt from texts: (left, right) ids of each merge, as llm_train_bpe learns it.

    Ids below 256 are bytes in GPT-2's order, 256 + i is merge i.
    """
    cdef llm_bpe_trainer *trainer = llm_bpe_trainer_create()
    cdef const int32_t *pairs = NULL
    cdef size_t n_pairs = 0
    cdef bytes utf8
    cdef llm_bpe_status status = LLM_BPE_OK if trainer != NULL else LLM_BPE_NO_MEMORY
    try:
        for text in texts:
            utf8 = _utf8(text)
            if status == LLM_BPE_OK:
                status = llm_bpe_trainer_add(trainer, utf8, len(utf8), NULL, NULL)
        if status == LLM_BPE_OK:
            status = llm_bpe_trainer_run(trainer, n_merges, min_count, NULL, NULL, &pairs, &n_pairs)
        if status != LLM_BPE_OK:
            raise MemoryError("no memory for training")
        return [(pairs[2 * i], pairs[2 * i + 1]) for i in range(n_pairs)]
    finally:
        llm_bpe_trainer_destroy(trainer)
