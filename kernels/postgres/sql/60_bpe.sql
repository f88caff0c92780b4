-- 60_bpe.sql -- byte-level byte pair encoding: tokenizers in memory, files, learning.

CREATE FUNCTION public.pg_llm_relation_version(relations regclass[]) RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_relation_version';
COMMENT ON FUNCTION public.pg_llm_relation_version(regclass[]) IS
    'Which rows of the relations the snapshot sees: equal exactly when they are the same row versions.';

CREATE FUNCTION public.pg_llm_bpe_open(model text, version bytea) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_open';
COMMENT ON FUNCTION public.pg_llm_bpe_open(text, bytea) IS
    'The handle of a tokenizer that this session keeps in memory; NULL when it lacks that version.';

CREATE FUNCTION public.pg_llm_bpe_create(model text, version bytea) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_create';
COMMENT ON FUNCTION public.pg_llm_bpe_create(text, bytea) IS
    'The handle of an empty tokenizer, to be fed with tokens, then merges, and sealed.';

CREATE FUNCTION public.pg_llm_bpe_put_token(handle integer, token_id integer, bytes bytea, special boolean) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_put_token';
COMMENT ON FUNCTION public.pg_llm_bpe_put_token(integer, integer, bytea, boolean) IS
    'Adds a token to a tokenizer that is being fed.';

CREATE FUNCTION public.pg_llm_bpe_put_merge(handle integer, rank integer, left_token text, right_token text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_put_merge';
COMMENT ON FUNCTION public.pg_llm_bpe_put_merge(integer, integer, text, text) IS
    'Adds a merge rule, whose tokens are there, to a tokenizer that is being fed.';

CREATE FUNCTION public.pg_llm_bpe_seal(handle integer) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_seal';
COMMENT ON FUNCTION public.pg_llm_bpe_seal(integer) IS
    'The tokenizer is complete: pg_llm_bpe_open finds it from now on.';

CREATE FUNCTION public.pg_llm_bpe_encode(handle integer, text text, special boolean) RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_encode';
COMMENT ON FUNCTION public.pg_llm_bpe_encode(integer, text, boolean) IS
    'Token ids of a text; with special, what reads like a special token is that token.';

CREATE FUNCTION public.pg_llm_bpe_decode(handle integer, ids integer[]) RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_bpe_decode';
COMMENT ON FUNCTION public.pg_llm_bpe_decode(integer, integer[]) IS
    'The bytes that tokens stand for, one after another.';

CREATE FUNCTION public.pg_llm_utf8_text(bytes bytea, final boolean DEFAULT true) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_utf8_text';
COMMENT ON FUNCTION public.pg_llm_utf8_text(bytea, boolean) IS
    'UTF-8 as text, U+FFFD standing for each malformed part and for NUL; unless final, without an unfinished character at the end.';

CREATE FUNCTION public.pg_llm_bpe_alphabet(bytes bytea) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_alphabet';
COMMENT ON FUNCTION public.pg_llm_bpe_alphabet(bytea) IS
    'Bytes in GPT-2''s printable alphabet, one character each.';

CREATE FUNCTION public.pg_llm_bpe_bytes(token text) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_bytes';
COMMENT ON FUNCTION public.pg_llm_bpe_bytes(text) IS
    'The bytes that a token in GPT-2''s printable alphabet stands for; NULL when a character stands for none.';

CREATE FUNCTION public.pg_llm_bpe_read_vocab(contents bytea, OUT token_id integer, OUT token text, OUT bytes bytea) RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_vocab';
COMMENT ON FUNCTION public.pg_llm_bpe_read_vocab(bytea) IS
    'The tokens of vocab.json or encoder.json; 22023 with the line when it is none.';

CREATE FUNCTION public.pg_llm_bpe_read_merges(contents bytea, OUT rank integer, OUT left_token text, OUT right_token text) RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_merges';
COMMENT ON FUNCTION public.pg_llm_bpe_read_merges(bytea) IS
    'The merge rules of merges.txt or vocab.bpe; 22023 with the line when it is none.';

CREATE FUNCTION public.pg_llm_bpe_read_tiktoken(contents bytea, OUT token_id integer, OUT token text, OUT bytes bytea) RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_tiktoken';
COMMENT ON FUNCTION public.pg_llm_bpe_read_tiktoken(bytea) IS
    'The tokens of a .tiktoken file; 22023 with the line when it is none.';

CREATE FUNCTION public.pg_llm_bpe_read_tiktoken_merges(contents bytea, OUT rank integer, OUT left_token text, OUT right_token text) RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_tiktoken_merges';
COMMENT ON FUNCTION public.pg_llm_bpe_read_tiktoken_merges(bytea) IS
    'The merge rules that the ranks of a .tiktoken file imply.';

CREATE FUNCTION public.pg_llm_bpe_learn_add(state internal, document text, n_merges integer, min_count bigint) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_learn_add';
COMMENT ON FUNCTION public.pg_llm_bpe_learn_add(internal, text, integer, bigint) IS 'transition function of pg_llm_bpe_learn';
CREATE FUNCTION public.pg_llm_bpe_learn_final(state internal) RETURNS integer[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_llm_bpe_learn_final';
COMMENT ON FUNCTION public.pg_llm_bpe_learn_final(internal) IS 'final function of pg_llm_bpe_learn';
CREATE AGGREGATE public.pg_llm_bpe_learn(document text, n_merges integer, min_count bigint) (
    SFUNC = public.pg_llm_bpe_learn_add, STYPE = internal, FINALFUNC = public.pg_llm_bpe_learn_final,
    FINALFUNC_MODIFY = READ_WRITE, PARALLEL = SAFE);
COMMENT ON AGGREGATE public.pg_llm_bpe_learn(text, integer, bigint) IS
    'Byte pair encoding learnt from documents: left and right id of each merge, where ids below 256 are bytes in GPT-2''s order and 256 + i is merge i. No pair seen fewer than min_count times is merged.';

CREATE FUNCTION public.pg_llm_read_file(path text, max_bytes bigint) RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_llm_read_file';
COMMENT ON FUNCTION public.pg_llm_read_file(text, bigint) IS
    'The contents of a file of the server, for roles with the privileges of pg_read_server_files; 58P01 when there is none.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_read_file(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.pg_llm_read_file(text, bigint) TO pg_read_server_files;
