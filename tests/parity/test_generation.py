"""Text by transformers and by the database from the same weights: greedy, with penalties, streamed."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from sqlalchemy import Engine
from transformers import GPT2LMHeadModel

from ..support.training import scalar
from .hub_models import MODEL, Recipe, as_text, give_characters, put_on_client, server_readable_folder

Connection = psycopg.Connection[Any]

N_TOKENS = 200
PROMPT = [5, 3, 8, 1, 30, 22]
RECIPES = [
    Recipe("narrow", n_layer=2, n_head=2, n_embd=32, n_positions=256, vocab_size=101, std=0.35),
    Recipe("of many heads", n_layer=3, n_head=6, n_embd=96, n_positions=230, vocab_size=997, std=0.2),
    Recipe(
        "wide inside",
        n_layer=4,
        n_head=1,
        n_embd=40,
        n_positions=206,
        vocab_size=300,
        std=0.3,
        more={"n_inner": 64},
    ),
]


@pytest.fixture(params=RECIPES, ids=str)
def model(request: pytest.FixtureRequest, conn: Connection, engine: Engine) -> GPT2LMHeadModel:
    """A random model in both places. It never ends a text: the end token's embedding is 0."""
    recipe: Recipe = request.param
    model = recipe.make(seed=4)
    with torch.no_grad():
        # A large bias in front of the head, so that a logit of 0 is never the largest.
        model.transformer.wte.weight[-1] = 0.0
    with server_readable_folder() as folder:
        model.save_pretrained(folder)
        put_on_client(engine, folder)
    give_characters(conn, recipe.vocab_size)
    return model


def decided(scores: tuple[torch.Tensor, ...]) -> float:
    """How far the best token is ahead of the second at the least, relative to the logits' spread."""
    gaps = []
    for score in scores:
        best, second = score[0].topk(2).values.tolist()
        gaps.append((best - second) / float(score[0].std()))
    return min(gaps)


def greedy(model: GPT2LMHeadModel, **options: Any) -> tuple[list[int], float]:
    out = model.generate(
        torch.tensor([PROMPT]), attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        max_new_tokens=N_TOKENS, do_sample=False, return_dict_in_generate=True, output_scores=True,
        pad_token_id=model.config.vocab_size - 1, **options,
    )  # fmt: skip
    return out.sequences[0, len(PROMPT) :].tolist(), decided(out.scores)


def generated(conn: Connection, options: str = "", **more: Any) -> str:
    query = f"SELECT llm_generate(%(prompt)s, {N_TOKENS}, 0, model => '{MODEL}'{options})"
    return str(scalar(conn, query, {"prompt": as_text(PROMPT)} | more))


def test_greedy_text_of_200_tokens(conn: Connection, model: GPT2LMHeadModel) -> None:
    ids, gap = greedy(model)
    assert gap > 1e-4, "a tie would let rounding decide: take another seed"
    assert len(ids) == N_TOKENS
    assert len(set(ids)) > 5
    assert generated(conn) == as_text(ids)
    streamed = conn.execute(
        f"SELECT token_id FROM llm_generate_stream(%s, {N_TOKENS}, 0, model => '{MODEL}')", (as_text(PROMPT),)
    ).fetchall()
    assert [row[0] for row in streamed] == ids
    many = scalar(
        conn,
        f"SELECT llm_generate(ARRAY[%(p)s, %(p)s], {N_TOKENS}, 0, model => '{MODEL}')",
        {"p": as_text(PROMPT)},
    )
    assert many == [as_text(ids)] * 2


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_repetition_penalty(conn: Connection, model: GPT2LMHeadModel, penalty: float) -> None:
    """Prompt and continuation count, each token once (Keskar et al. 2019, as transformers has it)."""
    ids, gap = greedy(model, repetition_penalty=penalty)
    assert gap > 1e-5
    assert len(set(ids)) > 5
    assert generated(conn, ", repetition_penalty => %(penalty)s", penalty=penalty) == as_text(ids)


def openai(model: GPT2LMHeadModel, presence: float, frequency: float) -> tuple[list[int], float]:
    """logit -= count * frequency + (count > 0) * presence over what was sampled so far, as OpenAI defines."""
    ids: list[int] = []
    scores = []
    count = torch.zeros(model.config.vocab_size)
    cache, new = None, PROMPT
    for _ in range(N_TOKENS):
        with torch.no_grad():
            out = model(torch.tensor([new]), past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[0, -1]
        logits = logits - count * frequency - (count > 0) * presence
        scores.append(logits[None])
        ids.append(int(logits.argmax()))
        new = ids[-1:]
        count[ids[-1]] += 1
    return ids, decided(tuple(scores))


@pytest.mark.parametrize(("presence", "frequency"), [(0.7, 0.0), (-0.5, 0.3)])
def test_presence_and_frequency_penalties(
    conn: Connection, model: GPT2LMHeadModel, presence: float, frequency: float
) -> None:
    ids, gap = openai(model, presence, frequency)
    assert gap > 1e-5
    options = ", presence_penalty => %(presence)s, frequency_penalty => %(frequency)s"
    assert generated(conn, options, presence=presence, frequency=frequency) == as_text(ids)


def test_the_end_token_ends_the_text(conn: Connection, engine: Engine) -> None:
    """A model that comes to its end token by itself, where transformers stops as well."""
    recipe = Recipe("ending", n_positions=256, vocab_size=33, std=0.35)
    ended = 0
    for seed in range(8):
        model = recipe.make(seed)
        with server_readable_folder() as folder:
            model.save_pretrained(folder)
            put_on_client(engine, folder, f"m{seed}")
        give_characters(conn, recipe.vocab_size, f"m{seed}")
        ids, gap = greedy(model, repetition_penalty=1.5)
        assert gap > 1e-5
        if ids[-1] == recipe.vocab_size - 1:
            ended += 1
            ids.pop()
        query = f"SELECT llm_generate(%s, {N_TOKENS}, 0, model => %s, repetition_penalty => 1.5)"
        assert scalar(conn, query, (as_text(PROMPT), f"m{seed}")) == as_text(ids)
    assert ended > 1
