/*
 * precision.h -- weights in fewer bits, as pg_llm.weights asks for (precision.c).
 */
#ifndef PG_LLM_PRECISION_H
#define PG_LLM_PRECISION_H

#include "autograd/op.h"

/*
 * Input w (i,o), or (o,i) when transposed, in the precision of pg_llm.weights. NULL: read it as float32, because the
 * setting says so, the call may be differentiated, or w is not a whole parameter of a pinned version at rest.
 */
extern const llm_packed *precision_packed(const OpCall *call, const OpValue *w, bool transposed);

#endif
