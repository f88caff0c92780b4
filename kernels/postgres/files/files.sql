-- Weight files on the server. Functions that take a path check roles themselves, as COPY does: pg_read_server_files and
-- pg_write_server_files. Those of checkpoints take a row's id or a model, never a path: EXECUTE on them decides, which
-- provisioning grants to llm_trainer.

CREATE FUNCTION public.pg_llm_file_tensors(
    path text, max_bytes bigint, checkpoint boolean DEFAULT false, OUT "position" bigint, OUT name text, OUT dtype text,
    OUT shape bigint[], OUT format text
)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_file_tensors';
COMMENT ON FUNCTION public.pg_llm_file_tensors(text, bigint, boolean) IS
    'The tensors of a .safetensors, .npz or gzip file on the server, which may declare at most max_bytes of data. '
    'Requires pg_read_server_files, like all pg_llm_file_ functions that read. checkpoint: path is FOLDER/FILE below '
    'pg_llm.checkpoint_dir.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_tensors(text, bigint, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_tensor(
    path text, name text, first_row bigint DEFAULT 0, rows bigint DEFAULT -1, checkpoint boolean DEFAULT false
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_file_tensor';
COMMENT ON FUNCTION public.pg_llm_file_tensor(text, text, bigint, bigint, boolean) IS
    'Rows of a tensor in a file, as float32, from first_row on; rows below 0: all remaining.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_tensor(text, text, bigint, bigint, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_bytes(path text, name text, checkpoint boolean DEFAULT false)
    RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_file_bytes';
COMMENT ON FUNCTION public.pg_llm_file_bytes(text, text, boolean) IS 'The contents of a byte tensor in a file.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_bytes(text, text, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_metadata(path text, key text, checkpoint boolean DEFAULT false)
    RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_file_metadata';
COMMENT ON FUNCTION public.pg_llm_file_metadata(text, text, boolean) IS
    'The value of a key in a .safetensors file''s __metadata__; NULL if it has no such key.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_metadata(text, text, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_sha256(
    path text, checkpoint boolean DEFAULT false, OUT bytes bigint, OUT sha256 text
)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_file_sha256';
COMMENT ON FUNCTION public.pg_llm_file_sha256(text, boolean) IS 'The size and SHA-256 of a file.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_sha256(text, boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_file_write(
    path text, format text, tensors text, data text, argument text, metadata text[], checkpoint boolean DEFAULT false,
    OUT bytes bigint, OUT sha256 text
)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_file_write';
COMMENT ON FUNCTION public.pg_llm_file_write(text, text, text, text, text, text[], boolean) IS
    'Writes a file atomically from two queries with the parameter $1 = argument: tensors gives (name text, dtype '
    'text, shape int[]), data gives (data tensor, bytes bytea), one of them NULL. Requires pg_write_server_files. '
    '42804: a query has other columns; 22004: a value is NULL.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_file_write(text, text, text, text, text, text[], boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_write(model text, OUT file text, OUT bytes bigint, OUT sha256 text)
    RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_write';
COMMENT ON FUNCTION public.pg_llm_checkpoint_write(text) IS
    'Writes the model, as llm_checkpoint_tensors, _data and _metadata give it, to a new checkpoint file; the file is '
    'removed unless the transaction commits. Returns its name below the checkpoint directory, its size and SHA-256.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_write(text) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_tensors(
    id bigint, OUT "position" bigint, OUT name text, OUT dtype text, OUT shape bigint[], OUT format text
)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_tensors';
COMMENT ON FUNCTION public.pg_llm_checkpoint_tensors(bigint) IS
    'The tensors of a checkpoint. Errors, as for all pg_llm_checkpoint_ functions that take an id: 42704: no such row '
    'is visible to the caller; 22000: the file differs from what the row says; 58P01: the file is missing.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_tensors(bigint) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_tensor(
    id bigint, name text, first_row bigint DEFAULT 0, rows bigint DEFAULT -1
)
    RETURNS public.tensor
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_tensor';
COMMENT ON FUNCTION public.pg_llm_checkpoint_tensor(bigint, text, bigint, bigint) IS
    'Rows of a tensor in a checkpoint from first_row on; rows below 0: all remaining.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_tensor(bigint, text, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_bytes(id bigint, name text)
    RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_bytes';
COMMENT ON FUNCTION public.pg_llm_checkpoint_bytes(bigint, text) IS 'The contents of a byte tensor in a checkpoint.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_bytes(bigint, text) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_metadata(id bigint, key text)
    RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_metadata';
COMMENT ON FUNCTION public.pg_llm_checkpoint_metadata(bigint, text) IS
    'The value of a key in a checkpoint''s __metadata__; NULL if it has no such key.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_metadata(bigint, text) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_sweep()
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_sweep';
COMMENT ON FUNCTION public.pg_llm_checkpoint_sweep() IS
    'When the transaction commits, removes this database''s files in the checkpoint directories that no row of '
    'llm_checkpoint names and whose writers have ended. Rows that row policies hide from the caller count, too.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_sweep() FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_files()
    RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_files';
COMMENT ON FUNCTION public.pg_llm_checkpoint_files() IS
    'Files of this database in the checkpoint directories, for roles with the privileges of pg_read_server_files.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_files() FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_name(file text)
    RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_name';
COMMENT ON FUNCTION public.pg_llm_checkpoint_name(text) IS
    'The name, below the checkpoint directory, of a file in the folder of this database.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_name(text) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_checkpoint_orphans(remove boolean, OUT folder text, OUT files bigint, OUT bytes bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_orphans';
COMMENT ON FUNCTION public.pg_llm_checkpoint_orphans(boolean) IS
    'Folders in the checkpoint directories that belong to databases that no longer exist, for superusers. remove: '
    'delete them immediately.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_checkpoint_orphans(boolean) FROM PUBLIC;

CREATE FUNCTION public.pg_llm_megatron_order(x public.tensor, n_head integer, version_2 boolean)
    RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_megatron_order';
COMMENT ON FUNCTION public.pg_llm_megatron_order(public.tensor, integer, boolean) IS
    'The rows of Megatron-LM''s fused query_key_value, reordered as queries, keys, values with heads in order. '
    'version_2: the rows are heads x 3 x d_head, otherwise heads x d_head x 3.';
