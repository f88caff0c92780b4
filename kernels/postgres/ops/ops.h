/*
 * ops.h -- every op's declaration, and what the files of this room share (autograd/op.h says what an op is).
 */
#ifndef PG_LLM_OPS_H
#define PG_LLM_OPS_H

#include "autograd/op.h"
#include "op_list.h"

/* The table, in the order of op_table.c; ends with NULL. */
extern const OpDef *const op_table[];

/* pg_llm_attention's output from x, w_qkv, b_qkv, w_o and b_o, unrecorded. */
extern Tensor *op_attention_output(Tensor *const *in, int32 n_head);

/* Gradients of pg_llm_attention's x, w_qkv, b_qkv, w_o and b_o, in that order in `in` and `grads`. */
extern void op_attention_gradients(Tensor **grads, Tensor *dout, Tensor *const *in, int32 n_head);

/* The activation that a name in Hugging Face's configurations means (op_elementwise.c); 22023 for another. */
extern const OpDef *op_of_activation(const text *name);

/* The op of a pooling, mean or cls (op_pool.c); 22023 for another. */
extern const OpDef *op_of_pooling(const text *name);

/* Broadcasting (op_broadcast.c) */
extern int          op_broadcast_dims(const OpCall *call, int32 *dims);
extern const float *op_broadcast_to(const OpValue *v, int ndim, const int32 *dims);
extern void         op_reduce_to(const OpValue *v, OpGrad grad, const float *dout, int ndim, const int32 *dims);

/* Every op's declaration, one file per family. */
#define DECLARE_OP(id) extern const OpDef op_##id;
OP_LIST(DECLARE_OP)

#endif
