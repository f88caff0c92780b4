-- Byte-level byte pair encoding and WordPiece: tokenizers in memory, their files, learning merges.

CREATE FUNCTION public.pg_llm_bpe_open(model text, version bytea)
    RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_open';
COMMENT ON FUNCTION public.pg_llm_bpe_open(text, bytea) IS
    'The handle of a tokenizer in this session''s memory; NULL if this version is not there.';

CREATE FUNCTION public.pg_llm_bpe_create(
    model text, version bytea, pre_tokenizer text DEFAULT 'gpt2', options integer DEFAULT 0,
    before_ids integer[] DEFAULT '{}', after_ids integer[] DEFAULT '{}'
)
    RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_create';
COMMENT ON FUNCTION public.pg_llm_bpe_create(text, bytea, text, integer, integer[], integer[]) IS
    'Creates an empty tokenizer and returns its handle; feed it tokens, then merges, then seal it. pre_tokenizer is '
    'gpt2, smollm, llama3, qwen2, o200k or tekken; options the sum of 1 (texts are normalized, NFC), 2 (a piece '
    'that is a token is not merged) and 4 (a byte without a token is left out); before_ids and after_ids stand around '
    'a text.';

CREATE FUNCTION public.pg_llm_sentencepiece_create(
    model text, version bytea, prefix_space text, options integer, before_ids integer[], after_ids integer[]
)
    RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_sentencepiece_create';
COMMENT ON FUNCTION public.pg_llm_sentencepiece_create(text, bytea, text, integer, integer[], integer[]) IS
    'The same for SentencePiece, which is fed tokens and merges by their text. prefix_space is never, prepend, always '
    'or first; options the sum of 1 (every blank begins a piece) and 2 (decoding leaves out the first blank).';

CREATE FUNCTION public.pg_llm_wordpiece_create(
    model text, version bytea, normalizer integer, unk_token text, prefix text, max_characters integer,
    cleanup boolean, before_ids integer[], after_ids integer[]
)
    RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_wordpiece_create';
COMMENT ON FUNCTION public.pg_llm_wordpiece_create(
    text, bytea, integer, text, text, integer, boolean, integer[], integer[]
) IS
    'The same for WordPiece, which is fed tokens by their text. normalizer is the sum of 1 (clean_text), 2 '
    '(handle_chinese_chars), 4 (strip accents), 8 (lowercase); before_ids and after_ids stand around a text.';

CREATE FUNCTION public.pg_llm_bpe_put_token(handle integer, token_id integer, bytes bytea, flags integer)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_put_token';
COMMENT ON FUNCTION public.pg_llm_bpe_put_token(integer, integer, bytea, integer) IS
    'Adds a token to a tokenizer that is being fed; flags is the sum of 1 (an added token), 2 (special), 4 (lstrip), '
    '8 (rstrip), 16 (single_word), 32 (normalized), 64 (base).';

CREATE FUNCTION public.pg_llm_bpe_put_merge(handle integer, rank integer, left_token text, right_token text)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_put_merge';
COMMENT ON FUNCTION public.pg_llm_bpe_put_merge(integer, integer, text, text) IS
    'Adds a merge rule to a tokenizer that is being fed; its tokens must have been added before.';

CREATE FUNCTION public.pg_llm_bpe_seal(handle integer)
    RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_seal';
COMMENT ON FUNCTION public.pg_llm_bpe_seal(integer) IS 'Completes a tokenizer; from now on pg_llm_bpe_open finds it.';

CREATE FUNCTION public.pg_llm_bpe_encode(handle integer, text text, special boolean, begins boolean DEFAULT true)
    RETURNS integer[]
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_encode';
COMMENT ON FUNCTION public.pg_llm_bpe_encode(integer, text, boolean, boolean) IS
    'Token ids of a text. Text that matches an added token becomes that token; special tokens are matched only with '
    'special. begins: nothing comes before the text, which may matter to SentencePiece.';

CREATE FUNCTION public.pg_llm_encode_sequence(
    handle integer, text text, max_tokens integer, OUT ids integer[], OUT length integer
)
    RETURNS record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_encode_sequence';
COMMENT ON FUNCTION public.pg_llm_encode_sequence(integer, text, integer) IS
    'Token ids of a text, special tokens recognised, with the tokens that the tokenizer puts around it, of which at '
    'most max_tokens are left; and how many there would be.';

CREATE FUNCTION public.pg_llm_characters(text text)
    RETURNS SETOF text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_characters';
COMMENT ON FUNCTION public.pg_llm_characters(text) IS
    'The characters of a text, which in a database of encoding SQL_ASCII is read as UTF-8; 22021: it is not valid '
    'UTF-8.';

CREATE FUNCTION public.pg_llm_bpe_decode(handle integer, ids integer[])
    RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_decode';
COMMENT ON FUNCTION public.pg_llm_bpe_decode(integer, integer[]) IS
    'The bytes of the tokens, concatenated; of WordPiece the text that its decoder gives.';

CREATE FUNCTION public.pg_llm_utf8_text(bytes bytea, final boolean DEFAULT true)
    RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_utf8_text';
COMMENT ON FUNCTION public.pg_llm_utf8_text(bytea, boolean) IS
    'UTF-8 as text, with U+FFFD for each malformed part and for NUL. Unless final, an incomplete character at the end '
    'is left out.';

CREATE FUNCTION public.pg_llm_bpe_alphabet(bytes bytea)
    RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_alphabet';
COMMENT ON FUNCTION public.pg_llm_bpe_alphabet(bytea) IS 'Bytes in GPT-2''s printable alphabet, one character each.';

CREATE FUNCTION public.pg_llm_bpe_read_vocab(contents bytea, OUT token_id integer, OUT token text, OUT bytes bytea)
    RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_vocab';
COMMENT ON FUNCTION public.pg_llm_bpe_read_vocab(bytea) IS
    'The tokens of vocab.json or encoder.json; 22023, with the line, if the contents are not such a file.';

CREATE FUNCTION public.pg_llm_wordpiece_read_vocab(contents bytea, OUT token_id integer, OUT token text)
    RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_wordpiece_read_vocab';
COMMENT ON FUNCTION public.pg_llm_wordpiece_read_vocab(bytea) IS
    'The tokens of vocab.txt, one in each line, or of a JSON object of token to id; 22023, with the line, if the '
    'contents are neither.';

CREATE FUNCTION public.pg_llm_bpe_read_merges(
    contents bytea, OUT rank integer, OUT left_token text, OUT right_token text
)
    RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_merges';
COMMENT ON FUNCTION public.pg_llm_bpe_read_merges(bytea) IS
    'The merge rules of merges.txt or vocab.bpe; 22023, with the line, if the contents are not such a file.';

CREATE FUNCTION public.pg_llm_bpe_read_tiktoken(contents bytea, OUT token_id integer, OUT token text, OUT bytes bytea)
    RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_tiktoken';
COMMENT ON FUNCTION public.pg_llm_bpe_read_tiktoken(bytea) IS
    'The tokens of a .tiktoken file; 22023, with the line, if the contents are not such a file.';

CREATE FUNCTION public.pg_llm_bpe_read_tiktoken_merges(
    contents bytea, OUT rank integer, OUT left_token text, OUT right_token text
)
    RETURNS SETOF record
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_read_tiktoken_merges';
COMMENT ON FUNCTION public.pg_llm_bpe_read_tiktoken_merges(bytea) IS
    'The merge rules that the ranks of a .tiktoken file imply.';

CREATE FUNCTION public.pg_llm_bpe_learn_add(state internal, document text, n_merges integer, min_count bigint)
    RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_learn_add';
COMMENT ON FUNCTION public.pg_llm_bpe_learn_add(internal, text, integer, bigint) IS
    'transition function of pg_llm_bpe_learn';

CREATE FUNCTION public.pg_llm_bpe_learn_final(state internal)
    RETURNS integer[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_bpe_learn_final';
COMMENT ON FUNCTION public.pg_llm_bpe_learn_final(internal) IS 'final function of pg_llm_bpe_learn';
CREATE AGGREGATE public.pg_llm_bpe_learn(document text, n_merges integer, min_count bigint) (
    SFUNC = public.pg_llm_bpe_learn_add, STYPE = internal, FINALFUNC = public.pg_llm_bpe_learn_final,
    FINALFUNC_MODIFY = READ_WRITE, PARALLEL = SAFE);
COMMENT ON AGGREGATE public.pg_llm_bpe_learn(text, integer, bigint) IS
    'Learns byte pair encoding from documents: left and right id of each merge. Ids below 256 are bytes in GPT-2''s '
    'order, 256 + i is merge i. Pairs seen fewer than min_count times are not merged.';

CREATE FUNCTION public.pg_llm_read_file(path text, max_bytes bigint)
    RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'pg_llm_read_file';
COMMENT ON FUNCTION public.pg_llm_read_file(text, bigint) IS
    'The contents of a file on the server, for roles with the privileges of pg_read_server_files; 58P01: no such file.';
REVOKE EXECUTE ON FUNCTION public.pg_llm_read_file(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.pg_llm_read_file(text, bigint) TO pg_read_server_files;
