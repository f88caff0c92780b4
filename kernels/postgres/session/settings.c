/*
 * settings.c -- the settings pg_llm.*, but for pg_llm.checkpoint_dir, which is files_dirs.c's.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "core/llm_core.h"
#include "settings.h"

int   pg_llm_threads = 0;
int   pg_llm_max_threads = 0;
int   pg_llm_isa = -1;
int   pg_llm_attention_chunk = 64;
int   pg_llm_record = RECORD_GRAPH;
int   pg_llm_tape_keep = 1;
int   pg_llm_cache_size_mb = 4096;
int   pg_llm_recompute_budget_kb = 0;
int   pg_llm_weights = LLM_FLOAT32;
bool  pg_llm_autograd = false;
char *pg_llm_default_model = NULL;

static const struct config_enum_entry isa_options[] = {
    {"auto", -1, false},           {"scalar", LLM_ISA_SCALAR, false}, {"neon", LLM_ISA_NEON, false},
    {"avx2", LLM_ISA_AVX2, false}, {"avx512", LLM_ISA_AVX512, false}, {NULL, 0, false},
};

static const struct config_enum_entry record_options[] = {
    {"off", RECORD_OFF, false},
    {"graph", RECORD_GRAPH, false},
    {"full", RECORD_FULL, false},
    {NULL, 0, false},
};

static const struct config_enum_entry weights_options[] = {
    {"float32", LLM_FLOAT32, false}, {"bf16", LLM_BF16, false}, {"int8", LLM_INT8, false},
    {"int4", LLM_INT4, false},       {NULL, 0, false},
};

static const struct config_enum_entry tape_keep_options[] = {
    {"none", 0, false},
    {"last", 1, false},
    {"all", 2, false},
    {NULL, 0, false},
};

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
settings_init(void)
{
    DefineCustomIntVariable("pg_llm.threads", "Threads that kernels of this session may use; 0 means all cores.",
                            "No more than pg_llm.max_threads are taken. Results do not depend on it.", &pg_llm_threads,
                            0, 0, 1024, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("pg_llm.max_threads",
                            "Threads that any session's kernels may use; 0 means as many as cores.",
                            "A superuser's bound on pg_llm.threads. Results do not depend on it.", &pg_llm_max_threads,
                            0, 0, 1024, PGC_SUSET, 0, NULL, NULL, NULL);
    DefineCustomEnumVariable("pg_llm.isa", "Instruction set of the kernels.",
                             "auto takes the best the machine has. Results do not depend on it.", &pg_llm_isa, -1,
                             isa_options, PGC_USERSET, 0, check_isa, NULL, NULL);
    DefineCustomIntVariable("pg_llm.attention_chunk", "Query rows that attention computes at a time.",
                            "Results do not depend on it.", &pg_llm_attention_chunk, 64, 1, 65536, PGC_USERSET, 0, NULL,
                            NULL, NULL);
    DefineCustomEnumVariable("pg_llm.record", "Rows that a recorded pass leaves in llm_tape and llm_tensor_rt.",
                             "off: none; graph: ops, shapes and norms; full: the numbers too.", &pg_llm_record,
                             RECORD_GRAPH, record_options, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomEnumVariable("pg_llm.tape_keep", "Which recorded passes keep their rows.",
                             "none, the last step of a call, or all.", &pg_llm_tape_keep, 1, tape_keep_options,
                             PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomEnumVariable("pg_llm.weights", "How passes that record nothing, such as generation, hold weights.",
                             "bf16, int8 and int4 read fewer bytes per token and round the matrices of linear "
                             "layers and the head in memory; int4 holds the head as int8. llm_param, training and "
                             "embeddings are float32 always.",
                             &pg_llm_weights, LLM_FLOAT32, weights_options, PGC_USERSET, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("pg_llm.cache_size", "Memory a session may keep for the weights of models it used.",
                            "What a running call needs is kept in any case; llm_release() gives the rest back.",
                            &pg_llm_cache_size_mb, 4096, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MB, NULL, NULL, NULL);
    DefineCustomIntVariable(
        "pg_llm.recompute_budget",
        "Memory that a recorded pass may hold for its backward pass; 0 means all that it needs.",
        "What exceeds it is let go, block by block, and computed again. Results do not depend on it.",
        &pg_llm_recompute_budget_kb, 0, 0, INT_MAX, PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
    DefineCustomBoolVariable("pg_llm.autograd", "Records ops for backpropagation.",
                             "The view llm_autograd_mode shows and sets it.", &pg_llm_autograd, false, PGC_USERSET, 0,
                             NULL, NULL, NULL);
    DefineCustomStringVariable("pg_llm.default_model", "The model that functions use when none is named.",
                               "Empty: the only one that has weights, else gpt2-small.", &pg_llm_default_model, "",
                               PGC_USERSET, 0, NULL, NULL, NULL);
}
