/*
 * wordpiece.h -- WordPiece as BERT has it: words cut into the longest known parts, from left to right.
 *
 * As Hugging Face's tokenizers: added tokens are found first, the text between them is normalized and cut into words
 * (bert_text.h). Portable C11 without global state; memory by malloc. Schuster & Nakajima 2012; Devlin et al. 2019.
 */
#ifndef LLM_WORDPIECE_H
#define LLM_WORDPIECE_H

#include "bert_text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct llm_wordpiece_settings {
    unsigned normalizer;    /* LLM_BERT_... */
    const uint8_t *unknown; /* the token of a word that cannot be made of others, or that is too long */
    size_t n_unknown;
    const uint8_t *prefix; /* of tokens that go on with a word, "##" */
    size_t n_prefix;
    size_t max_characters; /* of a word */
    bool cleanup;          /* decoding leaves out the blanks before punctuation */
} llm_wordpiece_settings;

/* A vocabulary; it also holds buffers, so that only one thread at a time may use it. */
typedef struct llm_wordpiece llm_wordpiece;

llm_wordpiece *llm_wordpiece_create(const llm_wordpiece_settings *settings); /* NULL: no memory */
void llm_wordpiece_destroy(llm_wordpiece *t);
size_t llm_wordpiece_memory(const llm_wordpiece *t); /* bytes */
/*
 * A token by its text (UTF-8, with the prefix). That ids are different is the caller's business. flags are those of
 * LLM_BPE_ADDED ...; an added token without LLM_BPE_BASE is no part of words; of normalized ones that read alike the
 * first is found (tokenizers find any). LLM_BPE_BAD_TOKEN: as for llm_bpe_put_token, or a normalized token of which
 * nothing is left.
 */
llm_bpe_status llm_wordpiece_put_token(llm_wordpiece *t, int32_t id, const uint8_t *token, size_t n, unsigned flags);
/* Once, after all tokens: LLM_BPE_UNKNOWN_TOKEN when the unknown token is none. */
llm_bpe_status llm_wordpiece_seal(llm_wordpiece *t);
/*
 * ids (n_ids) = the tokens of text (n), valid until the next call; special tokens are found only with `special`.
 */
llm_bpe_status llm_wordpiece_encode(llm_wordpiece *t, const uint8_t *text, size_t n, bool special, llm_should_stop stop,
                                    void *arg, const int32_t **ids, size_t *n_ids);
/* A token's text; NULL: no such id */
const uint8_t *llm_wordpiece_token(const llm_wordpiece *t, int32_t id, size_t *n);
/*
 * What a token becomes in a text: written to out, which holds LLM_WORDPIECE_PART bytes; its length. The first stands
 * as it is, parts of words lose their prefix, others get a blank before them. SIZE_MAX: no such id
 */
#define LLM_WORDPIECE_PART (LLM_BPE_MAX_TOKEN + 1)
size_t llm_wordpiece_part(const llm_wordpiece *t, int32_t id, bool first, uint8_t *out);

/*
 * vocab.txt: a token a line, its id the number of the line, from 0. White space at a line's end is no part of it, as
 * in tokenizers; lines without a token are refused, but at the end of the file.
 */
bool llm_wordpiece_parse_vocab(const uint8_t *text, size_t n, llm_bpe_token_sink sink, void *arg, llm_bpe_error *error);
/* Whether the file is an object of tokens and ids instead (llm_bpe_parse_vocab): {" at its beginning, } at its end */
bool llm_wordpiece_is_json(const uint8_t *text, size_t n);

#ifdef __cplusplus
}
#endif
#endif /* LLM_WORDPIECE_H */
