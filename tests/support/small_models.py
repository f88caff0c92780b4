"""Small models, their data, and what tests of training and generation ask of them."""

from __future__ import annotations

from typing import Any

import psycopg

from .tensors import value

Connection = psycopg.Connection[Any]

NAMES = """
emma olivia ava isabella sophia charlotte mia amelia harper evelyn abigail emily ella elizabeth camila luna
sofia avery mila aria scarlett penelope layla chloe victoria madison eleanor grace nora riley
""".split()  # noqa: SIM905


def names_query(names: list[str] = NAMES) -> str:
    return "SELECT unnest(ARRAY[" + ", ".join(f"'{name}'" for name in names) + "])"


def make_model(
    conn: Connection,
    model: str = "tiny",
    *,
    arch: str = "gpt2",
    n_layer: int = 2,
    n_head: int = 2,
    d_model: int = 16,
    n_positions: int = 8,
    vocab: int = 13,
    seed: int = 1,
) -> str:
    conn.execute(
        "SELECT llm_create_model(%s, %s, %s, %s, %s, %s, %s, %s)",
        (model, arch, n_layer, n_head, d_model, n_positions, vocab, seed),
    )
    return model


def add_rows(
    conn: Connection,
    model: str = "tiny",
    *,
    rows: int = 10,
    length: int = 8,
    vocab: int = 13,
    split: str = "train",
) -> None:
    """Rows that count upwards modulo the vocabulary: learnable in a few steps."""
    conn.execute(
        """INSERT INTO llm_dataset (model, split, tokens, target)
        SELECT %(model)s, %(split)s, array_agg((i * 5 + j) %% %(vocab)s ORDER BY j),
            array_agg((i * 5 + j + 1) %% %(vocab)s ORDER BY j)
        FROM generate_series(1, %(rows)s) i, generate_series(1, %(length)s) j GROUP BY i ORDER BY i""",
        {"model": model, "split": split, "rows": rows, "length": length, "vocab": vocab},
    )


def make_trainable(conn: Connection, model: str = "tiny", **sizes: Any) -> str:
    make_model(conn, model, **sizes)
    add_rows(conn, model, length=sizes.get("n_positions", 8), vocab=sizes.get("vocab", 13))
    return model


def make_names(conn: Connection, model: str = "names", *, n_positions: int = 16, **sizes: Any) -> str:
    """A character model of first names with its data, untrained."""
    conn.execute("SELECT llm_build_char_tokenizer(%s, %s)", (model, names_query()))
    vocab = value(conn, "SELECT count(*) FROM llm_bpe_vocab WHERE model = %s", (model,))
    make_model(conn, model, vocab=vocab, n_positions=n_positions, **sizes)
    conn.execute("SELECT llm_fill_dataset(%s, %s, %s)", (model, names_query(), n_positions))
    return model


LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDPIECES = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS)])


def make_encoder(
    conn: Connection, model: str = "enc", *, n_positions: int = 16, settings: str = "{}", **sizes: Any
) -> str:
    """A sentence encoder over letters, untrained: 'emma' is [CLS] e ##m ##m ##a [SEP]."""
    conn.execute("SELECT llm_load_wordpiece(%s, %s::text)", (model, WORDPIECES))
    given = {"n_layer": 2, "n_head": 2, "d_model": 16, "vocab": WORDPIECES.count("\n") + 1} | sizes
    named = "".join(f", {name} => {size}" for name, size in given.items())
    conn.execute(
        f"SELECT llm_create_model(%s, 'bert', n_positions => %s, seed => 5, settings => %s{named})",
        (model, n_positions, settings),
    )
    return model


def weights(conn: Connection, model: str = "tiny") -> dict[tuple[str, int], Any]:
    """All that training changes, as bytes: equal exactly when every bit is."""
    rows = conn.execute(
        "SELECT name, token_id, data::bytea, m::bytea, v::bytea, step FROM llm_param WHERE model = %s",
        (model,),
        binary=True,
    ).fetchall()
    assert rows
    return {(row[0], row[1]): row[2:] for row in rows}


def state_sha256(conn: Connection, model: str = "tiny") -> str:
    """One number of all that training changes; as little as a bit of data, m or v makes another."""
    return str(
        value(
            conn,
            """SELECT encode(sha256(string_agg(
                data::bytea || COALESCE(m::bytea, '') || COALESCE(v::bytea, '') || step::text::bytea, ''
                ORDER BY name, token_id)), 'hex') FROM llm_param WHERE model = %s""",
            (model,),
        )
    )


def train(conn: Connection, model: str = "tiny", n_steps: int = 5, **arguments: Any) -> int:
    """llm_train with arguments by name; returns the run's id."""
    arguments = {"log_every": 0} | arguments
    names = "".join(f", {name} => %({name})s" for name in arguments)
    run = value(
        conn,
        f"SELECT llm_train(%(model)s, %(n_steps)s{names})",
        {"model": model, "n_steps": n_steps} | arguments,
    )
    assert isinstance(run, int)
    return run
