/*
 * tensor_text.h -- the text form's parser (tensor_text.c) and errors that an input function may save for later.
 */
#ifndef PG_LLM_TENSOR_TEXT_H
#define PG_LLM_TENSOR_TEXT_H

#include "tensor.h"

#include "nodes/nodes.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#define input_error(context, ...) errsave(context, __VA_ARGS__)
#else
#define input_error(context, ...) ereport(ERROR, __VA_ARGS__)
#endif

/* Nested lists of numbers, or a bare number. NULL when an error was saved in `context` (an ErrorSaveContext). */
extern Tensor *tensor_parse(const char *text, Node *context);

#endif
