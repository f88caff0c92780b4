"""llm_loss, llm_logits, llm_evaluate and llm_perplexity against each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..reference.ops import mean_cross_entropy
from ..support.small_models import add_rows, make_model, make_names, train
from ..support.tensors import value

Connection = psycopg.Connection[Any]


def nll(logits: Any, targets: list[int]) -> float:
    return float(mean_cross_entropy(logits.astype(np.float64), targets))


@pytest.mark.parametrize("arch", ["gpt2", "gpt3", "microgpt"])
def test_loss_is_that_of_the_logits(conn: Connection, arch: str) -> None:
    make_model(conn, arch=arch)
    tokens, targets = [1, 2, 3, 12, 0], [2, -1, 12, 0, 5]
    logits = value(conn, "SELECT llm_logits(%s::int[], 'tiny', 2, 2, 16, 13)", (tokens,))
    assert logits.shape == (5, 13)
    loss = value(conn, "SELECT llm_loss('tiny', %s, %s)", (tokens, targets))
    assert loss == pytest.approx(nll(logits, targets), rel=1e-6)
    long = value(conn, "SELECT llm_loss('tiny', %s, %s, 2, 2, 16, 13)", (tokens, targets))
    assert long == loss
    batch = value(conn, "SELECT llm_logits(%s::int[])", ([tokens, tokens[::-1]],))
    assert batch.shape == (2, 5, 13)
    assert (batch[0] == logits).all()
    assert value(
        conn, "SELECT llm_loss('tiny', %s, %s)", ([tokens, list(tokens)], [targets, list(targets)])
    ) == pytest.approx(loss, rel=1e-6)


def test_dropout_only_when_training(conn: Connection) -> None:
    make_model(conn)
    call = "SELECT llm_loss('tiny', '{1,2,3}', '{2,3,4}', 2, 2, 16, 13, 0.5, %s)"
    assert value(conn, call, (False,)) == value(conn, "SELECT llm_loss('tiny', '{1,2,3}', '{2,3,4}')")
    assert value(conn, call, (True,)) != value(conn, call, (False,))
    assert value(conn, call, (True,)) == value(conn, call, (True,))


def test_logits_of_the_only_model(conn: Connection) -> None:
    make_model(conn)
    assert value(conn, "SELECT shape(llm_logits('{1,2}'))") == [2, 13]
    with pytest.raises(errors.InvalidParameterValue, match='vocab 7, model "tiny" has 13'):
        conn.execute("SELECT llm_logits('{1,2}', vocab_size => 7)")


def test_evaluation_is_a_mean_over_tokens(conn: Connection) -> None:
    make_model(conn)
    conn.execute(
        "INSERT INTO llm_dataset (model, split, tokens, target) VALUES"
        " ('tiny', 'validation', '{1,2,3,4,5,6,7,8}', '{2,3,4,5,6,7,8,9}'),"
        " (NULL, 'validation', '{3}', '{1}'),"
        " ('tiny', 'validation', '{4,5}', '{-1,3}'), ('tiny', 'validation', '{4,5}', '{-1,-1}'),"
        " ('other', 'validation', '{4,5}', '{1,3}'), ('tiny', 'train', '{4,5}', '{1,3}')"
    )
    add_rows(conn, rows=3, length=8, split="validation")
    total, tokens = 0.0, 0
    for row, target in conn.execute(
        "SELECT tokens, target FROM llm_dataset WHERE split = 'validation' AND model IS DISTINCT FROM 'other'"
    ).fetchall():
        count = sum(t >= 0 for t in target)
        if count:
            total += count * value(conn, "SELECT llm_loss('tiny', %s, %s)", (row, target))
        tokens += count
    found = conn.execute("SELECT tokens, nll, perplexity FROM llm_evaluate('tiny')").fetchone()
    assert found is not None
    assert found[0] == tokens == 8 + 1 + 1 + 24
    assert found[1] == pytest.approx(total / tokens, rel=1e-6)
    assert found[2] == pytest.approx(math.exp(total / tokens), rel=1e-6)


def test_how_rows_are_batched_changes_nothing(conn: Connection) -> None:
    """More rows of one length than a batch takes."""
    make_model(conn, n_positions=8)
    add_rows(conn, rows=1200, split="validation")
    add_rows(conn, rows=13, split="few")
    assert value(conn, "SELECT tokens FROM llm_evaluate('tiny')") == 9600
    many = value(conn, "SELECT nll FROM llm_evaluate('tiny')")
    rows = conn.execute(
        "SELECT llm_loss('tiny', tokens, target) FROM llm_dataset WHERE split = 'validation'"
    ).fetchall()
    assert many == pytest.approx(float(np.mean([row[0] for row in rows])), rel=1e-6)


def test_no_rows(conn: Connection) -> None:
    make_model(conn)
    with pytest.raises(errors.NoDataFound, match='split "validation"'):
        conn.execute("SELECT llm_evaluate('tiny')")
    with pytest.raises(errors.NoDataFound, match="split NULL"):
        conn.execute("SELECT llm_evaluate('tiny', NULL)")


def test_evaluation_writes_and_records_nothing(conn: Connection) -> None:
    make_names(conn)
    conn.execute("UPDATE llm_autograd_mode SET flag = true")
    with conn.transaction():
        conn.execute("SET TRANSACTION READ ONLY")
        assert value(conn, "SELECT nll FROM llm_evaluate('names')") > 0
        assert value(conn, "SELECT llm_perplexity('names', 'emma')") > 1
    assert value(conn, "SELECT count(*) FROM pg_llm_tape()") == 0
    assert value(conn, "SELECT flag FROM llm_autograd_mode") is True


def test_perplexity_of_a_short_text(conn: Connection) -> None:
    make_names(conn)
    bos = value(conn, "SELECT token_id FROM llm_bpe_vocab WHERE token = '<|bos|>'")
    ids = value(conn, "SELECT llm_encode('charlotte')")
    loss = value(conn, "SELECT llm_loss('names', %s, %s)", ([bos, *ids[:-1]], ids))
    assert value(conn, "SELECT llm_perplexity('names', 'charlotte')") == pytest.approx(
        math.exp(loss), rel=1e-6
    )


def test_perplexity_of_a_long_text_scores_each_token_once(conn: Connection) -> None:
    make_names(conn, n_positions=8)
    bos = value(conn, "SELECT token_id FROM llm_bpe_vocab WHERE token = '<|bos|>'")
    text = "emmaoliviaavaisabella"
    ids = [bos, *value(conn, "SELECT llm_encode(%s)", (text,))]
    total, scored = 0.0, 0
    for start in range(0, len(ids) - 1, 4):
        window = ids[start : start + 9]
        logits = value(conn, "SELECT llm_logits(%s::int[])", (window[:-1],))
        fresh = [i for i in range(len(window) - 1) if start + i >= scored]
        if fresh:
            total += sum(nll(logits[i : i + 1], [window[i + 1]]) for i in fresh)
            scored = start + len(window) - 1
    assert scored == len(text)
    assert value(conn, "SELECT llm_perplexity('names', %s)", (text,)) == pytest.approx(
        math.exp(total / scored), rel=1e-5
    )


def test_perplexity_of_nothing(conn: Connection) -> None:
    make_names(conn)
    with pytest.raises(errors.InvalidParameterValue, match="no tokens"):
        conn.execute("SELECT llm_perplexity('names', '')")
    assert value(conn, "SELECT llm_perplexity('names', NULL)") is None


def test_training_lowers_held_out_loss(conn: Connection) -> None:
    make_names(conn)
    before = value(conn, "SELECT nll FROM llm_evaluate('names')")
    train(conn, "names", 80, lr_max=0.01, batch_size=4, dropout_p=0.0)
    after = value(conn, "SELECT nll FROM llm_evaluate('names')")
    assert after < before - 0.3


def scored(conn: Connection, model: str, tokens: list[int], width: int, stride: int) -> tuple[float, int]:
    """Hugging Face's recipe for models of fixed length: sum of losses and number of tokens they are of."""
    total, end_before = 0.0, 0
    for begin in range(0, len(tokens) - 1, stride):
        end = min(begin + width, len(tokens) - 1)
        targets = tokens[begin + 1 : end + 1]
        fresh = end - end_before
        targets[: len(targets) - fresh] = [-1] * (len(targets) - fresh)
        total += fresh * value(
            conn, "SELECT llm_loss(%s, %s::int[], %s::int[])", (model, tokens[begin:end], targets)
        )
        end_before = end
        if end == len(tokens) - 1:
            break
    return total, end_before


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_documents_in_overlapping_windows(conn: Connection, stride: int) -> None:
    make_names(conn, n_positions=8)
    documents = ["emmaoliviaavaisabellasophia", "mia", "charlotte", "", "emmaoliviaavaisabellasophia"]
    start = value(conn, "SELECT llm_end_token('names')")
    expected, n = 0.0, 0
    for document in filter(None, documents):
        tokens = [start, *value(conn, "SELECT llm_encode(%s, 'names')", (document,))]
        total, count = scored(conn, "names", tokens, 8, stride)
        expected, n = expected + total, n + count
        assert value(conn, "SELECT llm_perplexity('names', %s, %s)", (document, stride)) == pytest.approx(
            math.exp(total / count), rel=1e-6
        )
    query = "SELECT unnest(ARRAY['" + "','".join(documents) + "'])"
    row = conn.execute(
        "SELECT * FROM llm_evaluate('names', stride => %s, query => %s)", (stride, query + ";")
    ).fetchone()
    assert row is not None
    assert row[0] == n
    assert row[1] == pytest.approx(expected / n, rel=1e-6)
    assert row[2] == pytest.approx(math.exp(expected / n), rel=1e-6)


def test_rows_longer_than_the_context_need_a_stride(conn: Connection) -> None:
    make_model(conn, n_positions=8)
    add_rows(conn, rows=2, length=20, split="validation")
    with pytest.raises(errors.InvalidParameterValue, match="20 tokens"):
        conn.execute("SELECT llm_evaluate('tiny')")
    row = conn.execute("SELECT * FROM llm_evaluate('tiny', stride => 4)").fetchone()
    assert row is not None
    assert row[0] == 40
    totals = [
        scored(conn, "tiny", [*tokens, target[-1]], 8, 4)[0]
        for tokens, target in conn.execute("SELECT tokens, target FROM llm_dataset").fetchall()
    ]
    assert row[1] == pytest.approx(sum(totals) / 40, rel=1e-6)
    for stride in (0, 9):
        with pytest.raises(errors.InvalidParameterValue, match="stride"):
            conn.execute("SELECT llm_evaluate('tiny', stride => %s)", (stride,))
        with pytest.raises(errors.InvalidParameterValue, match="stride"):
            conn.execute("SELECT llm_perplexity('tiny', 'a', %s)", (stride,))


def test_documents_that_are_none(conn: Connection) -> None:
    make_names(conn)
    for query in ("SELECT ''", "SELECT 'a' WHERE false", "SELECT NULL"):
        with pytest.raises(errors.NoDataFound):
            conn.execute("SELECT llm_evaluate('names', query => %s)", (query,))


def test_rows_are_ordered_by_one_version_of_the_weights(conn: Connection, connect: Any) -> None:
    """Another session's commit in the middle of a statement changes none of its rows."""
    make_names(conn)
    other = connect()
    conn.execute("CREATE TABLE bodies AS SELECT 'emma' AS body, i FROM generate_series(1, 12) i")
    with conn.transaction(), conn.cursor("rows") as cursor:
        cursor.itersize = 1
        cursor.execute("SELECT llm_perplexity('names', body) FROM bodies")
        first = cursor.fetchone()
        other.execute("SELECT llm_init_model('names', 99)")
        assert {row[0] for row in cursor.fetchall()} == {first[0]}
    assert value(conn, "SELECT llm_perplexity('names', 'emma')") != first[0]
    conn.execute("DROP TABLE bodies")


def test_a_statements_pin_gives_way_to_its_own_training(conn: Connection) -> None:
    make_names(conn)
    conn.execute("CREATE TABLE seen (at int, perplexity double precision)")
    conn.execute(
        "DO $$ BEGIN"
        " INSERT INTO seen VALUES (0, llm_perplexity('names', 'emma'));"
        " PERFORM llm_train('names', 20, lr_max => 0.01, log_every => 0);"
        " INSERT INTO seen VALUES (1, llm_perplexity('names', 'emma'));"
        " END $$"
    )
    before, after = (row[0] for row in conn.execute("SELECT perplexity FROM seen ORDER BY at").fetchall())
    assert after < before
    assert after == value(conn, "SELECT llm_perplexity('names', 'emma')")
    conn.execute("DROP TABLE seen")
