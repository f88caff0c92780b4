/*
 * relation_version.h -- fingerprints of the rows that a snapshot sees (relation_version.c).
 */
#ifndef PG_LLM_RELATION_VERSION_H
#define PG_LLM_RELATION_VERSION_H

extern void relation_version_abort_subxact(void); /* never throws */

#endif
