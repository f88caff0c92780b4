/*
 * nfc.h -- Unicode's normalization form C (Unicode, section 3.11), as Hugging Face's tokenizers have it.
 *
 * A byte that is no part of a UTF-8 character stays as it is, and begins anew as a letter does. Time is linear in the
 * text, whatever it holds.
 */
#ifndef LLM_NFC_H
#define LLM_NFC_H

#include "bert_text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A normalized text, and what normalizing it takes; begins as {0}. */
typedef struct llm_nfc_buffer {
    uint8_t *text;
    size_t n, room;
    llm_marks marks;
} llm_nfc_buffer;

void llm_nfc_free(llm_nfc_buffer *b);
size_t llm_nfc_memory(const llm_nfc_buffer *b);
/* *out (n_out) = the normalized text: in b, or the text itself where nothing would change */
llm_bpe_status llm_nfc(llm_nfc_buffer *b, const uint8_t *text, size_t n, llm_should_stop stop, void *arg,
                       const uint8_t **out, size_t *n_out);

#ifdef __cplusplus
}
#endif
#endif /* LLM_NFC_H */
