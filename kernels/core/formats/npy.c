/*
 * npy.c -- headers of .npy files (NumPy enhancement proposal 1, versions 1 to 3).
 *
 * A header is a Python dictionary literal. Only the keys descr, fortran_order and shape with literals of the
 * right kind are understood; nothing is evaluated. Object arrays, which hold pickles, are refused.
 */
#include <stdlib.h>
#include <string.h>

#include "weights_file.h"

typedef struct literal {
    const char *at, *end;
} literal;

static void skip_blanks(literal *l)
{
    while (l->at < l->end && (*l->at == ' ' || *l->at == '\n' || *l->at == '\t' || *l->at == '\r'))
        l->at++;
}

static bool accept(literal *l, const char *word)
{
    size_t n = strlen(word);

    skip_blanks(l);
    if ((size_t)(l->end - l->at) < n || memcmp(l->at, word, n) != 0)
        return false;
    l->at += n;
    return true;
}

/* A quoted string without escapes, of less than `size` bytes. */
static bool quoted(literal *l, char *out, size_t size)
{
    char quote;
    size_t n = 0;

    skip_blanks(l);
    if (l->at == l->end || (*l->at != '\'' && *l->at != '"'))
        return false;
    quote = *l->at++;
    for (; l->at < l->end && *l->at != quote; l->at++) {
        if (*l->at == '\\' || *l->at == '\0' || n + 1 >= size)
            return false;
        out[n++] = *l->at;
    }
    out[n] = '\0';
    return l->at < l->end && *l->at++ == quote;
}

static bool dimension(literal *l, uint64_t *value)
{
    int digits = 0;

    skip_blanks(l);
    *value = 0;
    for (; l->at < l->end && *l->at >= '0' && *l->at <= '9'; l->at++, digits++) {
        if (*value > (uint64_t)INT64_MAX / 10 - 1)
            return false;
        *value = *value * 10 + (uint64_t)(*l->at - '0');
    }
    /* Python 2 wrote long integers with an L */
    if (digits > 0 && l->at < l->end && *l->at == 'L')
        l->at++;
    return digits > 0;
}

static bool shape(literal *l, llm_weights_entry *e)
{
    if (!accept(l, "("))
        return false;
    e->ndim = 0;
    while (!accept(l, ")")) {
        if (e->ndim == LLM_WEIGHTS_MAX_NDIM || !dimension(l, &e->dims[e->ndim++]))
            return false;
        if (!accept(l, ","))
            return e->ndim > 1 && accept(l, ")");
    }
    return true;
}

static bool element_type(llm_weights *w, const char *name, const char *descr, llm_dtype *dtype)
{
    static const struct {
        const char *descr;
        llm_dtype dtype;
    } known[] = {
        { "<f4", LLM_DTYPE_F32 },  { "<f2", LLM_DTYPE_F16 }, { "<f8", LLM_DTYPE_F64 }, { "|u1", LLM_DTYPE_U8 },
        { "|b1", LLM_DTYPE_BOOL }, { "|i1", LLM_DTYPE_I8 },  { "<i2", LLM_DTYPE_I16 }, { "<u2", LLM_DTYPE_U16 },
        { "<i4", LLM_DTYPE_I32 },  { "<u4", LLM_DTYPE_U32 }, { "<i8", LLM_DTYPE_I64 }, { "<u8", LLM_DTYPE_U64 },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(descr, known[i].descr) == 0) {
            *dtype = known[i].dtype;
            return true;
        }
    if (strchr(descr, 'O') != NULL)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" holds pickled Python objects", name);
    return weights_fail(w, LLM_WEIGHTS_INVALID, "tensor \"%.100s\" has elements of the unknown type %.20s", name,
                        descr);
}

static bool dictionary(llm_weights *w, literal *l, const char *name, weights_item *item)
{
    char key[32], descr[32] = "";
    bool has_order = false, has_shape = false, has_descr = false;
    const char *error = "tensor \"%.100s\" has a .npy header that is not understood";

    if (!accept(l, "{"))
        return weights_fail(w, LLM_WEIGHTS_INVALID, error, name);
    while (!accept(l, "}")) {
        bool ok = quoted(l, key, sizeof(key)) && accept(l, ":");

        if (ok && strcmp(key, "descr") == 0 && !has_descr) {
            /* a list of fields makes a structured array */
            ok = has_descr = quoted(l, descr, sizeof(descr));
        } else if (ok && strcmp(key, "fortran_order") == 0 && !has_order) {
            has_order = true;
            item->fortran = accept(l, "True");
            ok = item->fortran || accept(l, "False");
        } else if (ok && strcmp(key, "shape") == 0 && !has_shape)
            ok = has_shape = shape(l, &item->entry);
        else
            ok = false;
        if (!ok)
            return weights_fail(w, LLM_WEIGHTS_INVALID, error, name);
        if (!accept(l, ",")) {
            if (!accept(l, "}"))
                return weights_fail(w, LLM_WEIGHTS_INVALID, error, name);
            break;
        }
    }
    skip_blanks(l);
    if (l->at != l->end || !has_descr || !has_order || !has_shape)
        return weights_fail(w, LLM_WEIGHTS_INVALID, error, name);
    return element_type(w, name, descr, &item->entry.dtype);
}

bool npy_header(llm_weights *w, npy_reader read, const char *name, weights_item *item, uint64_t *length)
{
    uint8_t prefix[12];
    size_t n_prefix;
    uint32_t n;
    char *text;
    literal l;
    bool ok;

    if (!read(w, prefix, 10))
        return false;
    if (memcmp(prefix, "\x93NUMPY", 6) != 0)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" is not a .npy array", name);
    if (prefix[6] < 1 || prefix[6] > 3 || prefix[7] != 0)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" has .npy version %d.%d, which is unknown", name,
                            prefix[6], prefix[7]);
    n_prefix = prefix[6] == 1 ? 10 : 12;
    if (n_prefix == 12 && !read(w, prefix + 10, 2))
        return false;
    n = n_prefix == 10 ? le16(prefix + 8) : le32(prefix + 8);
    if (n > NPY_MAX_HEADER)
        return weights_fail(w, LLM_WEIGHTS_INVALID, "\"%.100s\" has a .npy header of %u bytes, the limit is %d", name,
                            n, NPY_MAX_HEADER);
    text = malloc(n + 1);
    if (text == NULL)
        return weights_fail(w, LLM_WEIGHTS_NO_MEMORY, "out of memory");
    l.at = text;
    l.end = text + n;
    ok = read(w, text, n) && dictionary(w, &l, name, item);
    free(text);
    *length = n_prefix + n;
    return ok;
}
