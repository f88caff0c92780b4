/*
 * bpe.h -- byte-level byte pair encoding: pre-tokenizers, merging, decoding, files, training.
 *
 * Portable C11 without global state; memory by malloc. Texts are UTF-8; a byte that is no part of a UTF-8
 * character counts as a character of no class and is encoded like any other. Functions that may run long take
 * a should_stop, which may be NULL. Sennrich, Haddow & Birch 2016; Radford et al. 2019, section 2.2.
 */
#ifndef LLM_BPE_H
#define LLM_BPE_H

#include "llm_core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum llm_bpe_status {
    LLM_BPE_OK,
    LLM_BPE_NO_MEMORY,
    LLM_BPE_STOPPED,
    LLM_BPE_DUPLICATE,     /* put: the token's bytes, the merge's pair or its rank are there already */
    LLM_BPE_UNKNOWN_TOKEN, /* put_merge: left, right or their concatenation is no token */
    LLM_BPE_BAD_TOKEN,     /* put_token: an id below 0, no or too many bytes */
    LLM_BPE_NO_BYTE,       /* encode: llm_bpe_missing_byte() has no token */
    LLM_BPE_TOO_LONG       /* encode: a piece of more than LLM_BPE_MAX_PIECE bytes */
} llm_bpe_status;

#define LLM_BPE_MAX_TOKEN 1024
#define LLM_BPE_MAX_PIECE ((size_t)1 << 24)

/* ---- the tokenizer ------------------------------------------------------------------ */

/* Tokens and merge rules; it also holds a cache, so that only one thread at a time may use it. */
typedef struct llm_bpe llm_bpe;

/* How a text is cut into the pieces within which merging happens; the same order as the names */
typedef enum llm_bpe_pre_tokenizer {
    LLM_BPE_GPT2,
    LLM_BPE_SMOLLM, /* each digit alone, what lies between as GPT-2 */
    LLM_BPE_LLAMA3, /* and cl100k */
    LLM_BPE_QWEN2,
    LLM_BPE_O200K,
    LLM_BPE_TEKKEN
} llm_bpe_pre_tokenizer;

/*
 * SentencePiece's BPE, of characters: blanks are U+2581, a character that is no token becomes tokens of its bytes, and
 * a blank stands before what lies between added tokens, as this says.
 */
typedef enum llm_bpe_blank {
    LLM_BPE_BYTE_LEVEL, /* it is no SentencePiece */
    LLM_BPE_BLANK_NEVER,
    LLM_BPE_BLANK_PREPEND, /* tokenizers' Prepend: everywhere, before normalized added tokens are searched for */
    LLM_BPE_BLANK_ALWAYS,  /* Metaspace: where no blank stands */
    LLM_BPE_BLANK_FIRST    /* the same at the beginning of the text alone */
} llm_bpe_blank;

typedef struct llm_bpe_settings {
    llm_bpe_pre_tokenizer pre_tokenizer;
    bool nfc;           /* what lies between added tokens is normalized first */
    bool ignore_merges; /* a piece that is a token is that token, whatever merging makes of it */
    bool drop_unknown;  /* a byte without a token is left out, not LLM_BPE_NO_BYTE */
    llm_bpe_blank blank;
    bool split; /* SentencePiece: every blank begins a piece */
    bool strip; /* decoding leaves out the text's first blank */
} llm_bpe_settings;

llm_bpe *llm_bpe_create(const llm_bpe_settings *settings); /* all 0: GPT-2's. NULL: no memory */
void llm_bpe_destroy(llm_bpe *t);
/*
 * What a token is beside one that merging makes (0): an added token is searched for in the text as a whole. BASE: it
 * is both. SPECIAL ones are only searched for when asked; LSTRIP and RSTRIP take the white space before and behind
 * with them; a SINGLE_WORD has no word character beside it; NORMALIZED ones are searched for after the others.
 */
enum {
    LLM_BPE_ADDED = 1,
    LLM_BPE_SPECIAL = 2,
    LLM_BPE_LSTRIP = 4,
    LLM_BPE_RSTRIP = 8,
    LLM_BPE_SINGLE_WORD = 16,
    LLM_BPE_NORMALIZED = 32,
    LLM_BPE_BASE = 64
};
/* All tokens first, in any order, then the merges; that ids are different is the caller's business. */
llm_bpe_status llm_bpe_put_token(llm_bpe *t, int32_t id, const uint8_t *bytes, size_t n, unsigned flags);
llm_bpe_status llm_bpe_put_merge(llm_bpe *t, uint32_t rank, const uint8_t *left, size_t n_left, const uint8_t *right,
                                 size_t n_right);
/*
 * ids (n_ids) = the tokens of text (n), valid until the next call. What reads like an added token is that token (the
 * leftmost, of those the longest), as Hugging Face's tokenizers have it; special ones only with `special`, else they
 * are text. begins: nothing comes before it, which matters to LLM_BPE_BLANK_FIRST alone.
 */
llm_bpe_status llm_bpe_encode(llm_bpe *t, const uint8_t *text, size_t n, bool special, bool begins,
                              llm_should_stop stop, void *arg, const int32_t **ids, size_t *n_ids);
uint8_t llm_bpe_missing_byte(const llm_bpe *t);
/* The bytes a token stands for, of SentencePiece the token; NULL: no such id */
const uint8_t *llm_bpe_token(llm_bpe *t, int32_t id, size_t *n);
/*
 * SentencePiece: text (*n bytes) = what tokenizers' decoder makes of the ids; text has room for *n, and NULL asks how
 * much is needed at most. The number of ids, or the place of the first unknown one
 */
size_t llm_bpe_decode_text(llm_bpe *t, const int32_t *ids, size_t n_ids, uint8_t *text, size_t *n);
size_t llm_bpe_memory(const llm_bpe *t); /* bytes */

/* ---- text --------------------------------------------------------------------------- */

/*
 * The end of the piece that begins at text[at], at < n, by GPT-2's pattern
 * 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 */
size_t llm_bpe_split(const uint8_t *text, size_t n, size_t at);
/* The same by any of the pre-tokenizers, and what they are called: gpt2, smollm, ...; NULL: no more */
size_t llm_bpe_piece(llm_bpe_pre_tokenizer kind, const uint8_t *text, size_t n, size_t at);
const char *llm_bpe_pre_tokenizer_name(int i);

/* GPT-2's printable stand-ins for bytes: token (at most 2 n bytes) of n bytes, returns its length. */
size_t llm_bpe_alphabet(uint8_t *token, const uint8_t *bytes, size_t n);
/*
 * Back: bytes (at most n) of a token; returns how many, SIZE_MAX when it holds a character that stands for no
 * byte.
 */
size_t llm_bpe_alphabet_bytes(uint8_t *bytes, const uint8_t *token, size_t n);
/* The byte that GPT-2 gives id i, 0 .. 255 */
uint8_t llm_bpe_byte(int i);

/*
 * out = bytes with U+FFFD for every maximal part that is no UTF-8 (Unicode, section 3.9; as Python's
 * "replace") and, if asked, for every NUL; returns its length, at most 3 n. out may be NULL to measure.
 * Unless final, a character that further bytes may complete is left out at the end.
 */
size_t llm_utf8_replace(uint8_t *out, const uint8_t *bytes, size_t n, bool final, bool replace_nul);

/* ---- files -------------------------------------------------------------------------- */

/* What is wrong with a file, and on which line, from 1. message is NULL when nothing is. */
typedef struct llm_bpe_error {
    const char *message;
    size_t line;
} llm_bpe_error;
/* Gets what a parser found; returns false to stop it (the parser then returns false without a message). */
typedef bool (*llm_bpe_token_sink)(void *arg, const uint8_t *token, size_t n, int32_t id);
typedef bool (*llm_bpe_merge_sink)(void *arg, uint32_t rank, const uint8_t *left, size_t n_left, const uint8_t *right,
                                   size_t n_right);

/* vocab.json, encoder.json: an object of token (in the byte-level alphabet, UTF-8) to id */
bool llm_bpe_parse_vocab(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg, llm_bpe_error *error);
/*
 * merges.txt, vocab.bpe: left, blank, right in the alphabet; a first line that begins with #version is none
 */
bool llm_bpe_parse_merges(const uint8_t *text, size_t n, llm_bpe_merge_sink sink, void *arg, llm_bpe_error *error);
/* .tiktoken: base64 of the token's bytes, blank, id; the sink gets bytes */
bool llm_bpe_parse_tiktoken(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg, llm_bpe_error *error);
/*
 * The merges that a .tiktoken file leaves unsaid, where the id is the rank: of each token the two parts that
 * merging all pairs of lower id leaves of it. The sink gets bytes. Tokens of one byte, or that merging never
 * makes, have none.
 */
llm_bpe_status llm_bpe_recover_merges(const llm_bpe *t, llm_should_stop stop, void *stop_arg, llm_bpe_merge_sink sink,
                                      void *arg);

/* ---- training ----------------------------------------------------------------------- */

typedef struct llm_bpe_trainer llm_bpe_trainer;

llm_bpe_trainer *llm_bpe_trainer_create(void); /* NULL: no memory */
void llm_bpe_trainer_destroy(llm_bpe_trainer *t);
/* Counts the pieces of a document; a piece longer than LLM_BPE_MAX_PIECE counts as several. */
llm_bpe_status llm_bpe_trainer_add(llm_bpe_trainer *t, const uint8_t *text, size_t n, llm_should_stop stop, void *arg);
/*
 * Once, after all documents: merges the most frequent pair of adjacent tokens, of equally frequent ones that
 * with the lowest ids, until there are n_merges or no pair occurs min_count times; no token grows beyond
 * LLM_BPE_MAX_TOKEN. pairs (*n_pairs, 2) lists left and right id,
 * where ids below 256 are bytes (llm_bpe_byte) and 256 + i is pair i; it lives as long as the trainer.
 */
llm_bpe_status llm_bpe_trainer_run(llm_bpe_trainer *t, size_t n_merges, int64_t min_count, llm_should_stop stop,
                                   void *arg, const int32_t **pairs, size_t *n_pairs);

#ifdef __cplusplus
}
#endif
#endif /* LLM_BPE_H */
