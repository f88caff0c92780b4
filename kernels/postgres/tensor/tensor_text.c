/*
 * tensor_text.c -- the parser of the text form: [[1,2],[3,4]], or a bare number for a 0-d tensor.
 *
 * One pass over the text, one over its commas to know how many numbers there can be. The shape follows from
 * the lists' lengths. An empty list hides the dimensions inside it, so that a tensor without elements may have its
 * shape in front, as shape(x) prints it: {0,3}[].
 */
#include "postgres.h"

#include <errno.h>
#include <float.h>
#include <math.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "tensor_text.h"

typedef struct Parser
{
    const char *text;
    const char *p;
    Node       *context;
    float      *out;
    size_t      n;                      /* numbers so far */
    int         depth;                  /* open lists */
    int         ndim;                   /* -1: not known before the first number or empty list */
    int32       dims[TENSOR_MAX_NDIM];  /* length of lists per depth; -1: none was closed yet */
    int32       count[TENSOR_MAX_NDIM]; /* elements of the list that is open at each depth */
} Parser;

/* ---- errors; each returns false ---- */

static int
position(const Parser *in)
{
    return pg_mbstrlen_with_len(in->text, (int) (in->p - in->text)) + 1;
}

static bool
expected(Parser *in, const char *what)
{
    if (*in->p == '\0')
        input_error(in->context, errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
                    errmsg("invalid input syntax for type tensor"),
                    errdetail("Expected %s at the end, character %d.", what, position(in)));
    else
        input_error(in->context, errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
                    errmsg("invalid input syntax for type tensor"),
                    errdetail("Expected %s at character %d, found \"%.*s\".", what, position(in), pg_mblen(in->p),
                              in->p));
    return false;
}

static bool
ragged_length(Parser *in, int32 length, int32 others)
{
    input_error(in->context, errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
                errmsg("lists of a tensor must have equal lengths"),
                errdetail("A list of %d elements ends at character %d, earlier ones have %d.", length, position(in),
                          others));
    return false;
}

static bool
ragged_depth(Parser *in, int depth)
{
    input_error(in->context, errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
                errmsg("all numbers of a tensor must be nested to the same depth"),
                errdetail("Depth %d at character %d, depth %d before.", depth, position(in), in->ndim));
    return false;
}

/* ---- numbers ---- */

static bool
is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/*
 * mantissa * 10^exponent in float32, correctly rounded, or false when that needs more than one double operation.
 * Both factors are exact doubles (Clinger 1990), so the product is the right double; rounding it once more is
 * right too unless it lies next to the midpoint of two floats.
 */
static bool
scale_exactly(uint64 mantissa, int exponent, float *result)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const uint64        below_float = ((uint64) 1 << 29) - 1;
    const uint64        midpoint = (uint64) 1 << 28;
    double              x;
    uint64              bits;

    if (mantissa > ((uint64) 1 << 53) || exponent < -22 || exponent > 22)
        return false;
    x = exponent < 0 ? (double) mantissa / powers[-exponent] : (double) mantissa * powers[exponent];
    if (mantissa != 0 && (x < FLT_MIN || x > FLT_MAX))
        return false;
    memcpy(&bits, &x, sizeof(bits));
    bits &= below_float;
    if (bits >= midpoint - 1 && bits <= midpoint + 1)
        return false;
    *result = (float) x;
    return true;
}

/* Whatever the fast path leaves: the C library, which is exact and slow. */
static bool
scale_slowly(Parser *in, const char *start, const char *end, float *result)
{
    errno = 0;
    *result = strtof(start, NULL);
    if (errno == ERANGE && (*result == 0 || isinf(*result)))
    {
        in->p = start;
        input_error(in->context, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("\"%.*s\" is out of range for a tensor", (int) Min(end - start, 64), start),
                    errdetail("It is at character %d; elements are float32.", position(in)));
        return false;
    }
    return true;
}

/* NaN, Infinity, inf in any case, after the sign. */
static bool
parse_word(Parser *in, bool negative, float *result)
{
    static const struct
    {
        const char *word;
        bool        nan;
    } words[] = {{"infinity", false}, {"inf", false}, {"nan", true}};

    for (int i = 0; i < (int) lengthof(words); i++)
    {
        size_t length = strlen(words[i].word);

        if (pg_strncasecmp(in->p, words[i].word, length) != 0)
            continue;
        in->p += length;
        *result = words[i].nan ? NAN : negative ? -INFINITY : INFINITY;
        return true;
    }
    return false;
}

static bool
parse_number(Parser *in, float *result)
{
    const char *start = in->p;
    const char *p = start;
    uint64      mantissa = 0;
    int         digits = 0; /* significant ones in mantissa */
    int         seen = 0;
    int         exponent = 0;
    bool        negative = *p == '-';
    bool        exact = true;

    if (*p == '-' || *p == '+')
        p++;
    for (bool fraction = false; is_digit(*p) || (*p == '.' && !fraction); p++)
    {
        if (*p == '.')
        {
            fraction = true;
            continue;
        }
        seen = 1;
        if (digits < 18)
        {
            mantissa = mantissa * 10 + (uint64) (*p - '0');
            digits += mantissa != 0;
            exponent -= fraction;
        }
        else
            exact = false;
    }
    if (!seen)
    {
        in->p = p;
        if (p == start || p[-1] != '.')
            if (parse_word(in, negative, result))
                return true;
        in->p = start;
        return expected(in, in->ndim < 0 ? "a number or \"[\"" : "a number");
    }
    if (*p == 'e' || *p == 'E')
    {
        const char *q = p + 1;
        bool        minus = *q == '-';
        int         e = 0;

        if (*q == '-' || *q == '+')
            q++;
        if (!is_digit(*q))
        {
            in->p = q;
            return expected(in, "an exponent's digits");
        }
        for (; is_digit(*q); q++)
            e = e < 100000 ? e * 10 + (*q - '0') : e;
        exponent += minus ? -e : e;
        p = q;
    }
    if (exact && scale_exactly(mantissa, exponent, result))
        *result = negative ? -*result : *result;
    else if (!scale_slowly(in, start, p, result))
        return false;
    in->p = p;
    return true;
}

/* ---- lists ---- */

static void
skip_space(Parser *in)
{
    while (is_space(*in->p))
        in->p++;
}

static bool
open_list(Parser *in)
{
    if (in->depth >= TENSOR_MAX_NDIM)
    {
        input_error(in->context, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                    errmsg("a tensor has at most %d dimensions", TENSOR_MAX_NDIM),
                    errdetail("Nesting depth %d at character %d.", in->depth + 1, position(in)));
        return false;
    }
    if (in->ndim >= 0 && in->depth >= in->ndim)
        return ragged_depth(in, in->depth + 1);
    in->count[in->depth++] = 0;
    in->p++;
    return true;
}

static bool
close_list(Parser *in)
{
    int level = in->depth - 1;

    if (in->ndim < 0)
        in->ndim = in->depth;
    if (in->dims[level] >= 0 && in->dims[level] != in->count[level])
        return ragged_length(in, in->count[level], in->dims[level]);
    in->dims[level] = in->count[level];
    in->depth = level;
    if (level > 0)
        in->count[level - 1]++;
    in->p++;
    return true;
}

static bool
take_number(Parser *in)
{
    if (in->ndim >= 0 && in->depth != in->ndim)
        return ragged_depth(in, in->depth);
    if (!parse_number(in, &in->out[in->n]))
        return false;
    in->ndim = in->depth;
    in->n++;
    if (in->depth > 0)
        in->count[in->depth - 1]++;
    if ((in->n & 0xffff) == 0)
        CHECK_FOR_INTERRUPTS();
    return true;
}

/*
 * "{0,3}[]": the dimensions of a tensor without elements, and an empty list. The dimensions other than 0 count, too: see
 * tensor_count.
 */
static bool
parse_shape(Parser *in)
{
    int64 product = 1;
    bool  empty = false;

    in->ndim = 0;
    do
    {
        const char *start;
        int64       dim = 0;

        in->p++; /* the brace, or a comma */
        skip_space(in);
        for (start = in->p; is_digit(*in->p) && in->p - start < 10; in->p++)
            dim = Min(dim * 10 + (*in->p - '0'), PG_INT32_MAX);
        if (in->p == start)
            return expected(in, "a dimension");
        product *= Max(dim, 1);
        if (in->ndim == TENSOR_MAX_NDIM || product > TENSOR_MAX_ELEMENTS || is_digit(*in->p))
        {
            input_error(in->context, errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                        errmsg("a tensor has at most %d dimensions, and they hold at most %zu elements",
                               TENSOR_MAX_NDIM, TENSOR_MAX_ELEMENTS),
                        errdetail("The shape is too large at character %d.", position(in)));
            return false;
        }
        in->dims[in->ndim++] = (int32) dim;
        empty |= dim == 0;
        skip_space(in);
    } while (*in->p == ',');
    if (*in->p != '}')
        return expected(in, "\",\" or \"}\"");
    if (!empty)
    {
        input_error(in->context, errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
                    errmsg("only a tensor without elements can be written with its shape in front"),
                    errdetail("One of the dimensions before character %d must be 0.", position(in)));
        return false;
    }
    for (const char *list = "[]"; *list != '\0'; list++)
    {
        in->p++;
        skip_space(in);
        if (*in->p != *list)
            return expected(in, "\"[]\"");
    }
    in->p++;
    skip_space(in);
    return *in->p == '\0' || expected(in, "nothing more");
}

/* Everything up to the end of the outermost list. */
static bool
parse_lists(Parser *in)
{
    do
    {
        /* an element stands here, or a list that was just opened ends */
        skip_space(in);
        if (*in->p == '[')
        {
            if (!open_list(in))
                return false;
            skip_space(in);
            if (*in->p != ']')
                continue;
            if (!close_list(in))
                return false;
        }
        else if (!take_number(in))
            return false;
        /* lists end, or the next element follows */
        for (;;)
        {
            skip_space(in);
            if (in->depth == 0)
                return *in->p == '\0' || expected(in, "nothing more");
            if (*in->p == ',')
                break;
            if (*in->p != ']')
                return expected(in, "\",\" or \"]\"");
            if (!close_list(in))
                return false;
        }
        in->p++;
    } while (true);
}

Tensor *
tensor_parse(const char *text, Node *context)
{
    Parser  in = {.text = text, .p = text, .context = context, .ndim = -1};
    int32   room = 1;
    Tensor *t;

    for (const char *comma = strchr(text, ','); comma != NULL; comma = strchr(comma + 1, ','))
        if ((room++ & 0xfffff) == 0)
            CHECK_FOR_INTERRUPTS();
    for (int i = 0; i < TENSOR_MAX_NDIM; i++)
        in.dims[i] = -1;
    t = tensor_new(1, &room);
    in.out = t->data;
    skip_space(&in);
    if (*in.p == '{' ? !parse_shape(&in) : !parse_lists(&in))
        return NULL;
    return tensor_wrap(in.ndim, in.dims, t->buffer, t->data);
}
