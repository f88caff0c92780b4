/*
 * tokenizer.h -- byte pair encoding in a backend: errors, and the memory of tokenizers (tokenizer.c).
 */
#ifndef PG_LLM_TOKENIZER_H
#define PG_LLM_TOKENIZER_H

#include "postgres.h"

#include "core/tokenizer/bpe.h"

/* Turns what core reports into an error; does nothing for LLM_BPE_OK. */
extern void tokenizer_check(llm_bpe_status status);
/* The text as UTF-8, whatever the database's encoding is */
extern const uint8_t *tokenizer_utf8(const text *t, size_t *n);
/* UTF-8 without NULs as text of the database's encoding */
extern text *tokenizer_text(const uint8_t *utf8, size_t n);
/* Forgets all tokenizers; the bytes that gives back. Never throws. */
extern size_t tokenizer_release(void);

#endif
