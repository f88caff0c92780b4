-- Models' parameters in memory: versions and their fingerprints, pins, feeding, gradients, optimizer steps.

CREATE FUNCTION public.pg_llm_fingerprint_add(
    state internal, name text, number bigint, tableoid oid, ctid tid, xmin xid
)
    RETURNS internal
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_fingerprint_add';
COMMENT ON FUNCTION public.pg_llm_fingerprint_add(internal, text, bigint, oid, tid, xid) IS
    'transition function of pg_llm_fingerprint';

CREATE FUNCTION public.pg_llm_fingerprint_final(state internal)
    RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_fingerprint_final';
COMMENT ON FUNCTION public.pg_llm_fingerprint_final(internal) IS 'final function of pg_llm_fingerprint';
CREATE AGGREGATE public.pg_llm_fingerprint(name text, number bigint, tableoid oid, ctid tid, xmin xid) (
    SFUNC = public.pg_llm_fingerprint_add,
    STYPE = internal,
    FINALFUNC = public.pg_llm_fingerprint_final,
    PARALLEL = RESTRICTED
);
COMMENT ON AGGREGATE public.pg_llm_fingerprint(text, bigint, oid, tid, xid) IS
    'Fingerprint of the row versions of ordinary tables in a query''s result: equal exactly when the row versions are '
    'the same; NULL without rows. Comparable within one session only.';

CREATE FUNCTION public.pg_llm_fingerprint_add(
    state internal, name text, number bigint, tableoid oid, ctid tid, xmin xid, data public.tensor
)
    RETURNS internal
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_fingerprint_add';
COMMENT ON FUNCTION public.pg_llm_fingerprint_add(internal, text, bigint, oid, tid, xid, public.tensor) IS
    'transition function of pg_llm_fingerprint with data';

CREATE FUNCTION public.pg_llm_fingerprint_final_data(state internal)
    RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_fingerprint_final_data';
COMMENT ON FUNCTION public.pg_llm_fingerprint_final_data(internal) IS 'final function of pg_llm_fingerprint with data';
CREATE AGGREGATE public.pg_llm_fingerprint(
    name text, number bigint, tableoid oid, ctid tid, xmin xid, data public.tensor
) (
    SFUNC = public.pg_llm_fingerprint_add,
    STYPE = internal,
    FINALFUNC = public.pg_llm_fingerprint_final_data,
    PARALLEL = RESTRICTED
);
COMMENT ON AGGREGATE public.pg_llm_fingerprint(text, bigint, oid, tid, xid, public.tensor) IS
    'Fingerprint of the row versions of ordinary tables in a query''s result and of their data, which is not fetched '
    'from TOAST; NULL without rows. Comparable within one session only.';

CREATE FUNCTION public.pg_llm_arena_open(model text, fingerprint bytea, training boolean)
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_open';
COMMENT ON FUNCTION public.pg_llm_arena_open(text, bytea, boolean) IS
    'Pins a version of a model''s parameters; false if it is not in memory and must be fed.';

CREATE FUNCTION public.pg_llm_shared_open(model text)
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_shared_open';
COMMENT ON FUNCTION public.pg_llm_shared_open(text) IS
    'Takes the pinned version''s weights from the file that all sessions share, which it writes if it can; false if '
    'they must be fed.';

CREATE FUNCTION public.pg_llm_arena_put(
    model text, name text, token_id integer, data public.tensor, m public.tensor, v public.tensor
)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_put';
COMMENT ON FUNCTION public.pg_llm_arena_put(text, text, integer, public.tensor, public.tensor, public.tensor) IS
    'Feeds one row of llm_param; m and v may be NULL.';

CREATE FUNCTION public.pg_llm_arena_seal(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_seal';
COMMENT ON FUNCTION public.pg_llm_arena_seal(text) IS
    'Ends feeding: joins parts and checks that every number is finite.';

CREATE FUNCTION public.pg_llm_arena_close(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_close';
COMMENT ON FUNCTION public.pg_llm_arena_close(text) IS 'Releases the pin of the newest pg_llm_arena_open of the model.';

CREATE FUNCTION public.pg_llm_arena_pinned(model text)
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_arena_pinned';
COMMENT ON FUNCTION public.pg_llm_arena_pinned(text) IS 'Whether a version of the model is pinned for the caller.';

CREATE FUNCTION public.pg_llm_arena_base(model text, base text, scale double precision)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_base';
COMMENT ON FUNCTION public.pg_llm_arena_base(text, text, double precision) IS
    'Both models are pinned: parameters that the first has not are those of the second, unchanging, and to each that '
    'has factors in the first (.lora_a, .lora_b) their product times scale is added.';

CREATE FUNCTION public.pg_llm_arena_sha256(model text)
    RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_sha256';
COMMENT ON FUNCTION public.pg_llm_arena_sha256(text) IS
    'SHA-256 of the pinned version''s parameters: names, shapes, float32 numbers. Computed once for each version in '
    'memory.';

CREATE FUNCTION public.pg_llm_arena_pin_statement(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_pin_statement';
COMMENT ON FUNCTION public.pg_llm_arena_pin_statement(text) IS
    'Keeps the newest pin until the running statement ends or this session writes.';

CREATE FUNCTION public.pg_llm_memo(model text, key text)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_memo';
COMMENT ON FUNCTION public.pg_llm_memo(text, text) IS
    'What pg_llm_memo_put was given under this key by the running statement, NULL if nothing.';

CREATE FUNCTION public.pg_llm_memo_put(model text, key text, value public.tensor)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_memo_put';
COMMENT ON FUNCTION public.pg_llm_memo_put(text, text, public.tensor) IS
    'Keeps a value that the statement''s pinned version of the model gave, for pg_llm_memo, until that pin ends; only '
    'the last few values, and small ones.';

CREATE FUNCTION public.pg_llm_arena_shape(model text, name text)
    RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_arena_shape';
COMMENT ON FUNCTION public.pg_llm_arena_shape(text, text) IS 'The shape of a parameter of the pinned version.';

CREATE FUNCTION public.pg_llm_arena_data(model text, name text, token_id integer)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_data';
COMMENT ON FUNCTION public.pg_llm_arena_data(text, text, integer) IS 'One part of a parameter in memory: its weights.';

CREATE FUNCTION public.pg_llm_arena_grad(model text, name text, token_id integer)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_grad';
COMMENT ON FUNCTION public.pg_llm_arena_grad(text, text, integer) IS
    'One part of a parameter in memory: its gradient; NULL if it has none.';

CREATE FUNCTION public.pg_llm_arena_m(model text, name text, token_id integer)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_m';
COMMENT ON FUNCTION public.pg_llm_arena_m(text, text, integer) IS
    'One part of a parameter in memory: its first moments.';

CREATE FUNCTION public.pg_llm_arena_v(model text, name text, token_id integer)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_v';
COMMENT ON FUNCTION public.pg_llm_arena_v(text, text, integer) IS
    'One part of a parameter in memory: its second moments.';

CREATE FUNCTION public.pg_llm_arena_zero_grad(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_zero_grad';
COMMENT ON FUNCTION public.pg_llm_arena_zero_grad(text) IS 'Clears all gradients.';

CREATE FUNCTION public.pg_llm_arena_grad_norms(model text)
    RETURNS jsonb
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_grad_norms';
COMMENT ON FUNCTION public.pg_llm_arena_grad_norms(text) IS 'L2 norm of each parameter''s gradient, by name.';

CREATE FUNCTION public.pg_llm_arena_adamw(
    model text, lr double precision, beta1 double precision, beta2 double precision, eps double precision,
    weight_decay double precision, step bigint, grad_clip double precision, decay_matrices_only boolean
)
    RETURNS double precision
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_adamw';
COMMENT ON FUNCTION public.pg_llm_arena_adamw(
    text, double precision, double precision, double precision, double precision, double precision, bigint,
    double precision, boolean
) IS
    'One AdamW step on all parameters in memory, clipped by global norm unless grad_clip is NULL; returns the norm '
    'before clipping.';

CREATE FUNCTION public.pg_llm_arena_saved(model text, fingerprint bytea)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_saved';
COMMENT ON FUNCTION public.pg_llm_arena_saved(text, bytea) IS
    'Called after write-back: marks the version in memory as the one that the rows now hold.';

CREATE FUNCTION public.pg_llm_arena_drop_moments(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_drop_moments';
COMMENT ON FUNCTION public.pg_llm_arena_drop_moments(text) IS
    'Frees the optimizer state and the gradients of the version pinned for training: it holds weights alone from then '
    'on.';

CREATE FUNCTION public.pg_llm_command_id()
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_command_id';
COMMENT ON FUNCTION public.pg_llm_command_id() IS
    'The number of the running command, which becomes cmin of the rows that it inserts. Commands share a number until '
    'one writes.';

CREATE FUNCTION public.pg_llm_arena_same(
    model text, name text, token_id integer, data public.tensor, m public.tensor, v public.tensor
)
    RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_same';
COMMENT ON FUNCTION public.pg_llm_arena_same(text, text, integer, public.tensor, public.tensor, public.tensor) IS
    'Whether the pinned version is bit-identical to this row of llm_param; NULL moments count as zeros.';

CREATE FUNCTION public.pg_llm_arena_rows(model text)
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_rows';
COMMENT ON FUNCTION public.pg_llm_arena_rows(text) IS
    'The number of llm_param rows that the pinned version was read from.';

CREATE FUNCTION public.pg_llm_arena_sum_grad(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_sum_grad';
COMMENT ON FUNCTION public.pg_llm_arena_sum_grad(text) IS
    'Adds the gradients of a micro-batch to the sum of those before it; the next micro-batch starts from zero.';

CREATE FUNCTION public.pg_llm_arena_take_sum(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_take_sum';
COMMENT ON FUNCTION public.pg_llm_arena_take_sum(text) IS
    'Makes the summed gradients of the micro-batches the gradients of the step.';

CREATE FUNCTION public.pg_llm_arena_discard(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_discard';
COMMENT ON FUNCTION public.pg_llm_arena_discard(text) IS 'Marks the pinned version as not to be used again.';

CREATE FUNCTION public.pg_llm_arena_keep(model text, run_id bigint, log_id bigint)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_keep';
COMMENT ON FUNCTION public.pg_llm_arena_keep(text, bigint, bigint) IS
    'Keeps the version that is pinned for training through commits, as the run''s after the step with that tape_id in '
    'llm_train_log; only pg_llm_arena_open_run finds it.';

CREATE FUNCTION public.pg_llm_arena_open_run(model text, fingerprint bytea, run_id bigint, log_id bigint)
    RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_open_run';
COMMENT ON FUNCTION public.pg_llm_arena_open_run(text, bytea, bigint, bigint) IS
    'Pins for training the version that this role''s run kept after the step logged under log_id on top of the stored '
    'version; false if memory has none.';

CREATE FUNCTION public.pg_llm_arena_hash(model text)
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_arena_hash';
COMMENT ON FUNCTION public.pg_llm_arena_hash(text) IS
    'A 64-bit hash of the weights and the optimizer state that are pinned for training, the same on every machine.';

CREATE FUNCTION public.pg_llm_relation_version(relations regclass[])
    RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_relation_version';
COMMENT ON FUNCTION public.pg_llm_relation_version(regclass[]) IS
    'Fingerprint of the rows of the tables that the snapshot sees: equal exactly when the row versions are the same. '
    'Comparable within one session only. 42501: the role may not read all rows and columns.';

CREATE FUNCTION public.pg_llm_report_dead(relation regclass)
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_report_dead';
COMMENT ON FUNCTION public.pg_llm_report_dead(regclass) IS
    'Tells autovacuum how many rows of the table, its TOAST table and its children this session''s transactions have '
    'left dead, which PostgreSQL does at the end of a CALL only; returns how many it had not been told of.';
