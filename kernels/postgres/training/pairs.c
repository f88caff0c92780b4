/*
 * pairs.c -- batches of pairs for contrastive training: their sequences laid end to end, which of them are the same
 * text, and the ranks that evaluation counts.
 *
 * A row holds an anchor's tokens, its positive's, then those of hard negatives. Its segments number them token by
 * token: 0 for the anchor, 1 for the positive, 2 and on for negatives; below 0 is padding, at the end.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "tensor/tensor.h"

#define POLL_EVERY 65536  /* elements between two looks at interrupts */
#define EXCLUDED   -1e30f /* added to a logit: its softmax is 0, and no arithmetic makes a NaN of it */
#define ANCHOR     0      /* segments */
#define POSITIVE   1

/* One sequence: its tokens, and what text it is: sequences of the same tokens have the same number. */
typedef struct Sequence
{
    const int32 *ids;
    int32        length;
    int32        text;
} Sequence;

/* What is wrong with a row of n tokens, to follow "row 3", or NULL; *n_sequences: how many it has. */
static char *
row_problem(const int32 *segments, int n, int max_tokens, int *n_sequences)
{
    int last = -1, began = 0;

    for (int i = 0; i < n; i++)
    {
        int segment = segments[i];

        if (i % POLL_EVERY == 0)
            CHECK_FOR_INTERRUPTS();
        if (segment < 0)
        {
            for (int j = i + 1; j < n; j++)
                if (segments[j] >= 0)
                    return psprintf("has target %d at position %d, after padding", segments[j], j + 1);
            break;
        }
        if (segment != last && segment - 1 != last)
            return last < 0 ? psprintf("begins with target %d: an anchor's tokens have target 0", segment)
                            : psprintf("has target %d after %d: an encoder's sequences are numbered 0, 1, 2, ...",
                                       segment, last);
        if (segment != last)
            began = i;
        last = segment;
        if (i - began >= max_tokens)
            return psprintf("has more than %d tokens in its sequence %d, and the model takes no more", max_tokens,
                            segment);
    }
    if (last < POSITIVE)
        return pstrdup(last < ANCHOR ? "has no anchor: no token has target 0"
                                     : "has no positive: no token has target 1");
    *n_sequences = last + 1;
    return NULL;
}

static int
max_tokens_argument(FunctionCallInfo fcinfo, int arg)
{
    int32 max_tokens = PG_GETARG_INT32(arg);

    if (max_tokens < 1)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("max_tokens must be at least 1, not %d", max_tokens));
    return max_tokens;
}

/* Both of one shape, [T] or [B, T]. */
static void
check_shapes(const IntArray *tokens, const IntArray *segments, int max_ndim)
{
    bool same = tokens->ndim == segments->ndim && tokens->ndim >= 1 && tokens->ndim <= max_ndim;

    for (int axis = 0; same && axis < tokens->ndim; axis++)
        same = tokens->dims[axis] == segments->dims[axis];
    if (!same)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("tokens have shape %s, their targets %s", tensor_shape_text(tokens->ndim, tokens->dims),
                       tensor_shape_text(segments->ndim, segments->dims)),
                errhint("A target is the number of its token's sequence: 0 for the anchor, 1 for the positive, 2 and "
                        "on for negatives, -1 for padding."));
}

/* pg_llm_pair_problem(tokens, segments, max_tokens) -> what is wrong with a row; NULL: nothing */
PG_FUNCTION_INFO_V1(pg_llm_pair_problem);
Datum
pg_llm_pair_problem(PG_FUNCTION_ARGS)
{
    IntArray tokens = tensor_int_array(PG_GETARG_DATUM(0), "tokens");
    IntArray segments = tensor_int_array(PG_GETARG_DATUM(1), "segments");
    int      max_tokens = max_tokens_argument(fcinfo, 2);
    int      n_sequences;
    char    *problem;

    if (tokens.n == 0 && segments.n == 0)
        PG_RETURN_TEXT_P(cstring_to_text("has no tokens"));
    check_shapes(&tokens, &segments, 1);
    problem = row_problem(segments.values, (int) segments.n, max_tokens, &n_sequences);
    if (problem == NULL)
        PG_RETURN_NULL();
    PG_RETURN_TEXT_P(cstring_to_text(problem));
}

/* ---- a batch ---- */

typedef struct Pairs
{
    int       n_rows;
    int       n_sequences;
    Sequence *sequences; /* all anchors, all positives, then all negatives, each by row */
} Pairs;

static void
split_rows(Pairs *pairs, const IntArray *tokens, const IntArray *segments, int max_tokens)
{
    int       width = tokens->dims[tokens->ndim - 1];
    int       next_negative = 2 * pairs->n_rows;
    Sequence *sequence = NULL;

    pairs->n_sequences = 0;
    for (int row = 0; row < pairs->n_rows; row++)
    {
        int   in_row;
        char *problem = row_problem(segments->values + (size_t) row * width, width, max_tokens, &in_row);

        if (problem != NULL)
            ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("row %d %s", row + 1, problem));
        pairs->n_sequences += in_row;
    }
    pairs->sequences = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Sequence) * pairs->n_sequences);
    for (int row = 0; row < pairs->n_rows; row++)
    {
        const int32 *ids = tokens->values + (size_t) row * width;
        const int32 *numbers = segments->values + (size_t) row * width;
        int          last = -1;

        for (int i = 0; i < width && numbers[i] >= 0; i++)
        {
            if (numbers[i] != last)
            {
                last = numbers[i];
                sequence = &pairs->sequences[last == ANCHOR     ? row
                                             : last == POSITIVE ? pairs->n_rows + row
                                                                : next_negative++];
                *sequence = (Sequence){ids + i, 0, 0};
            }
            sequence->length++;
        }
        CHECK_FOR_INTERRUPTS();
    }
}

static int
compare_texts(const void *a, const void *b, void *arg)
{
    const Sequence *x = &((const Sequence *) arg)[*(const int *) a];
    const Sequence *y = &((const Sequence *) arg)[*(const int *) b];

    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return memcmp(x->ids, y->ids, sizeof(int32) * x->length);
}

/* Numbers the different texts; whether any occurs more than once. */
static bool
number_texts(Pairs *pairs)
{
    int *order = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * pairs->n_sequences);
    int  text = 0;

    for (int i = 0; i < pairs->n_sequences; i++)
        order[i] = i;
    qsort_arg(order, pairs->n_sequences, sizeof(int), compare_texts, pairs->sequences);
    for (int i = 0; i < pairs->n_sequences; i++)
    {
        if (i > 0 && compare_texts(&order[i - 1], &order[i], pairs->sequences) != 0)
            text++;
        pairs->sequences[order[i]].text = text;
    }
    pfree(order);
    return text + 1 < pairs->n_sequences;
}

/*
 * What to add to the logits [rows, candidates]: EXCLUDED where a candidate is no negative of the row's anchor, being
 * the text of its own positive once more, or the positive of the same anchor in another row. NULL: nothing.
 */
static Tensor *
exclusions(const Pairs *pairs)
{
    int             n_rows = pairs->n_rows, n_candidates = pairs->n_sequences - n_rows;
    const Sequence *anchors = pairs->sequences, *candidates = anchors + n_rows;
    int32           dims[2] = {n_rows, n_candidates};
    Tensor         *t = tensor_new(2, dims);
    bool            any = false;

    for (int i = 0; i < n_rows; i++)
    {
        float *row = t->data + (size_t) i * n_candidates;

        CHECK_FOR_INTERRUPTS();
        for (int j = 0; j < n_candidates; j++)
        {
            bool same = j != i && (candidates[j].text == candidates[i].text ||
                                   (j < n_rows && anchors[j].text == anchors[i].text));

            row[j] = same ? EXCLUDED : 0.0f;
            any |= same;
        }
    }
    return any ? t : NULL;
}

/* pg_llm_pairs(tokens, segments, max_tokens) -> (sequences, lengths, n_rows, exclusions) */
PG_FUNCTION_INFO_V1(pg_llm_pairs);
Datum
pg_llm_pairs(PG_FUNCTION_ARGS)
{
    IntArray  tokens = tensor_int_array(PG_GETARG_DATUM(0), "tokens");
    IntArray  segments = tensor_int_array(PG_GETARG_DATUM(1), "segments");
    int       max_tokens = max_tokens_argument(fcinfo, 2);
    Pairs     pairs;
    TupleDesc desc;
    Datum     values[4];
    bool      nulls[4] = {false, false, false, true};
    int32    *ids, *lengths;
    size_t    n = 0;

    if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "return type must be a row type");
    if (tokens.n == 0)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a batch of pairs has no rows"));
    check_shapes(&tokens, &segments, 2);
    pairs.n_rows = tokens.ndim == 2 ? tokens.dims[0] : 1;
    split_rows(&pairs, &tokens, &segments, max_tokens);
    ids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int32) * tokens.n);
    lengths = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int32) * pairs.n_sequences);
    for (int i = 0; i < pairs.n_sequences; i++)
    {
        const Sequence *sequence = &pairs.sequences[i];

        memcpy(ids + n, sequence->ids, sizeof(int32) * sequence->length);
        n += sequence->length;
        lengths[i] = sequence->length;
    }
    values[0] = PointerGetDatum(tensor_make_int_array(ids, n));
    values[1] = PointerGetDatum(tensor_make_int_array(lengths, pairs.n_sequences));
    values[2] = Int32GetDatum(pairs.n_rows);
    if (number_texts(&pairs))
    {
        Tensor *excluded = exclusions(&pairs);

        nulls[3] = excluded == NULL;
        if (excluded != NULL)
            values[3] = tensor_datum(excluded);
    }
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ---- evaluation ---- */

/*
 * pg_llm_ranks(scores, rows, columns): of every pair (row, column) of scores [m, n], counted from 0, how many columns
 * that are not paired with the row have a score that is not below the pair's, plus 1. So a tie counts against a pair.
 */
PG_FUNCTION_INFO_V1(pg_llm_ranks);
Datum
pg_llm_ranks(PG_FUNCTION_ARGS)
{
    Tensor  *scores = PG_GETARG_TENSOR(0);
    IntArray rows = tensor_int_array(PG_GETARG_DATUM(1), "rows");
    IntArray columns = tensor_int_array(PG_GETARG_DATUM(2), "columns");
    int      m, n;
    int32   *ranks, *first, *of_row;
    bool    *paired;

    if (scores->ndim != 2)
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("scores have shape %s, not [m, n]", tensor_shape_text(scores->ndim, scores->dims)));
    if (rows.n != columns.n || (rows.n > 0 && (rows.ndim != 1 || columns.ndim != 1)))
        ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                errmsg("rows and columns must be lists of equal length, not of shapes %s and %s",
                       tensor_shape_text(rows.ndim, rows.dims), tensor_shape_text(columns.ndim, columns.dims)));
    m = scores->dims[0];
    n = scores->dims[1];
    for (size_t i = 0; i < rows.n; i++)
        if (rows.values[i] < 0 || rows.values[i] >= m || columns.values[i] < 0 || columns.values[i] >= n)
            ereport(ERROR, errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
                    errmsg("scores of shape %s have no element [%d,%d]", tensor_shape_text(scores->ndim, scores->dims),
                           rows.values[i], columns.values[i]));
    /* the pairs by row: those of row r are of_row[first[r]] to of_row[first[r + 1] - 1] */
    ranks = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int32) * Max(rows.n, 1));
    of_row = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int32) * Max(rows.n, 1));
    first = MemoryContextAllocExtended(CurrentMemoryContext, sizeof(int32) * ((size_t) m + 2),
                                       MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
    paired = MemoryContextAllocExtended(CurrentMemoryContext, Max(n, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
    for (size_t i = 0; i < rows.n; i++)
        first[rows.values[i] + 2]++;
    for (int r = 0; r < m; r++)
        first[r + 2] += first[r + 1];
    for (size_t i = 0; i < rows.n; i++)
        of_row[first[rows.values[i] + 1]++] = (int32) i;
    for (int r = 0; r < m; r++)
    {
        const float *row = scores->data + (size_t) r * n;

        for (int p = first[r]; p < first[r + 1]; p++)
            paired[columns.values[of_row[p]]] = true;
        for (int p = first[r]; p < first[r + 1]; p++)
        {
            float own = row[columns.values[of_row[p]]];
            int   rank = 1;

            CHECK_FOR_INTERRUPTS();
            for (int j = 0; j < n; j++)
                rank += !paired[j] && !(row[j] < own);
            ranks[of_row[p]] = rank;
        }
        for (int p = first[r]; p < first[r + 1]; p++)
            paired[columns.values[of_row[p]]] = false;
    }
    PG_RETURN_ARRAYTYPE_P(tensor_make_int_array(ranks, rows.n));
}
