"""A small encoder written in SQL, as a user would register one: a bag of tokens, one linear layer."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

# Embeddings of tokens with dropout, their mean over each sequence, a linear layer.
_BAG = """
CREATE FUNCTION public.llm_embed_bag(
    model text, tokens int[], lengths int[], training boolean DEFAULT false,
    dropout_p double precision DEFAULT 0.1
) RETURNS public.tensor
LANGUAGE plpgsql AS $$
DECLARE
    pool real[] := (
        SELECT array_agg(w.row ORDER BY w.sequence)
        FROM (
            SELECT s.sequence,
                array_agg(CASE WHEN t.sequence = s.sequence THEN 1.0 / s.n ELSE 0 END ORDER BY t.token)
            FROM unnest(lengths) WITH ORDINALITY s (n, sequence)
            CROSS JOIN (
                SELECT row_number() OVER (ORDER BY l.sequence) AS token, l.sequence
                FROM unnest(lengths) WITH ORDINALITY l (n, sequence) CROSS JOIN generate_series(1, l.n)
            ) t
            GROUP BY s.sequence
        ) w (sequence, row)
    );
BEGIN
    RETURN pg_llm_linear(
        pg_llm_matmul(
            pool::tensor,
            pg_llm_dropout(
                pg_llm_embedding(llm_weight(model, 'wte.weight'), tokens), dropout_p, training, 'embd'
            )
        ),
        llm_weight(model, 'out.weight'), llm_weight(model, 'out.bias')
    );
END $$;

CREATE FUNCTION public.llm_forward_bag(
    model text, tokens int[], training boolean DEFAULT false, targets int[] DEFAULT NULL,
    dropout_p double precision DEFAULT 0.1, last_only boolean DEFAULT false
) RETURNS public.tensor
LANGUAGE plpgsql AS $$
BEGIN
    IF targets IS NOT NULL THEN
        RETURN public.llm_contrastive_loss(model, tokens, targets, training, dropout_p);
    END IF;
    RETURN public.llm_embed_bag(model, tokens, ARRAY[cardinality(tokens)], training, dropout_p);
END $$;

CREATE FUNCTION public.llm_parameters_bag(model text)
RETURNS TABLE (name text, shape int[], init text, std double precision)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    config public.llm_model_config := public.llm_config(model);
BEGIN
    RETURN QUERY VALUES
    ('wte.weight', ARRAY[config.vocab, config.d_model], 'normal', 0.5::float8),
    ('out.weight', ARRAY[config.d_model, config.d_model], 'normal', 0.5::float8),
    ('out.bias', ARRAY[config.d_model], 'zeros', NULL::float8);
END $$;

INSERT INTO public.llm_arch (arch, forward, parameters, kind)
VALUES ('bag', 'public.llm_forward_bag', 'public.llm_parameters_bag', 'encoder');
"""


def make_bag(
    conn: Connection,
    model: str = "bag",
    *,
    vocab: int = 40,
    d_model: int = 8,
    n_positions: int = 6,
    seed: int = 1,
) -> str:
    """A model of the architecture bag, which is registered if it is not yet."""
    if conn.execute("SELECT FROM llm_arch WHERE arch = 'bag'").rowcount == 0:
        conn.execute(_BAG.encode())
    conn.execute(
        "SELECT llm_create_model(%s, 'bag', 1, 1, %s, %s, %s, %s)", (model, d_model, n_positions, vocab, seed)
    )
    return model


def make_bert(
    conn: Connection,
    model: str = "bert",
    *,
    vocab: int = 40,
    d_model: int = 8,
    n_layer: int = 1,
    n_head: int = 2,
    n_positions: int = 6,
    seed: int = 1,
    settings: str = "{}",
) -> str:
    """A small model of the built-in architecture, with weights large enough to learn from at once."""
    conn.execute(
        "SELECT llm_create_model(%s, 'bert', %s, %s, %s, %s, %s, %s, %s)",
        (model, n_layer, n_head, d_model, n_positions, vocab, seed, settings),
    )
    return model


def add_pairs(
    conn: Connection,
    model: str = "bag",
    *,
    rows: int = 12,
    split: str = "train",
    first: int = 0,
    negatives: int = 0,
) -> None:
    """Pairs of an anchor (i, 39) and its positive (i + 20, 38, 37): learnable, for each i is only there."""
    for i in range(first, first + rows):
        sequences = [[i % 20, 39], [i % 20 + 20, 38, 37]]
        sequences += [[(i + n + 1) % 20 + 20, 36] for n in range(negatives)]
        conn.execute(
            "INSERT INTO llm_dataset (model, split, tokens, target) VALUES (%s, %s, %s, %s)",
            (
                model,
                split,
                [id_ for sequence in sequences for id_ in sequence],
                [number for number, sequence in enumerate(sequences) for _ in sequence],
            ),
        )
