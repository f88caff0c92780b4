/*
 * progress.c -- how far running trainings are, readable from any session while their transaction is open.
 *
 * One file below pg_stat_tmp, mapped by everyone, holds a slot per backend. A slot is written by its owner only;
 * readers check the change counter before and after, as PostgreSQL's own backend status does. Losing the file
 * loses nothing but the display, and what others write into a slot: the wish that its run should end.
 */
#include "postgres.h"

#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/timestamp.h"

#include "progress.h"

#define PROGRESS_FILE  "pg_stat_tmp/pg_llm_progress.3"
#define PROGRESS_MODEL 128

typedef struct ProgressSlot
{
    pg_atomic_uint32 changes; /* odd while being written */
    int32            pid;     /* 0: nothing is running */
    Oid              database;
    Oid              role;
    pg_atomic_uint64 stop; /* the run that somebody wants to end; 0: none */
    int64            run_id, step, total, tokens;
    double           loss, lr;
    TimestampTz      started_at, updated_at;
    TimestampTz      server, session; /* when they began: what others left in the file is not theirs */
    char             model[PROGRESS_MODEL];
} ProgressSlot;

static ProgressSlot    *slots = NULL;
static SubTransactionId begun_in = InvalidSubTransactionId; /* of this transaction; invalid: an earlier one's */
static bool             exit_registered = false;

static int
slot_count(void)
{
    return MaxBackends + 1;
}

/* Maps the file, making it when needed; false when it cannot be had. */
static bool
map_slots(void)
{
    size_t bytes = sizeof(ProgressSlot) * slot_count();
    int    fd;
    void  *map;

    if (slots != NULL)
        return true;
    fd = OpenTransientFile(PROGRESS_FILE, O_RDWR | O_CREAT | PG_BINARY);
    if (fd < 0)
        return false;
    /* with room on disk: writing to a hole of the mapping would be SIGBUS on a full one */
#ifdef HAVE_POSIX_FALLOCATE
    if (posix_fallocate(fd, 0, bytes) != 0)
#else
    if (ftruncate(fd, bytes) != 0)
#endif
    {
        CloseTransientFile(fd);
        return false;
    }
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CloseTransientFile(fd);
    if (map == MAP_FAILED)
        return false;
    slots = map;
    return true;
}

static ProgressSlot *
my_slot(void)
{
#if PG_VERSION_NUM >= 170000
    return &slots[MyProcNumber];
#else
    return &slots[MyProc->pgprocno < slot_count() ? MyProc->pgprocno : slot_count() - 1];
#endif
}

/* After a crash a slot is as it was, and another session may have its process id. */
static bool
is_mine(const ProgressSlot *slot)
{
    return slot->pid == MyProcPid && slot->server == PgStartTime && slot->session == MyStartTimestamp;
}

static void
begin_change(ProgressSlot *slot)
{
    pg_atomic_write_u32(&slot->changes, pg_atomic_read_u32(&slot->changes) | 1);
    pg_write_barrier();
}

static void
end_change(ProgressSlot *slot)
{
    pg_write_barrier();
    pg_atomic_write_u32(&slot->changes, (pg_atomic_read_u32(&slot->changes) | 1) + 1);
}

void
progress_clear(void)
{
    ProgressSlot *slot;

    if (slots == NULL || MyProc == NULL)
        return;
    slot = my_slot();
    if (!is_mine(slot))
        return;
    begin_change(slot);
    slot->pid = 0;
    end_change(slot);
}

void
progress_end_xact(bool commit)
{
    if (!commit)
        progress_clear();
    begun_in = InvalidSubTransactionId;
}

void
progress_end_subxact(SubTransactionId mine, SubTransactionId parent, bool commit)
{
    if (begun_in != mine)
        return;
    if (!commit)
        progress_clear();
    begun_in = commit ? parent : InvalidSubTransactionId;
}

static void
at_exit(int code, Datum arg)
{
    (void) code;
    (void) arg;
    progress_clear();
}

/*
 * pg_llm_progress(model, run_id, step, total, loss, lr, tokens): from none or running to running. It ends with
 * pg_llm_progress_clear, and with a rollback of what began it: an error caught on the way changes nothing.
 */
PG_FUNCTION_INFO_V1(pg_llm_progress);
Datum
pg_llm_progress(PG_FUNCTION_ARGS)
{
    ProgressSlot *slot;
    int64         run_id;
    char          model[PROGRESS_MODEL];

    if (PG_ARGISNULL(0) || !map_slots())
        PG_RETURN_VOID();
    if (!exit_registered)
    {
        before_shmem_exit(at_exit, (Datum) 0);
        exit_registered = true;
    }
    slot = my_slot();
    text_to_cstring_buffer(PG_GETARG_TEXT_PP(0), model, PROGRESS_MODEL);
    run_id = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
    /* nothing between the two changes of the counter can fail */
    begin_change(slot);
    if (!is_mine(slot) || slot->run_id != run_id)
    {
        slot->started_at = GetCurrentTimestamp();
        begun_in = GetCurrentSubTransactionId();
        pg_atomic_write_u64(&slot->stop, 0);
    }
    slot->pid = MyProcPid;
    slot->server = PgStartTime;
    slot->session = MyStartTimestamp;
    slot->database = MyDatabaseId;
    slot->role = GetUserId();
    slot->run_id = run_id;
    slot->step = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
    slot->total = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3);
    slot->loss = PG_ARGISNULL(4) ? NAN : PG_GETARG_FLOAT8(4);
    slot->lr = PG_ARGISNULL(5) ? NAN : PG_GETARG_FLOAT8(5);
    slot->tokens = PG_ARGISNULL(6) ? 0 : PG_GETARG_INT64(6);
    slot->updated_at = GetCurrentTimestamp();
    memcpy(slot->model, model, PROGRESS_MODEL);
    end_change(slot);
    PG_RETURN_VOID();
}

/* pg_llm_progress_clear(): this session's training is no longer shown to others */
PG_FUNCTION_INFO_V1(pg_llm_progress_clear);
Datum
pg_llm_progress_clear(PG_FUNCTION_ARGS)
{
    progress_clear();
    PG_RETURN_VOID();
}

/* A consistent copy of a slot; false when nothing runs there. */
static bool
read_slot(const ProgressSlot *slot, ProgressSlot *copy)
{
    for (int tries = 0; tries < 1000; tries++)
    {
        uint32 before = pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &slot->changes));

        pg_read_barrier();
        memcpy(copy, slot, sizeof(ProgressSlot));
        pg_read_barrier();
        if ((before & 1) == 0 && before == pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &slot->changes)))
        {
            copy->model[PROGRESS_MODEL - 1] = '\0';
            return copy->pid != 0 && copy->server == PgStartTime && BackendPidGetProc(copy->pid) != NULL;
        }
    }
    return false;
}

/* Whether row policies keep the caller from seeing the model. One that is not committed yet hides itself from nobody. */
static bool
hidden_by_policies(const char *model)
{
    Oid   table = get_relname_relid("llm_model_config", get_namespace_oid("public", true));
    Oid   type = TEXTOID;
    Datum argument = CStringGetTextDatum(model);
    bool  hidden;

    if (!OidIsValid(table) || check_enable_rls(table, InvalidOid, true) != RLS_ENABLED)
        return false;
    if (strlen(model) + MAX_MULTIBYTE_CHAR_LEN >= PROGRESS_MODEL)
        return true; /* it may have been cut, and be another's name now */
    SPI_connect();
    if (SPI_execute_with_args("SELECT FROM public.llm_model_config c WHERE c.model OPERATOR(pg_catalog.=) $1", 1, &type,
                              &argument, NULL, true, 1) != SPI_OK_SELECT)
        elog(ERROR, "could not read llm_model_config");
    hidden = SPI_processed == 0;
    SPI_finish();
    return hidden;
}

/* pg_llm_train_progress() -> one row per training that runs in this database, of models the caller may see */
PG_FUNCTION_INFO_V1(pg_llm_train_progress);
Datum
pg_llm_train_progress(PG_FUNCTION_ARGS)
{
    ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

    InitMaterializedSRF(fcinfo, 0);
    if (!map_slots())
        return (Datum) 0;
    for (int i = 0; i < slot_count(); i++)
    {
        ProgressSlot s;
        Datum        values[11];
        bool         nulls[11] = {false};

        if (!read_slot(&slots[i], &s) || s.database != MyDatabaseId || hidden_by_policies(s.model))
            continue;
        values[0] = Int32GetDatum(s.pid);
        values[1] = ObjectIdGetDatum(s.database);
        values[2] = CStringGetTextDatum(s.model);
        values[3] = Int64GetDatum(s.run_id);
        values[4] = Int64GetDatum(s.step);
        values[5] = Int64GetDatum(s.total);
        values[6] = Float8GetDatum(s.loss);
        values[7] = Float8GetDatum(s.lr);
        values[8] = Int64GetDatum(s.tokens);
        values[9] = TimestampTzGetDatum(s.started_at);
        values[10] = TimestampTzGetDatum(s.updated_at);
        nulls[6] = isnan(s.loss); /* before the first step */
        nulls[7] = isnan(s.lr);
        tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
    }
    return (Datum) 0;
}

/* ---- ending a run from outside ---- */

/* Whoever runs as the trainer's role, or may write the table of runs */
static bool
may_stop(const ProgressSlot *s)
{
    Oid table = get_relname_relid("llm_train_run", get_namespace_oid("public", true));

    if (has_privs_of_role(GetUserId(), s->role))
        return true;
    return OidIsValid(table) && pg_class_aclcheck(table, GetUserId(), ACL_UPDATE) == ACLCHECK_OK &&
           !hidden_by_policies(s->model);
}

/* pg_llm_stop_training(run_id) -> whether a session of this database trains that run; it will write back and end */
PG_FUNCTION_INFO_V1(pg_llm_stop_training);
Datum
pg_llm_stop_training(PG_FUNCTION_ARGS)
{
    int64 run_id = PG_GETARG_INT64(0);

    if (run_id <= 0 || !map_slots())
        PG_RETURN_BOOL(false);
    for (int i = 0; i < slot_count(); i++)
    {
        ProgressSlot s;

        if (!read_slot(&slots[i], &s) || s.database != MyDatabaseId || s.run_id != run_id)
            continue;
        if (!may_stop(&s))
            ereport(ERROR, errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                    errmsg("permission denied to stop run " INT64_FORMAT, run_id),
                    errhint("Its role, its role's members and whoever may update llm_train_run can stop it."));
        pg_atomic_write_u64(&slots[i].stop, (uint64) run_id);
        PG_RETURN_BOOL(true);
    }
    PG_RETURN_BOOL(false);
}

/* pg_llm_stop_wanted(run_id) -> whether somebody wants this session's run to end */
PG_FUNCTION_INFO_V1(pg_llm_stop_wanted);
Datum
pg_llm_stop_wanted(PG_FUNCTION_ARGS)
{
    int64 run_id = PG_GETARG_INT64(0);

    PG_RETURN_BOOL(run_id > 0 && slots != NULL && MyProc != NULL &&
                   pg_atomic_read_u64(&my_slot()->stop) == (uint64) run_id);
}
