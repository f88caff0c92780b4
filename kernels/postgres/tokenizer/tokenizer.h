/*
 * tokenizer.h -- tokenizers in a backend: errors, and the memory they take (tokenizer.c).
 */
#ifndef PG_LLM_TOKENIZER_H
#define PG_LLM_TOKENIZER_H

#include "postgres.h"

#include "core/tokenizer/bpe.h"
#include "core/tokenizer/wordpiece.h"
#include "tensor/tensor.h"

/* A tokenizer in memory, of one of two kinds: the other is NULL. */
typedef struct Tokenizer
{
    struct Tokenizer *next; /* the most recently used first */
    int32             handle;
    Oid               user;
    bool              sealed;
    llm_bpe          *bpe;
    bool              sentencepiece; /* a BPE of this kind, whose tokens are texts */
    llm_wordpiece    *wordpiece;
    int32             n_before; /* tokens that stand around a text */
    int32             n_after;
    int32            *around; /* those before it, then those behind it; NULL: none */
    char             *model;
    int               version_len;
    char             *version;
} Tokenizer;

/* This role's tokenizer with that handle, sealed or being fed; any other is 55000. */
extern Tokenizer *tokenizer_require(int32 handle, bool sealed);
/* An empty one to be fed, of neither kind yet */
extern Tokenizer *tokenizer_begin(text *model, bytea *version);
/* Gives it the tokens that stand around a text. */
extern void tokenizer_put_around(Tokenizer *t, IntArray before, IntArray after);
/* Takes the tokenizer out of memory, and out of reach. */
extern void tokenizer_forget(Tokenizer *t);
/* token_ids (n_ids) of a text, valid until the tokenizer is used again; begins: nothing comes before the text */
extern void tokenizer_encode(Tokenizer *t, text *document, bool special, bool begins, const int32_t **token_ids,
                             size_t *n_ids);
/* Gives a large buffer back. */
extern void tokenizer_end_encode(Tokenizer *t, size_t n_ids);
/* WordPiece: a token that pg_llm_bpe_put_token gets, the last check before use, a decoded text */
extern void   wordpiece_put_token(Tokenizer *t, int32 id, const uint8_t *bytes, size_t n, unsigned flags);
extern void   wordpiece_seal(Tokenizer *t);
extern bytea *wordpiece_decode(Tokenizer *t, const int32 *ids, size_t n_ids);
/* SentencePiece: a decoded text */
extern bytea *sentencepiece_decode(Tokenizer *t, const int32 *ids, size_t n_ids);
/* 22003 */
extern void tokenizer_unknown_id(Tokenizer *t, int32 id);

/* Turns what core reports into an error; does nothing for LLM_BPE_OK. */
extern void tokenizer_check(llm_bpe_status status);
/* The text as UTF-8, whatever the database's encoding is */
extern const uint8_t *tokenizer_utf8(const text *t, size_t *n);
/* UTF-8 without NULs as text of the database's encoding */
extern text *tokenizer_text(const uint8_t *utf8, size_t n);
/* Forgets all tokenizers; the bytes that gives back. Never throws. */
extern size_t tokenizer_release(void);

#endif
