# WordPiece (kernels/core/tokenizer/wordpiece.h) for Python strings. Included by core.pyx.

from libc.string cimport memset

cdef extern from "tokenizer/wordpiece.h" nogil:
    enum:
        LLM_BERT_CLEAN_TEXT
        LLM_BERT_HANDLE_CHINESE_CHARS
        LLM_BERT_STRIP_ACCENTS
        LLM_BERT_LOWERCASE
        LLM_WORDPIECE_PART
    ctypedef struct llm_bert_buffer:
        uint8_t *text
        size_t n
    ctypedef struct llm_wordpiece_settings:
        unsigned normalizer
        const uint8_t *unknown
        size_t n_unknown
        const uint8_t *prefix
        size_t n_prefix
        size_t max_characters
        c_bool cleanup
    ctypedef struct llm_wordpiece:
        pass
    void llm_bert_free(llm_bert_buffer *b)
    llm_bpe_status llm_bert_normalize(llm_bert_buffer *b, unsigned options, const uint8_t *text, size_t n,
                                      llm_should_stop stop, void *arg)
    llm_wordpiece *llm_wordpiece_create(const llm_wordpiece_settings *settings)
    void llm_wordpiece_destroy(llm_wordpiece *t)
    llm_bpe_status llm_wordpiece_put_token(llm_wordpiece *t, int32_t id, const uint8_t *token, size_t n,
                                           unsigned flags)
    llm_bpe_status llm_wordpiece_seal(llm_wordpiece *t)
    llm_bpe_status llm_wordpiece_encode(llm_wordpiece *t, const uint8_t *text, size_t n, bint special,
                                        llm_should_stop stop, void *arg, const int32_t **ids, size_t *n_ids)
    size_t llm_wordpiece_part(const llm_wordpiece *t, int32_t id, bint first, uint8_t *out)
    c_bool llm_wordpiece_parse_vocab(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg,
                                     llm_bpe_error *error)


cdef unsigned _bert_options(clean_text, handle_chinese_chars, strip_accents, lowercase):
    return ((LLM_BERT_CLEAN_TEXT if clean_text else 0)
            | (LLM_BERT_HANDLE_CHINESE_CHARS if handle_chinese_chars else 0)
            | (LLM_BERT_STRIP_ACCENTS if (lowercase if strip_accents is None else strip_accents) else 0)
            | (LLM_BERT_LOWERCASE if lowercase else 0))


def bert_normalize(text, *, clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True):
    """What BERT's normalizer makes of a text; strip_accents None: as lowercase."""
    cdef bytes utf8 = text if isinstance(text, bytes) else _utf8(text)
    cdef llm_bert_buffer buffer
    cdef llm_bpe_status status
    memset(&buffer, 0, sizeof(buffer))
    status = llm_bert_normalize(&buffer, _bert_options(clean_text, handle_chinese_chars, strip_accents, lowercase),
                                utf8, len(utf8), NULL, NULL)
    try:
        if status != LLM_BPE_OK:
            raise MemoryError("no memory for normalizing")
        return buffer.text[:buffer.n].decode() if buffer.n else ""
    finally:
        llm_bert_free(&buffer)


cdef class WordPiece:
    """A tokenizer from tokens (id and text of each, in which parts of words have the prefix) and, by id, the flags of
    added tokens (BPE_FLAGS).

    Encodes exactly as the database does.
    """

    cdef llm_wordpiece *_tokenizer
    cdef object _lock

    def __cinit__(self, tokens, *, flags=None, clean_text=True, handle_chinese_chars=True, strip_accents=None,
                  lowercase=True, unk_token="[UNK]", continuing_subword_prefix="##",
                  size_t max_input_chars_per_word=100, cleanup=True):
        cdef bytes unknown = unk_token.encode(), prefix = continuing_subword_prefix.encode(), token
        cdef llm_wordpiece_settings settings
        cdef llm_bpe_status status
        self._lock = threading.Lock()
        settings.normalizer = _bert_options(clean_text, handle_chinese_chars, strip_accents, lowercase)
        settings.unknown = unknown
        settings.n_unknown = len(unknown)
        settings.prefix = prefix
        settings.n_prefix = len(prefix)
        settings.max_characters = max_input_chars_per_word
        settings.cleanup = cleanup
        self._tokenizer = llm_wordpiece_create(&settings)
        if self._tokenizer == NULL:
            raise MemoryError("no memory for a tokenizer")
        flags = flags or {}
        ids = set()
        for id_, text in tokens:
            if id_ in ids:
                raise ValueError(f"two tokens have id {id_}")
            ids.add(id_)
            token = text.encode()
            status = llm_wordpiece_put_token(self._tokenizer, id_, token, len(token), flags.get(id_, 0))
            if status == LLM_BPE_NO_MEMORY:
                raise MemoryError("no memory for a tokenizer")
            if status != LLM_BPE_OK:
                raise ValueError(f"token {id_}, {text!r}: " + (
                    "another has this text" if status == LLM_BPE_DUPLICATE else "not a token"))
        status = llm_wordpiece_seal(self._tokenizer)
        if status == LLM_BPE_NO_MEMORY:
            raise MemoryError("no memory for a tokenizer")
        if status != LLM_BPE_OK:
            raise ValueError(f"the vocabulary lacks {unk_token!r}")

    def __dealloc__(self):
        llm_wordpiece_destroy(self._tokenizer)

    def encode(self, text, *, special=False):
        """Token ids of a text (str, or bytes in UTF-8) as an int32 array; special: as for BPE."""
        cdef bytes utf8 = text if isinstance(text, bytes) else _utf8(text)
        cdef const uint8_t *p = utf8
        cdef size_t n = len(utf8), n_ids = 0
        cdef bint with_special = special
        cdef const int32_t *ids = NULL
        cdef int32_t *out
        cdef llm_bpe_status status
        with self._lock:
            with nogil:
                status = llm_wordpiece_encode(self._tokenizer, p, n, with_special, NULL, NULL, &ids, &n_ids)
            if status != LLM_BPE_OK:
                raise MemoryError("no memory for encoding")
            result = np.empty(n_ids, np.int32)
            out = <int32_t *><uintptr_t>result.ctypes.data
            for i in range(n_ids):
                out[i] = ids[i]
        return result

    def decode(self, ids):
        """The text of the tokens, as tokenizers' WordPiece decoder gives it. KeyError for an unknown id."""
        cdef bytearray part = bytearray(LLM_WORDPIECE_PART)
        cdef uint8_t[:] view = part
        cdef size_t n
        cdef list parts = []
        for id_ in ids:
            n = llm_wordpiece_part(self._tokenizer, id_, not parts, &view[0])
            if n > LLM_WORDPIECE_PART:
                raise KeyError(f"token {id_} is not in the tokenizer")
            parts.append(bytes(part[:n]))
        return b"".join(parts).decode("utf-8", "replace")


def parse_wordpiece_vocab(bytes contents):
    """(id, token) of vocab.txt. ValueError with the line for other files."""
    cdef list found = []
    cdef llm_bpe_error error
    if not llm_wordpiece_parse_vocab(contents, len(contents), _collect_token, <void *>found, &error):
        _refuse("vocabulary", error)
    return [(id_, token.decode()) for id_, token in found]
