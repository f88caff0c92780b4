"""llm_generate and llm_generate_stream: what is sampled, where it ends, how it streams, what it touches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from ..conftest import Server
from ..reference.ops import softmax
from ..support.small_models import NAMES, make_model, make_names, names_query, train
from ..support.tensors import value

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


@pytest.fixture
def names(conn: Connection) -> Connection:
    """A database whose only model writes names, trained a little."""
    make_names(conn, n_positions=16)
    train(conn, "names", 60, lr_max=0.01, batch_size=8, dropout_p=0.0)
    return conn


def make_endless(conn: Connection) -> None:
    """The end token becomes a character like any other, so that no text ends before max_tokens."""
    conn.execute("UPDATE llm_bpe_vocab SET token_id = 999 WHERE model = 'names' AND token = '<|bos|>'")
    conn.execute(
        "INSERT INTO llm_bpe_vocab SELECT model, vocab - 1, '?', '?' FROM llm_model_config"
        " WHERE model = 'names'"
    )


def window(tokens: list[int], n_prompt: int, context: int) -> list[int]:
    """The tokens the next logits are computed from: all of them until the context is full, then its half."""
    start = max(0, n_prompt - context)
    for length in range(n_prompt + 1, len(tokens) + 1):
        if length - start > context:
            start = length - max(context // 2, 1)
    return tokens[start:]


def greedy_without_cache(conn: Connection, prompt: str, n: int, context: int) -> list[int]:
    tokens = list(value(conn, "SELECT llm_encode(%s, 'names')", (prompt,)))
    n_prompt = len(tokens)
    for _ in range(n):
        logits = value(conn, "SELECT llm_logits(%s::int[], 'names')", (window(tokens, n_prompt, context),))
        tokens.append(int(np.argmax(logits[-1])))
    return tokens[n_prompt:]


@pytest.mark.parametrize("prompt", ["a", "emma", "isabellaelizabethscarlett"])
def test_greedy_with_cache_is_argmax_without(names: Connection, prompt: str) -> None:
    """40 tokens in a context of 16: the cache slides three times or more."""
    make_endless(names)
    rows = names.execute(
        "SELECT token_id FROM llm_generate_stream(%s, 40, 0, model => 'names')", (prompt,)
    ).fetchall()
    assert [row[0] for row in rows] == greedy_without_cache(names, prompt, 40, 16)


def test_a_trained_model_knows_its_names(names: Connection) -> None:
    train(names, "names", 400, lr_max=0.01, batch_size=8, dropout_p=0.0)
    text = value(names, "SELECT llm_generate('', 64, 0)")
    assert text
    assert set(text) <= set("".join(NAMES))


def test_seeds(names: Connection) -> None:
    query = "SELECT llm_generate('a', 12, 1.0, 0, 1.0, seed => %s)"
    first = [value(names, query, (seed,)) for seed in range(8)]
    assert first == [value(names, query, (seed,)) for seed in range(8)]
    assert len(set(first)) > 3
    unseeded = {value(names, "SELECT llm_generate('a', 12, 1.0, 0, 1.0)") for _ in range(8)}
    assert len(unseeded) > 3


def test_sampling_follows_the_distribution(names: Connection) -> None:
    p = softmax(value(names, "SELECT llm_logits(llm_encode('a'))")[-1].astype(np.float64))
    n = 3000
    rows = names.execute(
        "SELECT s.token_id, count(*) FROM generate_series(1, %s) i,"
        " LATERAL llm_generate_stream('a', 1, 1, 0, 1, seed => i) s GROUP BY 1",
        (n,),
    ).fetchall()
    drawn = np.zeros(len(p))
    for token, count in rows:
        drawn[token] = count
    chi2 = float((((drawn - n * p) ** 2) / (n * p)).sum())
    assert chi2 < len(p) - 1 + 5 * (2 * (len(p) - 1)) ** 0.5


def test_top_k_and_top_p_limit_the_choice(names: Connection) -> None:
    order = np.argsort(-value(names, "SELECT llm_logits(llm_encode('a'))")[-1], kind="stable")
    query = (
        "SELECT array_agg(DISTINCT s.token_id) FROM generate_series(1, 300) i,"
        " LATERAL llm_generate_stream('a', 1, 5, {}, seed => i) s"
    )
    assert set(value(names, query.format("3, 1"))) == set(order[:3].tolist())
    assert value(names, query.format("0, 1e-9")) == [int(order[0])]


def test_streaming_is_generating(names: Connection) -> None:
    for seed in range(6):
        rows = names.execute(
            "SELECT step, token_id, token, text, is_complete FROM llm_generate_stream('li', 20, seed => %s)",
            (seed,),
        ).fetchall()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert [row[4] for row in rows] == [False] * (len(rows) - 1) + [True]
        for i, row in enumerate(rows):
            assert row[3] == "".join(r[2] for r in rows[: i + 1])
        assert rows[-1][3] == value(names, "SELECT llm_generate('li', 20, seed => %s)", (seed,))


def test_rows_come_one_by_one(names: Connection) -> None:
    """A cursor computes no more tokens than it fetches: two thousand million would take days."""
    make_endless(names)
    query = "SELECT step FROM llm_generate_stream('a', 2000000000, seed => 5)"
    with names.transaction():
        names.execute(f"DECLARE c CURSOR FOR {query}")
        assert names.execute("FETCH 1 FROM c").fetchall() == [(1,)]
        assert names.execute("FETCH 2 FROM c").fetchall() == [(2,), (3,)]
        names.execute("CLOSE c")
        with names.cursor(name="server_side") as cursor:
            cursor.itersize = 1
            cursor.execute(query)
            assert cursor.fetchone() == (1,)
    assert names.execute(f"{query} LIMIT 2").fetchall() == [(1,), (2,)]


def test_the_end_token_ends_and_is_not_text(names: Connection) -> None:
    end = value(names, "SELECT token_id FROM llm_bpe_vocab WHERE token = '<|bos|>'")
    ended = 0
    for seed in range(20):
        rows = names.execute(
            "SELECT token_id, token, text, is_complete FROM llm_generate_stream('ell', 30, seed => %s)",
            (seed,),
        ).fetchall()
        assert all(row[0] != end for row in rows[:-1])
        if rows[-1][0] == end:
            ended += 1
            assert rows[-1][1] == ""
            assert rows[-1][3]
    assert ended > 0


def test_an_immediate_end_is_one_empty_row(names: Connection) -> None:
    names.execute("UPDATE llm_param SET data = data * 0.0 WHERE model = 'names' AND name = 'ln_f.weight'")
    end = value(names, "SELECT token_id FROM llm_bpe_vocab WHERE token = '<|bos|>'")
    width = value(names, "SELECT d_model FROM llm_model_config WHERE model = 'names'")
    embedding = np.zeros((end + 1, width), np.float32)
    embedding[end] = 1
    names.execute(
        "UPDATE llm_param SET data = %s WHERE model = 'names' AND name = 'wte.weight'", (embedding,)
    )
    names.execute(
        "UPDATE llm_param SET data = %s WHERE model = 'names' AND name = 'ln_f.bias'",
        (np.full(width, 10, np.float32),),
    )
    rows = names.execute(
        "SELECT step, token_id, token, text, is_complete FROM llm_generate_stream('a')"
    ).fetchall()
    assert rows == [(1, end, "", "", True)]
    assert value(names, "SELECT llm_generate('a')") == ""
    assert value(names, "SELECT llm_generate('a', echo => true)") == "a"


def test_stop_texts(names: Connection) -> None:
    whole = next(
        text
        for seed in range(100)
        if len(text := value(names, "SELECT llm_generate('a', 30, 1, 0, 1, seed => %s)", (seed,))) >= 8
    )
    seed = next(
        s
        for s in range(100)
        if value(names, "SELECT llm_generate('a', 30, 1, 0, 1, seed => %s)", (s,)) == whole
    )
    stop = whole[3:6]
    query = (
        "SELECT token, text, is_complete FROM llm_generate_stream('a', 30, 1, 0, 1, seed => %s, stop => %s)"
    )
    rows = names.execute(query, (seed, ["#", stop, whole[5:8] + "!"])).fetchall()
    cut = whole[: whole.index(stop)]
    assert rows[-1][1:] == (cut, True)
    assert "".join(row[0] for row in rows) == cut
    assert all(cut.startswith(row[1]) for row in rows)
    unfinished = whole[-2:] + "#"
    assert names.execute(query, (seed, [unfinished])).fetchall()[-1][1:] == (whole, True)


def test_echo(names: Connection) -> None:
    plain = value(names, "SELECT llm_generate('em', 9, seed => 3)")
    assert value(names, "SELECT llm_generate('em', 9, seed => 3, echo => true)") == "em" + plain


def test_positional_call(names: Connection) -> None:
    assert isinstance(value(names, "SELECT llm_generate('once', 8, 0.9, 40, 0.92)"), str)


def test_many_prompts_are_their_single_calls(names: Connection) -> None:
    prompts = ["em", "", "li", None, "a"]
    singles = [value(names, "SELECT llm_generate(%s::text, 9, seed => 4)", (prompt,)) for prompt in prompts]
    assert singles[3] is None
    assert value(names, "SELECT llm_generate(%s::text[], 9, seed => 4)", (prompts,)) == singles
    assert value(names, "SELECT llm_generate('{}'::text[])") == []


def test_many_prompts_share_passes_whatever_they_need(names: Connection) -> None:
    """More than go together, of all lengths, that end at different steps and slide at different times."""
    make_endless(names)
    prompts = [
        name[: i % 7] or "a" for i, name in enumerate(["emmaline", "oliverson", "avaleigh", "noahmarc"] * 5)
    ]
    arguments = "40, 0.9, 0, 0.95, 'names', 11, ARRAY['an', 'zz'], true, 1.1, 0.1, 0.2"
    singles = [value(names, f"SELECT llm_generate(%s::text, {arguments})", (prompt,)) for prompt in prompts]
    assert len({len(text) for text in singles}) > 3
    assert value(names, f"SELECT llm_generate(%s::text[], {arguments})", (prompts,)) == singles
    names.execute("SET pg_llm.cache_size = 0")  # one at a time
    assert value(names, f"SELECT llm_generate(%s::text[], {arguments})", (prompts,)) == singles


def test_many_prompts_first_in_a_session(names: Connection, server: Server, dbname: str) -> None:
    """Nothing has loaded the extension's library, with its settings, before them."""
    single = value(names, "SELECT llm_generate('em', 5, seed => 2)")
    options = "-c session_preload_libraries="
    with psycopg.connect(make_conninfo(server.url(dbname), options=options)) as fresh:
        assert value(fresh, "SELECT llm_generate(ARRAY['em', 'em'], 5, seed => 2)") == [single, single]


def test_a_pass_of_several_generations(names: Connection) -> None:
    with names.transaction():
        names.execute("SELECT llm_pin('names')")
        texts = ([1, 2, 3], [4], [5, 6, 7, 8, 9])
        handles = [value(names, "SELECT pg_llm_gen_open('names', %s, 16)", (ids,)) for ids in texts]
        alone = "SELECT llm_generation_logits(%s, 'names', 16)::bytea"
        for handle in handles:
            value(names, alone, (handle,))
            names.execute("SELECT pg_llm_gen_push(%s, 10)", (handle,))
        together = names.execute(
            "SELECT handle, logits::bytea FROM llm_generations_logits(%s, 'names', 16)", (handles,)
        ).fetchall()
        assert [handle for handle, _ in together] == handles
        for ids, (_, logits) in zip(texts, together, strict=True):
            fresh = "SELECT llm_forward('names', %s, last_only => true)::bytea"
            assert logits == value(names, fresh, ([*ids, 10],))


@pytest.mark.parametrize(
    ("handles", "tokens", "message"),
    [
        ("'{}'", "'{1}'", "at least one generation"),
        ("ARRAY[a, a]", "'{{1},{2}}'", "appears twice"),
        ("ARRAY[a, b]", "'{1}'", "expects 2 sequences, not 1"),
        ("ARRAY[a]", "'{{1},{2}}'", "expects 1 sequences, not 2"),
        ("ARRAY[a, b]", "'{{1,2,3,4,5,6},{1,2,3,4,5,6}}'", "do not fit into a context of 4"),
        ("ARRAY[a, c]", "'{{1},{2}}'", "have different weights"),
    ],
)
def test_passes_that_cannot_be(names: Connection, handles: str, tokens: str, message: str) -> None:
    make_names(names, "other")
    names.execute("BEGIN; SELECT llm_pin('names')")
    a, b = (value(names, "SELECT pg_llm_gen_open('names', '{1}', 4)") for _ in range(2))
    names.execute("SELECT llm_pin('other')")
    c = value(names, "SELECT pg_llm_gen_open('other', '{1}', 4)")
    which = f"(VALUES ({a}, {b}, {c})) h (a, b, c)"
    with pytest.raises(psycopg.Error, match=message):
        names.execute(f"SELECT llm_generation_pass({handles}, 'names', {tokens}) FROM {which}")
    names.execute("ROLLBACK")
    assert value(names, "SELECT llm_generate('em', 3, model => 'names')") is not None


def test_an_empty_prompt_starts_a_document(names: Connection) -> None:
    text = value(names, "SELECT llm_generate('', 9, 0)")
    end = value(names, "SELECT token_id FROM llm_bpe_vocab WHERE token = '<|bos|>'")
    logits = value(names, "SELECT llm_logits(%s::int[])", ([end],))
    assert text[0] == value(names, "SELECT llm_decode(%s::int[])", ([int(np.argmax(logits[-1]))],))


def test_penalties(names: Connection) -> None:
    tokens = value(names, "SELECT llm_encode('anna', 'names')")
    logits = value(names, "SELECT llm_logits(%s::int[])", (tokens,))[-1].astype(np.float64)
    penalised = logits.copy()
    for token in set(tokens):
        penalised[token] = logits[token] / 50 if logits[token] > 0 else logits[token] * 50
    greedy = "SELECT token_id FROM llm_generate_stream('anna', 1, 0, {})"
    assert value(names, greedy.format("repetition_penalty => 50")) == int(np.argmax(penalised))
    text = value(names, "SELECT llm_generate('a', 12, 0, presence_penalty => 1000)")
    assert len(set(text)) == len(text)
    assert value(names, greedy.format("presence_penalty => 1000, frequency_penalty => 1000")) == int(
        np.argmax(logits)
    )


def test_a_multibyte_character_is_never_split(conn: Connection) -> None:
    words = ["größe", "naïve", "日本語", "🙂🙃"]
    query = names_query(words)
    conn.execute("SELECT llm_build_char_tokenizer('wide', %s)", (query,))
    make_model(conn, "wide", vocab=value(conn, "SELECT count(*) FROM llm_bpe_vocab"), n_positions=16)
    rows = conn.execute(
        "SELECT token, text FROM llm_generate_stream('日', 40, 1, 0, 1, model => 'wide', seed => 2)"
    ).fetchall()
    assert set(rows[-1][1]) <= set("".join(words))
    assert all(len(row[0]) <= 1 for row in rows)


@pytest.mark.parametrize(
    ("data", "stop", "final", "expected"),
    [
        (b"ab\xc3", None, False, ("ab", False)),
        (b"ab\xe6\x97", None, False, ("ab", False)),
        (b"ab\xe6\x97", None, True, ("ab\ufffd", False)),
        (b"a\xffb\x00\xe6\x97", None, False, ("a\ufffdb\ufffd", False)),
        (b"ab\xf0\x9f\x99", None, False, ("ab", False)),
        ("ab🙂".encode(), None, False, ("ab🙂", False)),
        (b"", None, False, ("", False)),
        (b"hello wor", ["world"], False, ("hello ", False)),
        (b"hello wor", ["world"], True, ("hello wor", False)),
        (b"hello world", ["world", "lo w"], False, ("hel", True)),
        (b"aab", ["aabc", "b!"], False, ("", False)),
    ],
)
def test_visible_text(
    conn: Connection, data: bytes, stop: list[str] | None, final: bool, expected: tuple[str, bool]
) -> None:
    row = conn.execute(
        "SELECT visible, stopped FROM pg_llm_visible_text(%s, %s, %s)", (data, stop, final)
    ).fetchone()
    assert row == expected


def test_nothing_is_written(names: Connection) -> None:
    with names.transaction():
        names.execute("SET TRANSACTION READ ONLY")
        assert value(names, "SELECT llm_generate('em', 5, 0)") is not None
        names.execute("SET LOCAL pg_llm.autograd = on")
        assert value(names, "SELECT llm_generate('em', 5, 0)") is not None
        assert value(names, "SELECT pg_llm_autograd_enabled()")
    with names.transaction():
        names.execute("SET LOCAL pg_llm.autograd = on")
        names.execute("SELECT llm_generate('em', 5, 0)")
        assert value(names, "SELECT pg_current_xact_id_if_assigned()") is None
    assert value(names, "SELECT count(*) FROM pg_llm_tape()") == 0


def test_the_version_is_kept_while_it_streams(names: Connection, connect: Connect) -> None:
    query = "SELECT token FROM llm_generate_stream('a', 30, 1, 0, 1, seed => 8)"
    expected = names.execute(query).fetchall()
    reader = connect(autocommit=False)
    reader.execute(f"DECLARE c CURSOR FOR {query}")
    got = reader.execute("FETCH 2 FROM c").fetchall()
    train(names, "names", 5, lr_max=0.1)
    got += reader.execute("FETCH ALL FROM c").fetchall()
    reader.commit()
    assert got == expected
    assert names.execute(query).fetchall() != expected


def test_a_lateral_call_begins_anew_for_every_row(names: Connection) -> None:
    make_endless(names)
    query = "SELECT s.token FROM llm_generate_stream('a', 9, seed => %s) s"
    alone = [names.execute(query, (seed,)).fetchall() for seed in range(4)]
    rows = names.execute(
        "SELECT i, s.token FROM generate_series(0, 3) i, LATERAL llm_generate_stream('a', 9, seed => i) s"
    ).fetchall()
    assert [[(token,) for i, token in rows if i == seed] for seed in range(4)] == alone


def test_two_streams_at_once(names: Connection) -> None:
    query = "SELECT token FROM llm_generate_stream('{}', 12, 1, 0, 1, seed => 8)"
    alone = [names.execute(query.format(prompt)).fetchall() for prompt in ("a", "li")]
    with names.transaction():
        for name, prompt in (("one", "a"), ("two", "li")):
            names.execute(f"DECLARE {name} CURSOR FOR {query.format(prompt)}")
        got: list[list[Any]] = [[], []]
        for _ in range(12):
            for i, name in enumerate(("one", "two")):
                got[i] += names.execute(f"FETCH 1 FROM {name}").fetchall()
    assert got == alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("max_tokens => 0", "max_tokens must be at least 1, got 0"),
        ("max_tokens => NULL", "max_tokens must be at least 1, got NULL"),
        ("temperature => -0.1", "temperature must be finite and not negative, got -0.1"),
        ("temperature => 'NaN'", "temperature"),
        ("top_k => -1", "top_k must not be negative"),
        ("top_p => 0", "top_p must be above 0 and at most 1"),
        ("top_p => 1.1", "top_p"),
        ("top_p => 'NaN'", "top_p"),
        ("repetition_penalty => 0", "repetition_penalty"),
        ("presence_penalty => 'Infinity'", "presence_penalty"),
        ("frequency_penalty => 'NaN'", "frequency_penalty"),
        ("stop => ARRAY['a', '']", "stop must hold no empty text"),
    ],
)
def test_arguments_out_of_range(names: Connection, arguments: str, message: str) -> None:
    for function in ("llm_generate", "llm_generate_stream"):
        with pytest.raises(errors.InvalidParameterValue, match=message):
            names.execute(f"SELECT * FROM {function}('a', {arguments})")


def test_which_model(conn: Connection) -> None:
    with pytest.raises(errors.UndefinedObject, match='model "nobody" does not exist'):
        conn.execute("SELECT llm_generate('a', model => 'nobody')")
    with pytest.raises(errors.Error, match="gpt2-small"):
        conn.execute("SELECT llm_generate('a')")
    make_model(conn)
    with pytest.raises(errors.UndefinedObject, match='model "tiny" has no tokenizer'):
        conn.execute("SELECT llm_generate('a')")
    make_names(conn)
    with pytest.raises(errors.InvalidParameterValue, match="several have weights: names, tiny"):
        conn.execute("SELECT llm_generate('a')")
    conn.execute("SET pg_llm.default_model = 'names'")
    assert isinstance(value(conn, "SELECT llm_generate('a', 3)"), str)
    assert value(conn, "SELECT llm_decode(llm_encode('emma'))") == "emma"


def test_unknown_characters(names: Connection) -> None:
    with pytest.raises(errors.CharacterNotInRepertoire, match="'Z'"):
        names.execute("SELECT llm_generate('emZa')")


def test_released_memory_is_read_again(names: Connection) -> None:
    before = value(names, "SELECT llm_generate('a', 9, 0)")
    assert value(names, "SELECT llm_release()") > 0
    assert value(names, "SELECT llm_generate('a', 9, 0)") == before


def test_a_cache_takes_memory_for_the_tokens_that_there_are(fresh_conn: Connection) -> None:
    """In a session that generated before, too, whose freed memory is not zero."""
    make_names(fresh_conn, d_model=64, n_layer=4, n_positions=8192)

    def own_memory() -> int:
        status = value(fresh_conn, "SELECT pg_read_file('/proc/self/status')")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))

    # Of the whole context the four layers would hold 16 MB.
    texts = {value(fresh_conn, "SELECT llm_generate('a', 4, 0)") for _ in range(3)}
    before = own_memory()
    texts |= {value(fresh_conn, "SELECT llm_generate('a', 4, 0)") for _ in range(3)}
    assert own_memory() - before < 4000
    assert len(texts) == 1
    cursor = "DECLARE c CURSOR FOR SELECT FROM llm_generate_stream('a', 4, 0)"
    with fresh_conn.transaction():
        fresh_conn.execute(cursor)
        fresh_conn.execute("FETCH 2 FROM c")
        assert own_memory() - before < 4000
