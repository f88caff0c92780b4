/*
 * session.c -- settings (pg_llm.*), the running pass, recording, and what ends with a transaction.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "params/arena.h"
#include "tensor/buffer.h"
#include "files/files.h"
#include "generation/generate.h"
#include "core/engine/memory.h"
#include "session/progress.h"
#include "generation/sample.h"
#include "session/session.h"
#include "autograd/tape.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

int     pg_llm_threads = 0;
int     pg_llm_max_threads = 0;
int     pg_llm_isa = -1;
int     pg_llm_attention_chunk = 64;
int     pg_llm_record = RECORD_GRAPH;
int     pg_llm_tape_keep = 1;
int     pg_llm_cache_size_mb = 4096;
int     pg_llm_weights = LLM_FLOAT32;
bool    pg_llm_autograd = false;
char   *pg_llm_default_model = NULL;

static PassState pass;

/* What stood as each open subtransaction began, outermost first. */
typedef struct Mark
{
    SubTransactionId subid;
    PassState   pass;
    TapeMark    tape;
    GenerateMark generation;
} Mark;

static Mark *marks = NULL;
static int  n_marks = 0;
static int  room_for_marks = 0;

static const struct config_enum_entry isa_options[] = {
    {"auto", -1, false},
    {"scalar", LLM_ISA_SCALAR, false},
    {"neon", LLM_ISA_NEON, false},
    {"avx2", LLM_ISA_AVX2, false},
    {"avx512", LLM_ISA_AVX512, false},
    {NULL, 0, false},
};

static const struct config_enum_entry record_options[] = {
    {"off", RECORD_OFF, false},
    {"graph", RECORD_GRAPH, false},
    {"full", RECORD_FULL, false},
    {NULL, 0, false},
};

static const struct config_enum_entry weights_options[] = {
    {"float32", LLM_FLOAT32, false},
    {"bf16", LLM_BF16, false},
    {"int8", LLM_INT8, false},
    {NULL, 0, false},
};

static const struct config_enum_entry tape_keep_options[] = {
    {"none", 0, false},
    {"last", 1, false},
    {"all", 2, false},
    {NULL, 0, false},
};

const PassState *
session_pass(void)
{
    return &pass;
}

int
session_next_site(void)
{
    return ++pass.sites;
}

bool
session_recording(void)
{
    return pg_llm_autograd && !generate_in_use() && tape_open();
}

/* ---- what ends with a transaction ---- */

static void
end_xact(XactEvent event, void *arg)
{
    (void) arg;
    if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
        return;
    generate_end_xact();
    arena_end_xact(event != XACT_EVENT_ABORT);
    if (event == XACT_EVENT_ABORT)
        tape_abort(NULL);
    tape_end_xact();
    sample_end_xact();
    progress_end_xact(event != XACT_EVENT_ABORT);
    memset(&pass, 0, sizeof(pass));
    n_marks = 0;
}

static void
push_mark(SubTransactionId subid)
{
    if (n_marks == room_for_marks)
    {
        int     larger = Max(16, room_for_marks * 2);

        marks = marks == NULL
            ? MemoryContextAllocHuge(TopMemoryContext, sizeof(Mark) * larger)
            : repalloc_huge(marks, sizeof(Mark) * larger);
        room_for_marks = larger;
    }
    marks[n_marks++] = (Mark) {subid, pass, tape_mark(), generate_mark()};
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
    bool    commit = event == SUBXACT_EVENT_COMMIT_SUB;
    const Mark *mark;

    (void) arg;
    if (event == SUBXACT_EVENT_START_SUB)
        push_mark(mine);
    if (!commit && event != SUBXACT_EVENT_ABORT_SUB)
        return;
    mark = pop_mark(mine);
    generate_end_subxact(mine, parent, commit, mark == NULL ? NULL : &mark->generation);
    arena_end_subxact(mine, parent, commit);
    if (!commit)
    {
        tape_abort(mark == NULL ? NULL : &mark->tape);
        if (mark != NULL)
            pass = mark->pass;
    }
    progress_end_subxact(mine, parent, commit);
}

/* ---- settings ---- */

static bool
check_isa(int *value, void **extra, GucSource source)
{
    (void) extra;
    (void) source;
    if (*value < 0 || llm_isa_available((llm_isa) *value))
        return true;
    GUC_check_errdetail("This machine cannot run the instruction set \"%s\"; its best is \"%s\".",
                        llm_isa_name((llm_isa) *value), llm_isa_name(llm_isa_best()));
    return false;
}

void
session_init(void)
{
    DefineCustomIntVariable("pg_llm.threads", "Threads that kernels of this session may use; 0 means all cores.",
                            "No more than pg_llm.max_threads are taken. Results do not depend on it.",
                            &pg_llm_threads, 0, 0, 1024, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("pg_llm.max_threads", "Threads that any session's kernels may use; 0 means as many as cores.",
                            "A superuser's bound on pg_llm.threads. Results do not depend on it.",
                            &pg_llm_max_threads, 0, 0, 1024, PGC_SUSET, 0, NULL, NULL, NULL);
    DefineCustomEnumVariable("pg_llm.isa", "Instruction set of the kernels.",
                             "auto takes the best the machine has. Results do not depend on it.", &pg_llm_isa, -1,
                             isa_options, PGC_USERSET, 0, check_isa, NULL, NULL);
    DefineCustomIntVariable("pg_llm.attention_chunk", "Query rows that attention computes at a time.",
                            "Results do not depend on it.", &pg_llm_attention_chunk, 64, 1, 65536, PGC_USERSET, 0,
                            NULL, NULL, NULL);
    DefineCustomEnumVariable("pg_llm.record", "Rows that a recorded pass leaves in llm_tape and llm_tensor_rt.",
                             "off: none; graph: ops, shapes and norms; full: the numbers too.", &pg_llm_record,
                             RECORD_GRAPH, record_options, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomEnumVariable("pg_llm.tape_keep", "Which recorded passes keep their rows.",
                             "none, the last step of a call, or all.", &pg_llm_tape_keep, 1, tape_keep_options,
                             PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomEnumVariable("pg_llm.weights", "How passes that record nothing, such as generation, hold weights.",
                             "bf16 and int8 read fewer bytes per token and round the matrices of linear layers and "
                             "the head in memory; llm_param, training and embeddings are float32 always.",
                             &pg_llm_weights, LLM_FLOAT32, weights_options, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("pg_llm.cache_size", "Memory a session may keep for the weights of models it used.",
                            "What a running call needs is kept in any case; llm_release() gives the rest back.",
                            &pg_llm_cache_size_mb, 4096, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MB, NULL, NULL, NULL);
    DefineCustomBoolVariable("pg_llm.autograd", "Records ops for backpropagation.",
                             "The view llm_autograd_mode shows and sets it.", &pg_llm_autograd, false, PGC_USERSET, 0,
                             NULL, NULL, NULL);
    DefineCustomStringVariable("pg_llm.default_model", "The model that functions use when none is named.",
                               "Empty: the only one that has weights, else gpt2-small.", &pg_llm_default_model, "",
                               PGC_USERSET, 0, NULL, NULL, NULL);
    files_init();
    MarkGUCPrefixReserved("pg_llm");
}

extern void _PG_init(void);

void
_PG_init(void)
{
    session_init();
    llm_memory_set_room(tensor_buffer_room);
    search_path_init();
    RegisterXactCallback(end_xact, NULL);
    RegisterSubXactCallback(end_subxact, NULL);
}

/* ---- the pass ---- */

/* pg_llm_pass_begin(seed, step, micro_batch): keys the dropout of what follows in this transaction. */
PG_FUNCTION_INFO_V1(pg_llm_pass_begin);
Datum
pg_llm_pass_begin(PG_FUNCTION_ARGS)
{
    pass.keyed = true;
    pass.seed = (uint64) PG_GETARG_INT64(0);
    pass.step = (uint64) PG_GETARG_INT64(1);
    pass.micro_batch = (uint64) PG_GETARG_INT32(2);
    pass.sites = 0;
    PG_RETURN_VOID();
}

/* pg_llm_require_autocommit(procedure): PostgreSQL's own error of its COMMIT would not say what to do. */
PG_FUNCTION_INFO_V1(pg_llm_require_autocommit);
Datum
pg_llm_require_autocommit(PG_FUNCTION_ARGS)
{
    if (IsTransactionBlock())
        ereport(ERROR,
                errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
                errmsg("%s commits as it goes and cannot run inside a transaction block",
                       text_to_cstring(PG_GETARG_TEXT_PP(0))),
                errhint("Call it outside of BEGIN ... COMMIT, on a connection in autocommit; llm_train is for one transaction."));
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_recording);
Datum
pg_llm_recording(PG_FUNCTION_ARGS)
{
    PG_RETURN_BOOL(pg_llm_autograd);
}

/*
 * pg_llm_set_recording(flag, is_local): sets pg_llm.autograd for the session, or as SET LOCAL does, which leaves a
 * setting of the caller's alone once the transaction ends. Undone when the transaction rolls back.
 */
PG_FUNCTION_INFO_V1(pg_llm_set_recording);
Datum
pg_llm_set_recording(PG_FUNCTION_ARGS)
{
    bool    is_local = PG_GETARG_BOOL(1);

    if (is_local && PG_GETARG_BOOL(0) == pg_llm_autograd)
        PG_RETURN_VOID();
    (void) set_config_option("pg_llm.autograd", PG_GETARG_BOOL(0) ? "on" : "off", PGC_USERSET, PGC_S_SESSION,
                             is_local ? GUC_ACTION_LOCAL : GUC_ACTION_SET, true, 0, false);
    PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(pg_llm_numerics_version);
Datum
pg_llm_numerics_version(PG_FUNCTION_ARGS)
{
    PG_RETURN_INT32(llm_numerics_version());
}
