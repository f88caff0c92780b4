/*
 * shared_build.c -- who writes a shared file, when, and out of what.
 *
 * One session at a time writes a model's files: it holds a lock that only this code takes, and that ends with it,
 * however it ends.
 */
#include "postgres.h"

#include <limits.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/wait_event.h"

#include "session/engine.h"
#include "shared.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

#define WAIT_MS     2000 /* for another session that writes the model's file */
#define POLL_MS     10
#define LOCK_KIND   0x5348 /* SQL's advisory locks are of the kinds 1 and 2 */
#define MAX_TENSORS 65536
#define MAX_TEXT    ((size_t) 256 << 20)

/* A tmpfs gives memory that may not be there, and the kernel then ends processes. */
static bool
memory_suffices(uint64 bytes)
{
#ifdef __linux__
    struct statfs s;

    if (statfs(shared_directory(), &s) == 0 && (s.f_type == 0x01021994 || s.f_type == 0x858458f6))
        return tensor_buffer_room(bytes);
#endif
    return true;
}

/*
 * What the rows' transactions wrote is on disk before others rely on their numbers: after a crash that lost a commit,
 * its transaction id, and the ids of its TOAST values, would come again. At the start of a page the next record's place
 * lies behind that page's header, which is not written yet.
 */
static void
flush_log(void)
{
    XLogRecPtr end;

    if (RecoveryInProgress())
        return;
    end = GetXLogInsertRecPtr();
    if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
        end -= SizeOfXLogLongPHD;
    else if (end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
        end -= SizeOfXLogShortPHD;
    XLogFlush(end);
}

/* ---- one writer at a time ---- */

static bool
take_lock(const LOCKTAG *tag, bool patient)
{
    TimestampTz begun = GetCurrentTimestamp();

    while (LockAcquire(tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
    {
        if (!patient || TimestampDifferenceExceeds(begun, GetCurrentTimestamp(), WAIT_MS))
            return false;
        (void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_MS, PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    }
    return true;
}

/* The file's table, with all that can be said before its numbers are written; NULL: there can be no file. */
static SharedTable *
plan(const SharedRows *rows, const SharedContent *content)
{
    SharedHeader h = {.n_tensors = content->n_tensors, .n_parts = content->n_parts, .text_bytes = content->text_bytes};
    SharedTable *t;

    shared_header_init(&h, rows, content->precision, content->data_bytes);
    t = shared_table_new(&h);
    if (t == NULL)
        return NULL;
    t->header.bytes = h.data_at + content->data_bytes + (uint64) content->n_tensors * SHARED_ALIGNMENT;
    if (t->header.bytes + content->beside > shared_limit())
        shared_notice(0, psprintf("model \"%s\" takes %zu MB, and pg_llm.shared_size allows %zu MB", rows->model,
                                  (size_t) ((t->header.bytes + content->beside) >> 20), shared_limit() >> 20));
    else if (!shared_make_directory())
        shared_notice(errno, "make or enter");
    else if (!memory_suffices(t->header.bytes))
        shared_notice(ENOMEM, "write a file");
    else
        return t;
    pfree(t);
    return NULL;
}

/* Under the lock; `there`: what is shared so far */
static SharedMapping *
build(const SharedRows *rows, SharedContent *content, const SharedMapping *there)
{
    char          *path = shared_path(rows, content->precision);
    SharedTable   *t;
    SharedMapping *m;
    int            error;

    if (content->more != NULL && !content->more(content, there))
        return NULL;
    t = plan(rows, content);
    if (t == NULL)
        return NULL;
    flush_log();
    if (!shared_write(t, content, path, &error))
    {
        if (error != 0)
            shared_notice(error, "write a file");
        return NULL;
    }
    pfree(t);
    shared_trim(rows->model_hash, path);
    m = shared_map(rows, content->precision);
    PG_TRY();
    {
        if (m != NULL)
            shared_mapping_collapse(m);
    }
    PG_CATCH();
    {
        shared_mapping_release(m);
        PG_RE_THROW();
    }
    PG_END_TRY();
    return m;
}

/* The same, unless another session was faster */
static SharedMapping *
build_or_map(const SharedRows *rows, SharedContent *content)
{
    SharedMapping *there = shared_map(rows, content->precision);
    SharedMapping *volatile made = NULL;

    if (there != NULL && content->more == NULL)
        return there;
    PG_TRY();
    {
        made = build(rows, content, there);
    }
    PG_CATCH();
    {
        if (there != NULL)
            shared_mapping_release(there);
        PG_RE_THROW();
    }
    PG_END_TRY();
    if (made == NULL)
        return there;
    if (there != NULL)
        shared_mapping_release(there);
    return made;
}

SharedMapping *
shared_build(const SharedRows *rows, SharedContent *content)
{
    SharedMapping *m;
    LOCKTAG        tag;

    if (shared_place() == 0)
        return NULL;
    SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (rows->model_hash >> 32), (uint32) rows->model_hash, LOCK_KIND);
    if (!take_lock(&tag, content->patient))
        return NULL;
    m = build_or_map(rows, content);
    LockRelease(&tag, ExclusiveLock, false);
    return m;
}

/* ---- float32, from rows ---- */

uint32
shared_put_text(SharedTable *t, uint32 *at, const char *s)
{
    uint32 begins = *at;
    size_t n = strlen(s) + 1;

    memcpy(t->text + begins, s, n);
    *at += (uint32) n;
    return begins;
}

/* The part goes on where the parameter's others ended: same width, next row. */
static bool
continues(const SharedTensor *tensor, const SharedRow *row, const TensorView *v, int64 rows)
{
    if (row->token_id != rows || v->ndim != tensor->ndim || (rows > 0 && v->ndim < 1))
        return false;
    return v->ndim == 0 || memcmp(v->dims + 1, tensor->dims + 1, sizeof(int32) * (v->ndim - 1)) == 0;
}

static bool
put_row(SharedWriter *w, SharedTable *t, SharedTensor *tensor, uint32 part, const SharedRow *row)
{
    TensorView v = tensor_view_open(row->data);
    bool       is_first = tensor->n_parts == 0;
    int64      rows = is_first || tensor->ndim == 0 ? tensor->n_parts : tensor->dims[0];
    uint64     at;
    bool       fits;

    if (is_first)
    {
        tensor->first_part = part;
        tensor->ndim = v.ndim;
        memcpy(tensor->dims, v.dims, sizeof(int32) * v.ndim);
        if (v.ndim > 0)
            tensor->dims[0] = 0;
    }
    fits = continues(tensor, row, &v, rows) && (v.ndim == 0 || rows + v.dims[0] <= INT_MAX) &&
           pg_llm_all_finite(pg_llm_engine(), v.data, v.n) && shared_put(w, v.data, v.n * sizeof(float), is_first, &at);
    if (fits)
    {
        t->parts[part].token_id = row->token_id;
        t->parts[part].rows = v.ndim > 0 ? v.dims[0] : 1;
        if (v.ndim > 0)
            tensor->dims[0] += v.dims[0];
        tensor->n_parts++;
        tensor->bytes += v.n * sizeof(float);
        if (is_first)
            tensor->at = at;
    }
    tensor_view_close(&v);
    return fits;
}

static bool
put_rows(SharedWriter *w, SharedTable *t, void *arg)
{
    const SharedRows *rows = arg;
    SharedTensor     *tensor = t->tensors - 1;
    uint32            text = 0;

    shared_put_text(t, &text, rows->model);
    for (int i = 0; i < rows->n; i++)
    {
        if (i == 0 || strcmp(rows->rows[i - 1].name, rows->rows[i].name) != 0)
        {
            tensor++;
            tensor->name = shared_put_text(t, &text, rows->rows[i].name);
        }
        if (!put_row(w, t, tensor, (uint32) i, &rows->rows[i]))
            return false;
    }
    return true;
}

SharedMapping *
shared_build_float32(const SharedRows *rows, bool patient)
{
    SharedContent content = {.precision = LLM_FLOAT32,
                             .patient = patient,
                             .n_parts = (uint32) rows->n,
                             .data_bytes = rows->bytes,
                             .write = put_rows,
                             .arg = unconstify(SharedRows *, rows)};
    size_t        text = strlen(rows->model) + 1;

    for (int i = 0; i < rows->n; i++)
        if (i == 0 || strcmp(rows->rows[i - 1].name, rows->rows[i].name) != 0)
        {
            content.n_tensors++;
            text += strlen(rows->rows[i].name) + 1;
        }
    if (rows->n == 0 || content.n_tensors > MAX_TENSORS || text > MAX_TEXT)
        return NULL;
    content.text_bytes = (uint32) text;
    return shared_build(rows, &content);
}
