-- 70_files.sql -- weight files on the server. The functions check roles themselves, as COPY does: pg_read_server_files
-- and pg_write_server_files for absolute paths; llm_trainer suffices for this database's folder below
-- pg_llm.checkpoint_dir.

CREATE FUNCTION public.pg_llm_file_tensors(path text, max_bytes bigint, checkpoint boolean DEFAULT false,
    OUT "position" bigint, OUT name text, OUT dtype text, OUT shape bigint[], OUT format text) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_tensors';
COMMENT ON FUNCTION public.pg_llm_file_tensors(text, bigint, boolean) IS
    'The tensors of a .safetensors, .npz or gzip file on the server; at most max_bytes of data may be declared in it.';

CREATE FUNCTION public.pg_llm_file_tensor(path text, name text, first_row bigint DEFAULT 0, rows bigint DEFAULT -1, checkpoint boolean DEFAULT false) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_tensor';
COMMENT ON FUNCTION public.pg_llm_file_tensor(text, text, bigint, bigint, boolean) IS
    'Rows of a tensor in a file, as float32; rows below 0: all that follow.';

CREATE FUNCTION public.pg_llm_file_bytes(path text, name text, checkpoint boolean DEFAULT false) RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_bytes';
COMMENT ON FUNCTION public.pg_llm_file_bytes(text, text, boolean) IS
    'A tensor of bytes in a file.';

CREATE FUNCTION public.pg_llm_file_metadata(path text, key text, checkpoint boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_metadata';
COMMENT ON FUNCTION public.pg_llm_file_metadata(text, text, boolean) IS
    'The value of a key of a .safetensors files __metadata__; NULL when there is none.';

CREATE FUNCTION public.pg_llm_file_sha256(path text, checkpoint boolean DEFAULT false, OUT bytes bigint, OUT sha256 text) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_sha256';
COMMENT ON FUNCTION public.pg_llm_file_sha256(text, boolean) IS
    'Size and SHA-256 of a whole file.';

CREATE FUNCTION public.pg_llm_file_write(path text, format text, tensors text, data text, argument text, metadata text[], checkpoint boolean DEFAULT false, OUT bytes bigint, OUT sha256 text) RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_file_write';
COMMENT ON FUNCTION public.pg_llm_file_write(text, text, text, text, text, text[], boolean) IS
    'Writes a file atomically from two queries over $1 = argument: (name, dtype, shape) and (data tensor, bytes bytea).';

CREATE FUNCTION public.pg_llm_checkpoint_files() RETURNS SETOF text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_files';
COMMENT ON FUNCTION public.pg_llm_checkpoint_files() IS
    'Files of this database in the checkpoint directory.';

CREATE FUNCTION public.pg_llm_checkpoint_name(file text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_name';
COMMENT ON FUNCTION public.pg_llm_checkpoint_name(text) IS
    'The name, below the checkpoint directory, of a file in the folder of this database.';

CREATE FUNCTION public.pg_llm_checkpoint_remove(name text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pg_llm_checkpoint_remove';
COMMENT ON FUNCTION public.pg_llm_checkpoint_remove(text) IS
    'Removes a checkpoint file when the transaction commits.';

CREATE FUNCTION public.pg_llm_megatron_order(x public.tensor, n_head integer, version_2 boolean) RETURNS public.tensor
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_megatron_order';
COMMENT ON FUNCTION public.pg_llm_megatron_order(public.tensor, integer, boolean) IS
    'The rows of Megatron-LMs fused query_key_value as queries, keys, values with heads in order; version_2: heads x 3 x d_head, else heads x d_head x 3.';
