/*
 * bert_text.h -- BERT's normalizer and pre-tokenizer, as Hugging Face's tokenizers have them (BertNormalizer,
 * BertPreTokenizer).
 *
 * A byte that is no part of a UTF-8 character counts as U+FFFD. Time is linear in the text, whatever it holds.
 */
#ifndef LLM_BERT_TEXT_H
#define LLM_BERT_TEXT_H

#include "bpe.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LLM_BERT_CLEAN_TEXT = 1,           /* control characters and the like go, white space becomes a blank */
    LLM_BERT_HANDLE_CHINESE_CHARS = 2, /* blanks around ideographs */
    LLM_BERT_STRIP_ACCENTS = 4,        /* decomposed, without the marks */
    LLM_BERT_LOWERCASE = 8
};

/* A mark that waits for the end of its run, in which marks are put in their canonical order */
typedef struct llm_mark {
    uint32_t code;
    uint8_t class;
} llm_mark;

/* Such a run; begins as {0}. */
typedef struct llm_marks {
    llm_mark *marks, *sorted;
    size_t n, room, sorted_room;
} llm_marks;

/* A normalized text, and what normalizing it takes; begins as {0}. */
typedef struct llm_bert_buffer {
    uint8_t *text;
    size_t n, room;
    llm_marks marks;
} llm_bert_buffer;

void llm_marks_free(llm_marks *m);
size_t llm_marks_memory(const llm_marks *m);
/* false: no memory */
bool llm_marks_add(llm_marks *m, llm_mark mark);
/* Stable, by class: marks of a class keep their order. */
bool llm_marks_sort(llm_marks *m);

/* A code point's canonical combining class; the parts that it decomposes into to the end, or itself; how many */
uint8_t llm_unicode_class(uint32_t code);
int llm_unicode_decompose(uint32_t code, uint32_t parts[4]);
/* Writes a code point, 4 bytes at most; its length */
size_t llm_utf8_put(uint8_t *p, uint32_t code);

void llm_bert_free(llm_bert_buffer *b);
size_t llm_bert_memory(const llm_bert_buffer *b);
/* b's text = the normalized text; options are the sum of LLM_BERT_... */
llm_bpe_status llm_bert_normalize(llm_bert_buffer *b, unsigned options, const uint8_t *text, size_t n,
                                  llm_should_stop stop, void *arg);
/*
 * The next word of text (n) from *start on: false when there is none, else start and end of it and its number of
 * characters. White space parts words, punctuation is a word of its own, each character.
 */
bool llm_bert_word(const uint8_t *text, size_t n, size_t *start, size_t *end, size_t *n_characters);

#ifdef __cplusplus
}
#endif
#endif /* LLM_BERT_TEXT_H */
