/*
 * ahead.c -- versions ahead of the table: the weights of a training run between two write-backs.
 *
 * A run commits its log often and its weights seldom. In between its version is one that no row of llm_param holds, and
 * must outlive COMMIT. arena_keep marks it so; arena_open_run takes it up again, for the same run, role and stored
 * version and the same row of the log, and nobody else ever finds it: readers of this session read what the table holds.
 * The step's number would not do: other sessions can give up logged steps and make others with their numbers. A rollback
 * of steps takes their version with it, as ever; the run then goes on from the table, and computes again what is logged.
 *
 * While the statement that keeps it runs, no room is made at its cost. When that ends, or with a rollback, it is a
 * cached version like any other: the next version of the model, pg_llm.cache_size and llm_release() end it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "params_internal.h"
#include "session/mixed.h"
#include "session/portals.h"

/* pg_llm_arena_keep(model, run_id, log_id): the version pinned for training is the run's after the step logged there */
PG_FUNCTION_INFO_V1(pg_llm_arena_keep);
Datum
pg_llm_arena_keep(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_require_training(PG_GETARG_TEXT_PP(0));

    if (v->discarded)
        PG_RETURN_VOID();
    v->holder = portals_watch();
    v->kept = true;
    v->run_id = PG_GETARG_INT64(1);
    v->log_id = PG_GETARG_INT64(2);
    PG_RETURN_VOID();
}

/*
 * pg_llm_arena_open_run(model, fingerprint, run_id, log_id) -> whether memory has the version that the run kept after the
 * step logged there on top of the stored one; it is then pinned for training.
 */
PG_FUNCTION_INFO_V1(pg_llm_arena_open_run);
Datum
pg_llm_arena_open_run(PG_FUNCTION_ARGS)
{
    char         *model = text_to_cstring(PG_GETARG_TEXT_PP(0));
    bytea        *fingerprint = PG_GETARG_BYTEA_PP(1);
    ModelVersion *v;

    params_require_pin_room();
    v = versions_find_kept(model, VARDATA_ANY(fingerprint), VARSIZE_ANY_EXHDR(fingerprint), PG_GETARG_INT64(2),
                           PG_GETARG_INT64(3));
    if (v == NULL)
    {
        versions_forget_kept(model); /* another one has no use any more */
        PG_RETURN_BOOL(false);
    }
    params_push_training_pin(v);
    PG_RETURN_BOOL(true);
}

/* ---- a hash of the numbers ---- */

#define LANES     4
#define HASH_STEP ((size_t) 1 << 22) /* numbers between two looks at interrupts; a multiple of what the lanes take */

typedef struct Sums
{
    uint64 lane[LANES];
} Sums;

/* As the bits of float32 numbers, two to a word, the first of them low: the same on every machine. */
static void
add_numbers(Sums *sums, const float *x, size_t n)
{
    uint32 tail[2 * LANES] = {0};
    size_t i = 0;

    for (; i + 2 * LANES <= n; i += 2 * LANES)
    {
        uint32 bits[2 * LANES];

        memcpy(bits, x + i, sizeof(bits));
        for (int lane = 0; lane < LANES; lane++)
            sums->lane[lane] = mixed(sums->lane[lane], bits[2 * lane] | (uint64) bits[2 * lane + 1] << 32);
    }
    if (i == n)
        return;
    memcpy(tail, x + i, (n - i) * sizeof(float));
    for (int lane = 0; lane < LANES; lane++)
        sums->lane[lane] = mixed(sums->lane[lane], tail[2 * lane] | (uint64) tail[2 * lane + 1] << 32);
}

static void
add_buffer(Sums *sums, const TensorBuffer *buffer, size_t n)
{
    for (size_t from = 0; from < n; from += HASH_STEP)
    {
        add_numbers(sums, buffer->data + from, Min(n - from, HASH_STEP));
        CHECK_FOR_INTERRUPTS();
    }
}

/*
 * pg_llm_arena_hash(model) -> 64 bits over all parameters that are pinned for training, by name: shape, data, m, v. How
 * the table divides them into parts does not matter. NULL once pg_llm_arena_discard has said that the rows differ.
 */
PG_FUNCTION_INFO_V1(pg_llm_arena_hash);
Datum
pg_llm_arena_hash(PG_FUNCTION_ARGS)
{
    ModelVersion *v = params_require_training(PG_GETARG_TEXT_PP(0));
    Sums          sums = {{1, 2, 3, 4}};
    uint64        h = 0;

    if (v->discarded)
        PG_RETURN_NULL();
    for (int i = 0; i < v->n_params; i++)
    {
        const ModelParam *p = &v->params[i];

        for (const char *c = p->name; *c != '\0'; c++)
            sums.lane[0] = mixed(sums.lane[0], (unsigned char) *c);
        for (int axis = 0; axis < p->ndim; axis++)
            sums.lane[1] = mixed(sums.lane[1], (uint32) p->dims[axis]);
        add_buffer(&sums, p->data, p->n);
        add_buffer(&sums, p->m, p->n);
        add_buffer(&sums, p->v, p->n);
    }
    for (int lane = 0; lane < LANES; lane++)
        h = mixed(h, sums.lane[lane]);
    PG_RETURN_INT64((int64) h);
}
