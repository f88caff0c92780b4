/*
 * pg_llm.c -- what joins the rooms: loading the library, and what ends with transactions and portals, in a fixed order.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "autograd/pass.h"
#include "autograd/tape.h"
#include "core/engine/memory.h"
#include "files/files.h"
#include "generation/generate.h"
#include "params/fingerprint.h"
#include "params/params.h"
#include "session/engine.h"
#include "session/lock.h"
#include "session/portals.h"
#include "session/progress.h"
#include "session/settings.h"
#include "shared/shared.h"
#include "tensor/buffer.h"
#include "tokenizer/tokenizer.h"
#include "training/batch.h"

PG_MODULE_MAGIC;

/* What stood as each open subtransaction began, outermost first. */
typedef struct Mark
{
    SubTransactionId subid;
    PassState        pass;
    TapeMark         tape;
    GenerateMark     generation;
} Mark;

static Mark *marks = NULL;
static int   n_marks = 0;
static int   room_for_marks = 0;

/* ---- what ends with a transaction ---- */

/* Nothing here may throw, once the transaction ends. */
static void
end_xact(XactEvent event, void *arg)
{
    (void) arg;
    if (event == XACT_EVENT_PRE_COMMIT)
        params_publish(); /* an error or an interrupt is one of the statement */
    if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
        return;
    tensor_buffer_end_xact(); /* blocks that are released from here on are bounded as they come */
    generate_end_xact();      /* before the versions that generations hold */
    params_end_xact(event != XACT_EVENT_ABORT);
    if (event == XACT_EVENT_ABORT)
    {
        tape_abort(NULL);
        pg_llm_engine_abort();
    }
    tape_end_xact();
    batch_end_xact();
    locks_end_xact(event != XACT_EVENT_ABORT);
    progress_end_xact(event != XACT_EVENT_ABORT);
    pass_restore(NULL);
    n_marks = 0;
    shared_end_xact(event);
    files_end_xact(event); /* what is removed with a commit, last: the rest needs no file */
}

static void
push_mark(SubTransactionId subid)
{
    if (n_marks == room_for_marks)
    {
        int larger = Max(16, room_for_marks * 2);

        marks = marks == NULL ? MemoryContextAllocHuge(TopMemoryContext, sizeof(Mark) * larger)
                              : repalloc_huge(marks, sizeof(Mark) * larger);
        room_for_marks = larger;
    }
    marks[n_marks++] = (Mark){subid, *pass_current(), tape_mark(), generate_mark()};
}

/* The mark of a subtransaction that ends; NULL when it began before this library was loaded. */
static const Mark *
pop_mark(SubTransactionId subid)
{
    while (n_marks > 0 && marks[n_marks - 1].subid > subid)
        n_marks--;
    if (n_marks > 0 && marks[n_marks - 1].subid == subid)
        return &marks[--n_marks];
    return NULL;
}

static void
end_subxact(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
    bool        commit = event == SUBXACT_EVENT_COMMIT_SUB;
    const Mark *mark;

    (void) arg;
    if (event == SUBXACT_EVENT_START_SUB)
        push_mark(mine);
    if (!commit && event != SUBXACT_EVENT_ABORT_SUB)
        return;
    if (!commit)
    {
        fingerprint_abort_subxact();
        pg_llm_engine_abort();
    }
    mark = pop_mark(mine);
    generate_end_subxact(mine, parent, commit, mark == NULL ? NULL : &mark->generation);
    params_end_subxact(mine, parent, commit);
    if (!commit)
    {
        tape_abort(mark == NULL ? NULL : &mark->tape);
        if (mark != NULL)
            pass_restore(&mark->pass);
    }
    progress_end_subxact(mine, parent, commit);
    shared_end_subxact(commit);
    files_end_subxact(commit);
}

static void
portal_gone(Portal portal)
{
    generate_portal_gone(portal);
    params_portal_gone(portal);
    locks_portal_gone(portal);
}

/* ---- loading ---- */

extern void _PG_init(void);

void
_PG_init(void)
{
    settings_init();
    files_dirs_init();
    shared_init();
    MarkGUCPrefixReserved("pg_llm");
    llm_memory_set_room(tensor_buffer_room);
    search_path_init();
    portals_init(portal_gone);
    RegisterXactCallback(end_xact, NULL);
    RegisterSubXactCallback(end_subxact, NULL);
}

/* ---- the session as a whole ---- */

/* pg_llm_require_autocommit(procedure): PostgreSQL's own error of its COMMIT would not say what to do. */
PG_FUNCTION_INFO_V1(pg_llm_require_autocommit);
Datum
pg_llm_require_autocommit(PG_FUNCTION_ARGS)
{
    if (IsTransactionBlock())
        ereport(ERROR, errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
                errmsg("%s commits as it goes and cannot run inside a transaction block",
                       text_to_cstring(PG_GETARG_TEXT_PP(0))),
                errhint("Call it in autocommit mode, outside BEGIN ... COMMIT; llm_train trains in one transaction."));
    PG_RETURN_VOID();
}

/*
 * pg_llm_release() -> bytes given back: versions nobody pins, a kept key/value cache, buffers kept for reuse, tokenizers,
 * permutations.
 */
PG_FUNCTION_INFO_V1(pg_llm_release);
Datum
pg_llm_release(PG_FUNCTION_ARGS)
{
    size_t bytes = params_forget_unused() + kept_forget();

    bytes += tensor_buffer_cached();
    tensor_buffer_trim();
    pg_llm_engine_trim();
    bytes += tokenizer_release() + batch_release();
    PG_RETURN_INT64((int64) bytes);
}
