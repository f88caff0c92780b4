"""SQL expressions to call functions with: absurd ones by type, sensible ones by the argument's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MODEL = "hostile"
VOCAB = 20  # at most what the model's character tokenizer has

# -- values of a type, as SQL expressions, whatever the argument means

INTEGERS = ["0", "1", "-1", "2", "3", "8", "13", "64", "65536", "1000000", "2147483647", "-2147483648"]
LONGS = [*INTEGERS, "4294967296", "16777216", "9223372036854775807", "-9223372036854775808"]
DOUBLES = [
    "0",
    "1",
    "-1",
    "0.5",
    "2",
    "1e-8",
    "1e-320",
    "1e38",
    "1e39",
    "1e308",
    "-1e308",
    "'-0'",
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
]
TEXTS = [
    "''",
    "'a'",
    "'em'",
    f"'{MODEL}'",
    "'no such'",
    "'wte.weight'",
    "'h.0.mlp.c_fc.bias'",
    "'gpt2'",
    "'train'",
    "'cosine'",
    "'normal'",
    "'é漢字🙂'",
    "E'\\x01\\n\\t'",
    "repeat('x', 70000)",
    "'%s %d %'",
    "'a''b\"c\\'",
    "'SELECT 1/0'",
    "'SELECT unnest(ARRAY[''emma'', ''''])'",
    "'x); --'",
    "U&'\\FFFD'",
]
TEXT_ARRAYS = [
    "'{}'",
    "ARRAY['a']",
    "ARRAY['a', '']",
    "ARRAY['em', NULL]",
    "ARRAY[['a', 'b'], ['c', 'd']]",
    "ARRAY['🙂', 'é']",
    "array_fill('ab'::text, '{300}')",
]
BYTEAS = [
    r"'\x'",
    r"'\x00'",
    r"'\x0000803f'",
    r"'\x0000803f00000040'",
    r"'\x0000c07f0000807f'",
    r"'\xffffffffffffff'",
    "'[1,2,3,4]'::tensor::bytea",
    "pg_llm_full('{12}', 'NaN')::bytea",
    "pg_llm_full('{256}', 1)::bytea",
    "decode(repeat('41', 4099), 'hex')",
]
INT_ARRAYS = [
    "'{}'",
    "'{0}'",
    "'{1,2,3}'",
    "'{-1}'",
    "'{2,NULL}'",
    "'{{1,2},{3,4}}'",
    "'{{{1},{2}}}'",
    "'[5:7]={1,2,3}'",
    "'{2147483647}'",
    "'{2147483647,2147483647}'",
    "'{-2147483648,1}'",
    "'{65536,65536}'",
    "'{4096,4096}'",
    "'{0,2147483647}'",
    "'{1,1,1,1,1,1,1,1}'",
    "'{1,1,1,1,1,1,1,1,1}'",
    "array_fill(1, '{3000}')",
    "array_fill(1, '{2,2,2,2,2,2}')",
    "'{2,3}'",
    "'{3,2}'",
    "'{-1,2}'",
]
TENSORS = [
    "'[]'",
    "'3'",
    "'[1]'",
    "'[1,2]'",
    "'[1,2,3]'",
    "'[[1,2],[3,4]]'",
    "'[[1,2,3],[4,5,6]]'",
    "'[NaN,1]'",
    "'[[Infinity,-Infinity],[0,-0]]'",
    "pg_llm_full('{0,3}', 1)",
    "pg_llm_full('{3,0}', 1)",
    "pg_llm_full('{1,1,1,1,1,1,1,1}', 1)",
    "pg_llm_full('{2,3,4}', 3e38)",
    "pg_llm_full('{5,1,3}', -1e-40)",
    "pg_llm_normal('{70,33}', 0, 1, 1, 1)",
    "pg_llm_normal('{3,17,15}', 0, 100, 2, 1)",
    "pg_llm_full('{100000}', 1)",
    "pg_llm_full('{12000,1}', 1)",
    "pg_llm_full('{1,12000}', 1)",
    "pg_llm_full('{20000,3}', 0.1)",
    "pg_llm_full('{3,20000}', 0.1)",
]
ARRAYS = [
    "'{}'",
    "'{1,2}'",
    "'{{1,2},{3,4}}'",
    "'{NaN}'",
    "'{1,NULL}'",
    "'[3:4]={1,2}'",
    "array_fill(1, '{2,2,2,2}')",
]
ROWS_OF_CONFIG = [
    "llm_config('hostile')",
    "ROW('hostile','gpt2',1,1,1,1,1,1,1,true,now())::llm_model_config",
    "ROW('x','y',-1,0,2147483647,0,-5,NULL,'NaN',NULL,NULL)::llm_model_config",
]
VALUES: dict[str, Sequence[str]] = {
    "integer": INTEGERS,
    "bigint": LONGS,
    "double precision": DOUBLES,
    "numeric": [*DOUBLES, "1e400", "1.5"],
    "boolean": ["true", "false"],
    "text": TEXTS,
    "text[]": TEXT_ARRAYS,
    "bytea": BYTEAS,
    "integer[]": INT_ARRAYS,
    "bigint[]": [*INT_ARRAYS[:8], "'{9223372036854775807}'"],
    "smallint[]": ["'{1,2,3}'", "'{{1,2},{3,4}}'", "'{}'", "'{32767,-32768}'", "'{NULL,1}'", "NULL"],
    "regclass": ["'llm_model_config'", "'llm_param'", "'pg_class'", "0", "4294967295", "NULL"],
    "real[]": ARRAYS,
    "double precision[]": [*ARRAYS, "'{1e300}'"],
    "numeric[]": [*ARRAYS, "'{1e300}'"],
    "regclass[]": [
        "'{llm_bpe_vocab,llm_bpe_merges}'",
        "'{}'",
        "'{pg_class,0,NULL}'",
        "'{llm_param,llm_step}'",
        "NULL",
    ],
    "tensor": TENSORS,
    "anyarray": ["'{}'::int[]", "'{1,2}'::int[]", "'{{a}}'::text[]"],
    "jsonb": [
        "'{}'",
        "'[]'",
        "'null'",
        "'{\"n_steps\": 1}'",
        '\'{"n_steps": "x"}\'',
        "'{\"n_steps\": 1e400}'",
    ],
    "cstring": [
        "'[1,2]'",
        "'[[1],[2,3]]'",
        "''",
        "'['",
        "'[1e999]'",
        "'nan'",
        "repeat('[', 5000)",
        "'[1,]'",
        "'🙂'",
    ],
    "cstring[]": ["'{3}'", "'{3,4}'", "'{x}'", "'{}'", "'{-1}'", "'{99999999999}'", "'{1,2,3}'"],
    "oid": ["0", "1", "4294967295"],
    "tid": ["'(0,1)'", "'(4294967295,65535)'"],
    "xid": ["'1'", "'4294967295'"],
    "llm_model_config": ROWS_OF_CONFIG,
    "llm_train_run": ["NULL", "ROW(1,'hostile','{}',0,1,0,'running',now(),NULL,1)::llm_train_run"],
}

# -- values that make sense for an argument of this name


def tokens(rng: Random, n: int | None = None) -> str:
    ids = [str(rng.randrange(VOCAB)) for _ in range(n or rng.randint(1, 8))]
    return "'{" + ",".join(ids) + "}'"


def tensor(rng: Random, *shape: int) -> str:
    """Of ordinary numbers mostly."""
    dims = "'{" + ",".join(map(str, shape)) + "}'"
    if rng.random() < 0.15:
        return f"pg_llm_full({dims}, {rng.choice(DOUBLES[:8])})"
    return f"pg_llm_normal({dims}, 0, {rng.choice(('1', '0.02', '30'))}, {rng.randrange(99)}, 0)"


Sense = Callable[[Random], str]


def one_of(*values: str) -> Sense:
    return lambda rng: rng.choice(values)


SENSE: dict[str, Sense] = {
    "model": one_of(f"'{MODEL}'"),
    "name": one_of("'wte.weight'", "'h.0.ln_1.weight'", "'h.1.mlp.c_proj.bias'"),
    "token_id": one_of("0"),
    "arch": one_of("'gpt2'", "'microgpt'"),
    "split": one_of("'train'"),
    "tokens": tokens,
    "ids": tokens,
    "prompt": one_of("'em'", "''", "'a'"),
    "prompts": one_of("ARRAY['em', 'a']"),
    "text": one_of("'emma'", "'ava'"),
    "documents": one_of("ARRAY['emma', 'ava']"),
    "query": one_of("'SELECT ''emma'''", "'SELECT unnest(ARRAY[''ava'',''mia''])'"),
    "max_tokens": one_of("1", "3"),
    "beam_width": one_of("1", "3"),
    "length_penalty": one_of("1", "0"),
    "layer": one_of("NULL", "0", "1", "-1"),
    "pooling": one_of("'mean'", "'last'", "'none'"),
    "new_name": one_of("'copied'"),
    "steps": one_of("1", "2"),
    "n_layer": one_of("NULL", "2"),
    "n_head": one_of("NULL", "2"),
    "d": one_of("NULL", "8"),
    "d_model": one_of("NULL", "8"),
    "vocab": one_of("NULL"),
    "vocab_size": one_of("NULL"),
    "n_positions": one_of("8"),
    "handle": one_of("current_setting('hostile.handle')::int"),
    "context": one_of("8"),
    "capacity": one_of("8", "3"),
    "token": one_of("1"),
    "id": one_of("(SELECT max(id) FROM pg_llm_tape(false))", "1"),
    "start_id": one_of("(SELECT max(id) FROM pg_llm_tape(false))", "NULL"),
    "before": one_of("0", "16777216"),
    "run_id": one_of("1"),
    "run": one_of("NULL", "(SELECT r FROM llm_train_run r LIMIT 1)"),
    "batch_id": one_of("1", "2"),
    "row_id": one_of("1"),
    "n_steps": one_of("1", "2"),
    "commit_every": one_of("1", "2"),
    "step": one_of("1", "5"),
    "total_steps": one_of("NULL", "100"),
    "start_step": one_of("NULL", "1"),
    "warmup": one_of("0"),
    "total": one_of("10", "100"),
    "schedule": one_of("'cosine'", "'linear'", "'constant'"),
    "decay": one_of("'all'", "'matrices'"),
    "dropout_p": one_of("0", "0.1"),
    "p": one_of("0", "0.5"),
    "beta1": one_of("0.9"),
    "beta2": one_of("0.999"),
    "eps": one_of("1e-8"),
    "wd": one_of("0", "0.01"),
    "weight_decay": one_of("0.01"),
    "lr": one_of("0.001"),
    "lr_max": one_of("0.001"),
    "min_lr": one_of("0"),
    "grad_clip": one_of("NULL", "1"),
    "clip": one_of("1", "0.1"),
    "scale": one_of("1"),
    "workers": one_of("1", "0"),
    "grad_workers": one_of("1", "0"),
    "prune_workers": one_of("1"),
    "batch_size": one_of("1", "2"),
    "grad_accum": one_of("1"),
    "block_size": one_of("NULL", "4"),
    "stride": one_of("NULL", "2"),
    "validation": one_of("0.1", "0"),
    "log_every": one_of("0"),
    "temperature": one_of("0", "1"),
    "top_k": one_of("0", "5"),
    "top_p": one_of("1", "0.9"),
    "repetition": one_of("1", "1.2"),
    "repetition_penalty": one_of("1", "1.2"),
    "presence_penalty": one_of("0", "0.5"),
    "frequency_penalty": one_of("0", "0.5"),
    "stop": one_of("NULL", "ARRAY['a']"),
    "is_penalized": one_of("false"),
    "end_token": one_of("NULL", "19"),
    "n_prompt": one_of("2"),
    "n": one_of("1", "5"),
    "size": one_of("1", "3"),
    "first": one_of("0", "7"),
    "epoch": one_of("0", "1"),
    "seed": one_of("0", "42", "NULL"),
    "micro_batch": one_of("0"),
    "width": one_of("3"),
    "filler": one_of("0"),
    "n_rows": one_of("1", "2"),
    "first_row": one_of("0"),
    "row_ids": one_of("'{1,2}'", "'{1}'"),
    "only_row": one_of("NULL", "1"),
    "init": one_of("'normal'", "'zeros'", "'ones'"),
    "std": one_of("0.02"),
    "shape": one_of("'{2,3}'", "'{4}'"),
    "config": one_of("llm_config('hostile')"),
    "condition": one_of("true"),
    "last_only": one_of("false", "true"),
    "fingerprint": one_of("llm_fingerprint('hostile')"),
    "expected": one_of("NULL", "llm_fingerprint('hostile')"),
    "base": one_of("0", "33554432"),
    "loss": one_of("1"),
    "arguments": one_of(
        '\'{"n_steps": 1, "dropout_p": 0, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "wd": 0, "lr_max": 0.01,'
        ' "min_lr": 0, "grad_workers": 1, "prune_workers": 1, "batch_size": 1, "grad_accum": 1,'
        ' "schedule": "cosine", "decay": "all", "seed": 0, "log_every": 0, "keep_grad": false}\''
    ),
}
