/*
 * tensor_typmod.h -- tensor(768) and tensor(768,768): type modifiers for one and two dimensions (tensor_typmod.c).
 */
#ifndef PG_LLM_TENSOR_TYPMOD_H
#define PG_LLM_TENSOR_TYPMOD_H

#include "postgres.h"

#include "nodes/nodes.h"

/* True when the shape is what typmod demands (-1: anything); else error 22000, raised or saved in `context`. */
extern bool tensor_fits_typmod(int ndim, const int32 *dims, int32 typmod, Node *context);

#endif
