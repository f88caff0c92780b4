-- Weights that all sessions of a server share: which files there are, and their removal.

CREATE FUNCTION public.pg_llm_shared_versions(
    OUT model text, OUT weights text, OUT bytes bigint, OUT built_at timestamptz, OUT current boolean
)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_shared_versions';
COMMENT ON FUNCTION public.pg_llm_shared_versions() IS
    'The files in pg_llm.shared_dir with weights of this database, of models whose rows the caller may read.';

CREATE FUNCTION public.pg_llm_shared_version(model text)
    RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_shared_version';
COMMENT ON FUNCTION public.pg_llm_shared_version(text) IS
    'Names the model''s rows in this database as the caller sees them, by the transactions that wrote them; other rows '
    'have another name, the same numbers written anew too. NULL: it sees none.';

CREATE FUNCTION public.pg_llm_shared_remove(model text)
    RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_shared_remove';
COMMENT ON FUNCTION public.pg_llm_shared_remove(text) IS
    'Removes the shared files of the model and returns their bytes; NULL if row policies do not let the caller write '
    'its rows. 42501: the role may not write llm_param.';

CREATE FUNCTION public.pg_llm_shared_forget(model text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'pg_llm_shared_forget';
COMMENT ON FUNCTION public.pg_llm_shared_forget(text) IS
    'Removes the shared files of the model when the transaction commits. 42501: the role may not write '
    'llm_param.';
