/* op_list.h -- every op. Written by ops/make_ops.py from the declarations in ops/op_*.c: change those. */
#ifndef PG_LLM_OP_LIST_H
#define PG_LLM_OP_LIST_H

#define OP_LIST(X)                                                                                                     \
    X(embedding)                                                                                                       \
    X(causal_attention)                                                                                                \
    X(bidirectional_attention)                                                                                         \
    X(causal_attention_qkv)                                                                                            \
    X(add)                                                                                                             \
    X(sub)                                                                                                             \
    X(mul)                                                                                                             \
    X(div)                                                                                                             \
    X(neg)                                                                                                             \
    X(gelu)                                                                                                            \
    X(gelu_exact)                                                                                                      \
    X(relu)                                                                                                            \
    X(silu)                                                                                                            \
    X(swiglu)                                                                                                          \
    X(dropout)                                                                                                         \
    X(linear)                                                                                                          \
    X(linear_nobias)                                                                                                   \
    X(matmul)                                                                                                          \
    X(lm_head)                                                                                                         \
    X(lm_head_loss)                                                                                                    \
    X(layernorm)                                                                                                       \
    X(rmsnorm)                                                                                                         \
    X(rmsnorm_gain)                                                                                                    \
    X(l2_normalize)                                                                                                    \
    X(softmax)                                                                                                         \
    X(cross_entropy)                                                                                                   \
    X(mean_pool)                                                                                                       \
    X(cls_pool)                                                                                                        \
    X(rotary)                                                                                                          \
    X(reshape)                                                                                                         \
    X(transpose)                                                                                                       \
    X(slice)                                                                                                           \
    X(concat)                                                                                                          \
    X(last)                                                                                                            \
    X(sum)                                                                                                             \
    X(mean)

/* Those that work on bytea, too. */
#define BYTEA_OP_LIST(X)                                                                                               \
    X(embedding)                                                                                                       \
    X(causal_attention)                                                                                                \
    X(bidirectional_attention)                                                                                         \
    X(causal_attention_qkv)                                                                                            \
    X(add)                                                                                                             \
    X(sub)                                                                                                             \
    X(mul)                                                                                                             \
    X(div)                                                                                                             \
    X(neg)                                                                                                             \
    X(gelu)                                                                                                            \
    X(gelu_exact)                                                                                                      \
    X(relu)                                                                                                            \
    X(silu)                                                                                                            \
    X(swiglu)                                                                                                          \
    X(dropout)                                                                                                         \
    X(linear)                                                                                                          \
    X(linear_nobias)                                                                                                   \
    X(matmul)                                                                                                          \
    X(lm_head)                                                                                                         \
    X(lm_head_loss)                                                                                                    \
    X(layernorm)                                                                                                       \
    X(rmsnorm)                                                                                                         \
    X(rmsnorm_gain)                                                                                                    \
    X(l2_normalize)                                                                                                    \
    X(softmax)                                                                                                         \
    X(cross_entropy)                                                                                                   \
    X(mean_pool)                                                                                                       \
    X(cls_pool)                                                                                                        \
    X(rotary)                                                                                                          \
    X(transpose)                                                                                                       \
    X(sum)                                                                                                             \
    X(mean)

#endif
