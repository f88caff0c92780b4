/*
 * fuzz_tensor_text.c -- the text form of `tensor`, parsed without a server: PostgreSQL's headers, and what the parser
 * calls of PostgreSQL and of tensor.c as far as the parser can tell.
 *
 * The buffer has room for exactly as many numbers as the parser asked for. A text is refused with a message, or it
 * gives a tensor whose dimensions multiply to the numbers that were read.
 */
#include "postgres.h"

#include <stdarg.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/miscnodes.h"

#include "tensor/tensor_text.h"

#undef vsnprintf /* the C library's, not PostgreSQL's */

extern int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

volatile sig_atomic_t InterruptPending = false;

static Tensor       tensor;
static TensorBuffer buffer;
static bool         refused, told;

void
ProcessInterrupts(void)
{
}

/* ---- tensor.c ---- */

Tensor *
tensor_new(int ndim, const int32 *dims)
{
    if (ndim != 1 || dims[0] < 1)
        abort();
    buffer.bytes = (size_t) dims[0] * sizeof(float);
    buffer.data = malloc(buffer.bytes);
    tensor.buffer = &buffer;
    tensor.data = buffer.data;
    return &tensor;
}

Tensor *
tensor_wrap(int ndim, const int32 *dims, TensorBuffer *shared, float *data)
{
    if (ndim < 0 || ndim > TENSOR_MAX_NDIM || shared != &buffer || data != buffer.data)
        abort();
    tensor.ndim = ndim;
    tensor.n = 1;
    for (int i = 0; i < ndim; i++)
    {
        if (dims[i] < 0)
            abort();
        tensor.dims[i] = dims[i];
        tensor.n *= (size_t) dims[i];
    }
    return &tensor;
}

/* ---- PostgreSQL ---- */

bool
errsave_start(Node *context, const char *domain)
{
    (void) context;
    (void) domain;
    if (refused)
        abort();
    refused = true;
    return true;
}

void
errsave_finish(Node *context, const char *file, int line, const char *function)
{
    (void) context;
    (void) file;
    (void) line;
    (void) function;
}

int
errcode(int code)
{
    return code == 0;
}

/* The message as it would be sent, so that its arguments are read. */
static int
format(const char *text, va_list arguments)
{
    char message[1024];

    told = vsnprintf(message, sizeof(message), text, arguments) > 0;
    return 0;
}

int
errmsg(const char *text, ...)
{
    va_list arguments;

    va_start(arguments, text);
    format(text, arguments);
    va_end(arguments);
    return 0;
}

int
errdetail(const char *text, ...)
{
    va_list arguments;

    va_start(arguments, text);
    format(text, arguments);
    va_end(arguments);
    return 0;
}

/* A server hands over valid text in its encoding; here it is ASCII. */
int
pg_mblen(const char *text)
{
    return *text != '\0';
}

int
pg_mbstrlen_with_len(const char *text, int size)
{
    return (int) strnlen(text, (size_t) size);
}

int
pg_strncasecmp(const char *a, const char *b, size_t n)
{
    return strncasecmp(a, b, n);
}

/* ---- the target ---- */

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ErrorSaveContext context = {.type = T_ErrorSaveContext};
    char            *text = malloc(size + 1);
    Tensor          *parsed;

    for (size_t i = 0; i < size; i++)
        text[i] = (char) (bytes[i] & 0x7f);
    text[size] = '\0';
    refused = told = false;
    parsed = tensor_parse(text, (Node *) &context);
    if ((parsed == NULL) != refused || (refused && !told) ||
        (parsed != NULL && parsed->n * sizeof(float) > buffer.bytes))
        abort();
    free(buffer.data);
    free(text);
    return 0;
}
