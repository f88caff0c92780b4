/*
 * fingerprint.h -- fingerprints of the rows that a snapshot sees (fingerprint.c).
 */
#ifndef PG_LLM_FINGERPRINT_H
#define PG_LLM_FINGERPRINT_H

extern void fingerprint_abort_subxact(void); /* never throws */

#endif
