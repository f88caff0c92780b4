"""LanguageModel and AsyncLanguageModel: each method against the SQL it stands for."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy.exc
from sqlalchemy import column, func, select, text, values
from sqlalchemy import types as sqltypes
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from llm_sql import AsyncLanguageModel, Evaluation, FineTuning, LanguageModel, Progress, functions
from llm_sql.errors import UsageError
from llm_sql.types import adapt_engine

GREEDY = {"max_tokens": 12, "temperature": 0.0}


def test_encode_and_decode_are_inverse(tiny: LanguageModel) -> None:
    ids = tiny.encode("the cat")
    assert all(isinstance(token, int) for token in ids)
    assert len(ids) == len("the cat")
    assert tiny.decode(ids) == "the cat"
    assert tiny.decode([]) == ""


def test_loss_of_an_untrained_model_is_about_log_vocab(tiny: LanguageModel) -> None:
    ids = tiny.encode("the cat sat")
    vocab = tiny.session.scalars(text("SELECT vocab FROM llm_model_config WHERE model = 'tiny'")).one()
    assert tiny.loss(ids[:-1], ids[1:]) == pytest.approx(math.log(vocab), rel=0.05)


def test_loss_ignores_negative_targets(tiny: LanguageModel) -> None:
    ids = tiny.encode("the cat sat")
    only_last = [-1] * (len(ids) - 2) + [ids[-1]]
    everything, last = tiny.loss(ids[:-1], ids[1:]), tiny.loss(ids[:-1], only_last)
    assert everything != last
    assert tiny.session.scalars(
        text("SELECT llm_loss('tiny', CAST(:t AS int[]), CAST(:y AS int[]))"), {"t": ids[:-1], "y": only_last}
    ).one() == pytest.approx(last)


def test_training_lowers_the_loss_and_is_the_sessions_to_commit(tiny: LanguageModel) -> None:
    before = tiny.evaluate("train")
    run_id = tiny.train(60, batch_size=4, lr_max=3e-3, warmup=5, dropout_p=0.0)
    after = tiny.evaluate("train")
    assert after.loss < before.loss - 0.5
    assert after.tokens == before.tokens > 0
    assert after.perplexity == pytest.approx(math.exp(after.loss))
    steps = tiny.session.scalars(
        text("SELECT count(*) FROM llm_train_log WHERE run_id = :r"), {"r": run_id}
    ).one()
    assert steps == 60
    tiny.session.rollback()
    assert tiny.evaluate("train") == before


def test_training_with_commits_is_there_after_a_rollback(tiny: LanguageModel) -> None:
    before = tiny.evaluate("train")
    tiny.session.commit()
    run_id = tiny.train(20, commit_every=7, batch_size=2, lr_max=3e-3, warmup=2)
    tiny.session.rollback()
    assert tiny.evaluate("train").loss < before.loss
    last_step = text("SELECT last_step FROM llm_train_run WHERE run_id = :r")
    assert tiny.session.scalars(last_step, {"r": run_id}).one() == 20


def test_both_ways_of_training_give_the_same_weights(tiny: LanguageModel) -> None:
    digest = text(
        "SELECT string_agg(md5(data::bytea), '' ORDER BY name, token_id) FROM llm_param WHERE model = 'tiny'"
    )
    tiny.train(10, batch_size=2, seed=5)
    in_one_transaction = tiny.session.scalars(digest).one()
    tiny.session.rollback()
    tiny.train(10, commit_every=3, batch_size=2, seed=5)
    assert tiny.session.scalars(digest).one() == in_one_transaction


def test_progress_is_seen_while_training(tiny: LanguageModel) -> None:
    seen: list[Progress] = []
    tiny.train(1500, batch_size=4, progress=seen.append)
    assert seen, "a run of some seconds is polled several times a second"
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert {progress.model for progress in seen} == {"tiny"}
    assert all(0 <= progress.step <= progress.total == 1500 for progress in seen)


def test_an_unknown_option_names_itself_and_the_known_ones(tiny: LanguageModel) -> None:
    with pytest.raises(TypeError, match=r"learning_rate.*lr_max"):
        tiny.train(1, learning_rate=1e-3)


def test_every_training_option_reaches_the_database(tiny: LanguageModel) -> None:
    options = {
        "dropout_p": 0, "beta1": 0.8, "beta2": 0.95, "eps": 1e-7, "wd": 0, "lr_max": 1, "warmup": 1,
        "grad_clip": 1, "grad_workers": 2, "prune_workers": 2, "batch_size": 2, "grad_accum": 2,
        "data_order": "by_id",
        "block_size": 4, "schedule": "linear", "min_lr": 0, "decay": "matrices", "seed": 9, "start_step": 1,
        "total_steps": 50, "log_every": 0, "keep_grad": True,
        "optimizer": "drop",
    }  # fmt: skip
    run_id = tiny.train(3, **options)
    stored = tiny.session.scalars(
        text("SELECT hyperparameters FROM llm_train_run WHERE run_id = :r"), {"r": run_id}
    ).one()
    assert {name: stored[name] for name in options} == options
    kept = tiny.session.scalars(
        text("SELECT count(*) FROM llm_param WHERE model = 'tiny' AND grad IS NOT NULL")
    ).one()
    assert kept > 0


def test_generate_is_reproducible_and_greedy_needs_no_seed(tiny: LanguageModel) -> None:
    assert tiny.generate("the ", **GREEDY) == tiny.generate("the ", **GREEDY)
    assert tiny.generate("the ", max_tokens=12, seed=3) == tiny.generate("the ", max_tokens=12, seed=3)
    assert tiny.generate("the ", echo=True, **GREEDY) == "the " + tiny.generate("the ", **GREEDY)
    assert tiny.generate_many(["the ", "a "], **GREEDY) == [
        tiny.generate(p, **GREEDY) for p in ("the ", "a ")
    ]


def test_stream_adds_up_to_generate(tiny: LanguageModel) -> None:
    events = list(tiny.stream("the ", **GREEDY))
    assert [event.step for event in events] == list(range(1, len(events) + 1))
    assert [event.is_complete for event in events] == [False] * (len(events) - 1) + [True]
    assert "".join(event.token for event in events) == events[-1].text == tiny.generate("the ", **GREEDY)


def test_a_stream_may_be_left_early(tiny: LanguageModel) -> None:
    stream = tiny.stream("the ", max_tokens=20, temperature=1.0, seed=1)
    first = next(stream)
    stream.close()
    assert first.step == 1
    assert tiny.generate("the ", **GREEDY) == tiny.generate("the ", **GREEDY)


def test_functions_compose_with_columns(tiny: LanguageModel) -> None:
    documents = values(column("body", sqltypes.Text), name="documents").data([("the cat",), ("a dog",)])
    query = select(documents.c.body, functions.perplexity("tiny", documents.c.body).label("p"))
    rows = {row.body: row.p for row in tiny.session.execute(query)}
    assert rows == {body: pytest.approx(tiny.perplexity(body)) for body in ("the cat", "a dog")}
    assert (
        tiny.session.scalars(select(func.length(functions.generate("the ", model="tiny", **GREEDY)))).one()
        >= 0
    )


def test_unknown_model_is_the_databases_error(session: Session) -> None:
    with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        LanguageModel(session, "no such model").generate("a")
    assert getattr(caught.value.orig, "sqlstate", None) == "42704"


def test_async_twin_gives_the_same(tiny: LanguageModel, db_url: str) -> None:
    ids = tiny.encode("the cat")
    expected = (
        tiny.generate("the ", **GREEDY),
        [event.token for event in tiny.stream("the ", **GREEDY)],
        tiny.perplexity("the cat"),
        tiny.loss(ids[:-1], ids[1:]),
        tiny.evaluate("train"),
    )
    tiny.session.rollback()

    async def run() -> tuple[tuple[str, list[str], float, float, Evaluation], list[Progress], float]:
        engine = create_async_engine(db_url)
        seen: list[Progress] = []
        async with AsyncSession(engine) as session:
            lm = AsyncLanguageModel(session, "tiny")
            tokens = await lm.encode("the cat")
            assert await lm.decode(tokens) == "the cat"
            assert await lm.generate_many(["the "], **GREEDY) == [expected[0]]
            got = (
                await lm.generate("the ", **GREEDY),
                [event.token async for event in lm.stream("the ", **GREEDY)],
                await lm.perplexity("the cat"),
                await lm.loss(tokens[:-1], tokens[1:]),
                await lm.evaluate("train"),
            )
            await lm.train(30, batch_size=2, lr_max=3e-3, warmup=3)
            await session.rollback()
            await lm.train(1500, commit_every=500, batch_size=2, lr_max=3e-3, progress=seen.append)
            trained = (await lm.evaluate("train")).loss
            other = await AsyncLanguageModel.create(
                session, "other", n_layer=1, n_head=1, d_model=8, n_positions=8, vocab=5
            )
            assert await other.loss([1, 2], [2, 3]) > 0
            await session.rollback()
        await engine.dispose()
        return got, seen, trained

    got, seen, trained = asyncio.run(run())
    assert got == expected
    assert seen
    assert seen[-1].model == "tiny"
    assert trained < expected[4].loss


def test_beam_search_sync_and_async(tiny: LanguageModel, db_url: str) -> None:
    beams = tiny.beam_search("the ", beam_width=2, max_tokens=5)
    assert len(beams) == 2
    assert beams[0].score >= beams[1].score
    assert beams[0].text == tiny.decode(beams[0].token_ids)

    async def search() -> None:
        engine = create_async_engine(db_url)
        async with AsyncSession(engine) as session:
            twin = AsyncLanguageModel(session, "tiny")
            assert await twin.beam_search("the ", beam_width=2, max_tokens=5) == beams
        await engine.dispose()

    asyncio.run(search())


def test_finetuning_sync_and_async(tiny: LanguageModel, db_url: str) -> None:
    query = "SELECT unnest(ARRAY['the dog sat', 'the cat ran', 'a dog ran'])"
    seen: list[Progress] = []
    options = {"lr_max": 3e-3, "validation": 0.4, "dropout_p": 0.0, "log_every": 0}
    found = tiny.finetune(query, 60, new_name="tuned", progress=seen.append, **options)
    assert found == FineTuning("tuned", found.perplexity_before, found.perplexity_after)
    assert found.perplexity_after < found.perplexity_before
    tuned = LanguageModel(tiny.session, found.model)
    assert tuned.evaluate().perplexity == found.perplexity_after
    assert tuned.evaluate(stride=3).tokens == tuned.evaluate().tokens
    assert tuned.evaluate(query=query, stride=4).perplexity < tiny.evaluate(query=query, stride=4).perplexity
    tiny.session.rollback()

    async def tune() -> FineTuning:
        engine = create_async_engine(db_url)
        adapt_engine(engine)
        async with AsyncSession(engine) as session:
            twin = AsyncLanguageModel(session, "tiny")
            result = await twin.finetune(query, 60, new_name="tuned", **options)
            evaluated = await AsyncLanguageModel(session, result.model).evaluate()
            assert evaluated.perplexity == result.perplexity_after
            np.testing.assert_array_equal(
                await twin.embed_text("the", layer=0), tiny.embed_text("the", layer=0)
            )
        await engine.dispose()
        return result

    assert asyncio.run(tune()) == found


def test_embeddings_are_arrays(tiny: LanguageModel) -> None:
    states = tiny.embed_text("the cat", pooling="none")
    assert states.shape == (7, 16)
    np.testing.assert_array_equal(tiny.embed_text("the cat", pooling="last"), states[-1])
    np.testing.assert_allclose(tiny.embed_text("the cat"), states.mean(0), rtol=1e-5, atol=1e-7)


def test_one_text_and_many(tiny: LanguageModel, db_url: str) -> None:
    texts = ["the cat", "", "a dog ran"]
    many = tiny.embed(texts)
    assert many.shape == (3, 16)
    assert many.dtype == np.float32
    for row, one in zip(many, texts, strict=True):
        np.testing.assert_array_equal(tiny.embed(one), row)
        np.testing.assert_array_equal(tiny.embed_text(one), row)
    assert tiny.embed([]).shape == (0, 16)
    np.testing.assert_array_equal(tiny.embed(tuple(texts) * 400), np.tile(many, (400, 1)))
    with pytest.raises(UsageError, match="text 1 is None"):
        tiny.embed(["a", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="bytes"):
        tiny.embed([b"a"])  # type: ignore[list-item]
    as_column = tiny.session.scalar(select(functions.llm_embed(texts, "tiny")))
    np.testing.assert_array_equal(np.stack(as_column), many)
    np.testing.assert_array_equal(tiny.session.scalar(select(functions.embed("the cat", "tiny"))), many[0])

    async def embed() -> None:
        engine = create_async_engine(db_url)
        adapt_engine(engine)
        async with AsyncSession(engine) as session:
            twin = AsyncLanguageModel(session, "tiny")
            np.testing.assert_array_equal(await twin.embed(texts), many)
            np.testing.assert_array_equal(await twin.embed("a dog ran"), many[2])
            assert (await twin.embed([])).shape == (0, 16)
        await engine.dispose()

    asyncio.run(embed())


def test_adapters(tiny: LanguageModel, db_url: str, tmp_path: Path) -> None:
    ids = tiny.encode("the cat sat")
    before = tiny.loss(ids[:-1], ids[1:])
    ours = tiny.create_adapter("ours", rank=2, alpha=4, targets="c_attn", seed=3)
    assert ours.loss(ids[:-1], ids[1:]) == before
    assert ours.encode("the cat") == tiny.encode("the cat")
    found = tiny.session.execute(text("SELECT rank, alpha, targets FROM llm_adapter")).one()
    assert tuple(found) == (2, 4.0, ["attn.c_attn"])
    n = tiny.session.scalars(
        text("SELECT sum(llm_elements(shape(data))) FROM llm_param WHERE model = 'ours'")
    )
    count = n.one()
    tiny.session.execute(
        text("UPDATE llm_param SET data = pg_llm_add(data, '0.1'::tensor) WHERE model = 'ours'")
    )
    changed = ours.loss(ids[:-1], ids[1:])
    assert changed != before
    assert ours.export_weights(tmp_path / "peft") == count
    tiny.create_adapter("again", rank=2, alpha=4, targets=["attn.c_attn"])
    again = LanguageModel(tiny.session, "again")
    again.import_weights(tmp_path / "peft" / "adapter_model.safetensors")
    assert again.loss(ids[:-1], ids[1:]) == changed
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["target_modules"] == [
        "attn.c_attn"
    ]
    with pytest.raises(UsageError, match="holds a LoRA adapter, not a model"):
        LanguageModel.import_model(tiny.session, "whole", tmp_path / "peft")
    tiny.session.commit()

    async def run() -> float:
        engine = create_async_engine(db_url)
        async with AsyncSession(engine) as session:
            theirs = await AsyncLanguageModel(session, "tiny").create_adapter("theirs")
            loss = await theirs.loss(ids[:-1], ids[1:])
            await session.rollback()
        await engine.dispose()
        return loss

    assert asyncio.run(run()) == before
