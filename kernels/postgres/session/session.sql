-- The session: the caller's search path, locks, progress, the version of the numerical rules.

CREATE FUNCTION public.pg_llm_callers_search_path()
    RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_callers_search_path';
COMMENT ON FUNCTION public.pg_llm_callers_search_path() IS
    'The search path of the user''s SQL: the one in effect when the outermost running llm-sql function was called.';

CREATE FUNCTION public.pg_llm_use_callers_search_path()
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_use_callers_search_path';
COMMENT ON FUNCTION public.pg_llm_use_callers_search_path() IS
    'Sets search_path to pg_llm_callers_search_path() until the calling llm-sql function ends, so that the user''s '
    'SQL finds its names.';

CREATE FUNCTION public.pg_llm_progress(
    model text, run_id bigint, step bigint, total bigint, loss double precision, lr double precision, tokens bigint
)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_progress';
COMMENT ON FUNCTION public.pg_llm_progress(text, bigint, bigint, bigint, double precision, double precision, bigint) IS
    'Publishes this session''s training progress to other sessions.';

CREATE FUNCTION public.pg_llm_progress_clear()
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_progress_clear';
COMMENT ON FUNCTION public.pg_llm_progress_clear() IS 'Clears this session''s training progress.';

CREATE FUNCTION public.pg_llm_train_progress(
    OUT pid integer, OUT datid oid, OUT model text, OUT run_id bigint, OUT step bigint, OUT total bigint,
    OUT loss double precision, OUT lr double precision, OUT tokens bigint, OUT started_at timestamptz,
    OUT updated_at timestamptz
)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_train_progress';
COMMENT ON FUNCTION public.pg_llm_train_progress() IS
    'Progress of the trainings that are running in this database, but for models that row policies on '
    'llm_model_config hide from the caller.';

CREATE FUNCTION public.pg_llm_stop_training(run_id bigint)
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_stop_training';
COMMENT ON FUNCTION public.pg_llm_stop_training(bigint) IS
    'Tells the session of this database that trains the run to write back and end; false if there is none. 42501: the '
    'caller neither has the rights of its role nor may update llm_train_run.';

CREATE FUNCTION public.pg_llm_stop_wanted(run_id bigint)
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_stop_wanted';
COMMENT ON FUNCTION public.pg_llm_stop_wanted(bigint) IS
    'Whether pg_llm_stop_training was called for the run that this session trains.';

CREATE FUNCTION public.pg_llm_try_lock(relation regclass, name text)
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_try_lock';
COMMENT ON FUNCTION public.pg_llm_try_lock(regclass, text) IS
    'Takes the exclusive lock of this name until the transaction ends; returns false without waiting if another '
    'session holds it.';

CREATE FUNCTION public.pg_llm_hold_lock(relation regclass, name text)
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_hold_lock';
COMMENT ON FUNCTION public.pg_llm_hold_lock(regclass, text) IS
    'Like pg_llm_try_lock, but until the running statement ends, through commits that a procedure makes. An error that '
    'ends the transaction releases it too.';

CREATE FUNCTION public.pg_llm_drop_locks()
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_drop_locks';
COMMENT ON FUNCTION public.pg_llm_drop_locks() IS
    'Releases what the running statement holds by pg_llm_hold_lock.';

CREATE FUNCTION public.pg_llm_lock_holder(relation regclass, name text)
    RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_lock_holder';
COMMENT ON FUNCTION public.pg_llm_lock_holder(regclass, text) IS
    'The process id of the session that holds pg_llm_try_lock''s lock of this name; NULL if none does.';

CREATE FUNCTION public.pg_llm_numerics_version()
    RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_numerics_version';
COMMENT ON FUNCTION public.pg_llm_numerics_version() IS
    'The version of the numerical rules that make results reproducible.';

CREATE FUNCTION public.pg_llm_library()
    RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_library';
COMMENT ON FUNCTION public.pg_llm_library() IS
    'What computes in this session: numerical rules, instruction set, compiler, server.';

CREATE FUNCTION public.pg_llm_self_test()
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_self_test';
COMMENT ON FUNCTION public.pg_llm_self_test() IS
    'Whether this build on this machine computes the bits that its numerical rules prescribe, for a sample of the '
    'kernels.';
