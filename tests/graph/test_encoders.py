"""bert and users' encoders: installed and ad hoc against float64 NumPy, alone and end to end, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from llm_sql import graph as g
from llm_sql.models import ModelConfig, Param

from ..reference import bert_numpy as reference
from ..reference.gpt2_numpy import random_parameters

SIZES = {"n_layer": 2, "n_head": 3, "d_model": 12, "n_positions": 9, "vocab": 17}
SEQUENCES = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9], [16, 0]]
SETTINGS = [{}, {"pooling": "cls"}, {"normalize": False}, {"pooling": "cls", "normalize": False}]


def store(session: Session, model: str = "m", **settings: Any) -> dict[str, Any]:
    shape = {name: SIZES[name] for name in ("n_layer", "d_model", "n_positions", "vocab")}
    parameters = random_parameters(reference.shapes(**shape))
    config = {"layer_norm_eps": 1e-12, "activation_function": "gelu", "settings": settings}
    session.add(ModelConfig(model=model, arch="bert", **SIZES, **config))
    session.flush()
    session.add_all(Param(model=model, name=name, data=data) for name, data in parameters.items())
    session.flush()
    return parameters


def run(session: Session, function: str, **arguments: Any) -> Any:
    named = ", ".join(f"{name} => :{name}" for name in arguments)
    return session.execute(sa.text(f"SELECT {function}({named})"), arguments).scalar_one()


def embed(session: Session, sequences: list[list[int]], model: str = "m", **arguments: Any) -> Any:
    """By the installed function, laid end to end."""
    given = {"tokens": [t for s in sequences for t in s], "lengths": [len(s) for s in sequences], **arguments}
    return run(session, "llm_embed_bert", model=model, **given)


def close(actual: Any, expected: Any) -> bool:
    return bool(np.linalg.norm(actual - expected) <= 3e-6 * np.linalg.norm(expected))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_embeddings_are_the_references(session: Session, settings: dict[str, Any]) -> None:
    parameters = store(session, **settings)
    found = embed(session, SEQUENCES)
    assert found.shape == (4, 12)
    for row, sequence in zip(found, SEQUENCES, strict=True):
        assert close(row, reference.embedding(parameters, sequence, n_head=3, **settings))


def test_end_to_end_and_alone_give_the_same_bits(session: Session) -> None:
    store(session)
    together = embed(session, SEQUENCES)
    for row, sequence in zip(together, SEQUENCES, strict=True):
        assert np.array_equal(row, embed(session, [sequence])[0])
        assert np.array_equal(row, run(session, "llm_forward_bert", model="m", tokens=sequence)[0])
    pair = [SEQUENCES[0], SEQUENCES[0][::-1]]
    as_batch = run(session, "llm_forward", model="m", tokens=pair)
    assert np.array_equal(as_batch, embed(session, pair))
    assert np.array_equal(
        run(session, "llm_embed_sequences", model="m", tokens=[9], lengths=[1])[0], together[1]
    )


def test_hidden_states_are_the_references(session: Session) -> None:
    parameters = store(session)
    for sequence in SEQUENCES:
        expected = reference.states(parameters, sequence, n_head=3)
        for layer in (0, 1, 2, -1, -3):
            found = run(session, "llm_hidden", model="m", tokens=sequence, layer=layer)
            assert found.shape == (len(sequence), 12)
            assert close(found, expected[layer])
    batch = run(session, "llm_hidden", model="m", tokens=[SEQUENCES[0], SEQUENCES[0][::-1]])
    assert batch.shape == (2, 5, 12)
    assert np.array_equal(batch[0], run(session, "llm_hidden", model="m", tokens=SEQUENCES[0]))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_same_graph_ad_hoc_gives_the_same_bits(session: Session, settings: dict[str, Any]) -> None:
    store(session, **settings)
    given = {"model": "m", "n_head": 3, "layer_norm_eps": 1e-12, "activation_function": "gelu"}
    given |= {"tokens": [t for s in SEQUENCES for t in s], "lengths": [len(s) for s in SEQUENCES], **settings}
    tree = g.bert.embeddings(2, given)
    assert np.array_equal(session.execute(g.select(tree)).scalar_one(), embed(session, SEQUENCES))


def test_dropout_has_sites_of_its_own(session: Session) -> None:
    store(session)
    key = sa.text("SELECT pg_llm_pass_begin(7, 3, 0)")
    given = {"model": "m", "n_head": 3, "layer_norm_eps": 1e-12, "activation_function": "gelu"}
    given |= {"tokens": [t for s in SEQUENCES for t in s], "lengths": [len(s) for s in SEQUENCES]}
    session.execute(key)
    tree = g.bert.embeddings(2, given, training=True, dropout_p=0.3)
    by_hand = session.execute(g.select(tree)).scalar_one()
    session.execute(key)
    dropped = embed(session, SEQUENCES, training=True, dropout_p=0.3)
    assert np.array_equal(by_hand, dropped)
    assert not np.array_equal(dropped, embed(session, SEQUENCES))
    sites = [
        argument
        for tree in (g.bert.stem, g.bert.block)
        for node in g.program.linearise([tree])
        if node.call.name in ("dropout", "bidirectional_attention")
        for argument in [node.args[-2 if node.call.name == "bidirectional_attention" else -1]]
    ]
    assert len({str(getattr(site, "args", site)) for site in sites}) == len(sites) == 4


def test_its_parameters_are_those_of_a_new_model(session: Session) -> None:
    sizes = {"n_layer": 2, "n_head": 3, "d_model": 12, "n_positions": 9, "vocab": 17}
    run(session, "llm_create_model", model="new", arch="bert", **sizes)
    rows = session.execute(
        sa.text("SELECT name, shape(data), layer FROM llm_param WHERE model = 'new'")
    ).all()
    expected = reference.shapes(n_layer=2, d_model=12, n_positions=9, vocab=17)
    assert {name: tuple(shape) for name, shape, _ in rows} == expected
    assert {name: layer for name, _, layer in rows} == {
        name: int(name.split(".")[1]) if name.startswith("h.") else None for name in expected
    }
    config = session.execute(
        sa.text("SELECT layer_norm_eps, activation_function FROM llm_model_config WHERE model = 'new'")
    ).one()
    assert tuple(config) == (1e-12, "gelu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": [1, 2, 3], "lengths": [1, 1]}, "length"),
        ({"tokens": [1, 2, 3], "lengths": [3, 0]}, "length"),
        ({"tokens": [1, 2, 3], "lengths": [-1, 4]}, "length"),
        ({"tokens": [1, 2, 3], "lengths": []}, "length"),
        ({"tokens": [1, 17], "lengths": [2]}, "17"),
        ({"tokens": [1] * 10, "lengths": [10]}, "10|9"),
    ],
)
def test_what_no_sequences_are_is_refused(session: Session, arguments: Any, message: str) -> None:
    store(session)
    for function in ("llm_embed_bert", "llm_embed_sequences"):
        with pytest.raises(sa.exc.DataError, match=message), session.begin_nested():
            run(session, function, model="m", **arguments)


def test_an_encoder_has_no_last_logits(session: Session) -> None:
    store(session)
    with pytest.raises(sa.exc.DataError, match="encoder"):
        run(session, "llm_forward", model="m", tokens=[1], last_only=True)
    for what in ("logits", "loss"):
        with pytest.raises(sa.exc.ArgumentError, match="encoder"):
            getattr(g.bert, what)(2)
    with pytest.raises(sa.exc.ArgumentError, match="decoder"):
        g.gpt2.embeddings(2)


# ---- one of a user's own ----

mixed = g.bidirectional_attention(
    *(g.linear(g.x, g.p(f"h.{{layer}}.{part}")) for part in "qkv"), site="h.{layer}.attn", lengths=g.lengths
)
OWN = g.Architecture(
    "own_encoder",
    stem=g.embedding(g.p("wte"), g.tokens),
    block=g.rms_norm(g.x + mixed),
    head=g.pool(g.x, g.lengths, g.setting("pooling", sa.Text())),
    parameters=[
        g.ParameterSpec("wte", (g.vocab, g.d_model)),
        *(g.ParameterSpec(f"h.{{layer}}.{part}", (g.d_model, g.d_model)) for part in "qkv"),
    ],
    kind="encoder",
    settings=[g.Setting("pooling", "text", "cls", values=("mean", "cls"))],
)


def test_an_encoder_of_ones_own(session: Session) -> None:
    OWN.register(session)
    sizes = {"n_layer": 1, "n_head": 2, "d_model": 8, "n_positions": 6, "vocab": 7}
    run(session, "llm_create_model", model="own", arch="own_encoder", **sizes)
    found = run(session, "llm_embed_sequences", model="own", tokens=[1, 2, 3, 4], lengths=[3, 1])
    assert found.shape == (2, 8)
    given = {"model": "own", "n_head": 2, "tokens": [1, 2, 3, 4], "lengths": [3, 1]}
    assert np.array_equal(session.execute(g.select(OWN.embeddings(1, given))).scalar_one(), found)
    assert np.array_equal(run(session, "llm_forward", model="own", tokens=[4])[0], found[1])
    states = run(session, "llm_hidden", model="own", tokens=[1, 2, 3])
    assert np.array_equal(states[0], found[0])  # cls, its default
    granted = "SELECT has_function_privilege('llm_reader', 'public.llm_embed_own_encoder(text, int[], int[],"
    granted += " boolean, double precision)', 'EXECUTE')"
    assert session.execute(sa.text(granted)).scalar_one()
    renamed = OWN.renamed("own_again", "the same")
    renamed.register(session)
    run(session, "llm_create_model", model="again", arch="own_again", **sizes)
    assert run(session, "llm_embed_sequences", model="again", tokens=[1], lengths=[1]).shape == (1, 8)
    session.execute(sa.text("DROP FUNCTION llm_embed_own_encoder"))
    with pytest.raises(sa.exc.NotSupportedError, match="embeddings"):
        run(session, "llm_embed_sequences", model="own", tokens=[1], lengths=[1])
