/*
 * suspended.c -- the time in which a function of a user's op runs. It computes; the pass it is part of stays as it is.
 */
#include "suspended.h"

static int depth;

void
suspend(bool on)
{
    depth += on ? 1 : -1;
}

bool
suspended(void)
{
    return depth > 0;
}

void
require_not_suspended(void)
{
    if (depth > 0)
        ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                errmsg("a function of an op cannot change the pass that it is part of"),
                errhint("Clear the tape, differentiate and train outside of what pg_llm_apply calls."));
}
