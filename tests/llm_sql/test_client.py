"""PGLLMClient: generation over a psycopg connection, in autocommit and out of it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from llm_sql import LanguageModel
from llm_sql.client import BeamResult, PGLLMClient, StreamEvent

GREEDY: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0, "model": "tiny"}


@pytest.fixture(params=[True, False], ids=["autocommit", "transaction"])
def client(request: pytest.FixtureRequest, tiny: LanguageModel, connect: Any) -> PGLLMClient:
    return PGLLMClient(connect(autocommit=request.param))


def test_an_unknown_option_is_named(client: PGLLMClient) -> None:
    with pytest.raises(
        TypeError, match="unexpected option 'tempurature'; options are max_tokens, temperature"
    ):
        client.generate("a", tempurature=1.0)  # type: ignore[call-arg]


def test_the_short_name_is_the_same_class() -> None:
    import pg_llm_client

    assert pg_llm_client.PGLLMClient is PGLLMClient


def test_generate_and_stream_agree(client: PGLLMClient) -> None:
    text = client.generate("the ", **GREEDY)
    events = list(client.stream("the ", **GREEDY))
    assert isinstance(events[0], StreamEvent)
    assert "".join(event.token for event in events) == events[-1].text == text
    assert events[-1].is_complete
    assert [event.step for event in events] == list(range(1, len(events) + 1))


def test_options_are_those_of_the_function(client: PGLLMClient) -> None:
    same = {"max_tokens": 12, "temperature": 0.9, "top_k": 5, "top_p": 0.8, "seed": 7, "model": "tiny"}
    assert client.generate("the ", **same) == client.generate("the ", **same)
    text = client.generate("the ", **GREEDY)
    if len(text) > 2:
        assert client.generate("the ", stop=text[2], **GREEDY) == text[: text.index(text[2])]


def test_without_a_name_the_only_model_is_used(client: PGLLMClient) -> None:
    assert client.generate("the ", max_tokens=5, temperature=0) == client.generate(
        "the ", max_tokens=5, temperature=0, model="tiny"
    )


def test_the_first_event_comes_before_the_rest_is_computed(client: PGLLMClient) -> None:
    stream = client.stream("the ", max_tokens=30, temperature=1.0, seed=1, model="tiny")
    first = next(stream)
    assert first.step == 1
    if client.conn.autocommit:
        assert client.conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    stream.close()
    assert client.generate("the ", **GREEDY) == client.generate("the ", **GREEDY)
    if client.conn.autocommit:
        assert client.conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_beam_search_is_the_functions(client: PGLLMClient) -> None:
    beams = client.beam_search("the ", beam_width=4, max_tokens=6, model="tiny", length_penalty=0.0)
    assert [type(beam) for beam in beams] == [BeamResult] * 4
    rows = client.conn.execute(
        "SELECT score, text, token_ids FROM llm_beam_search('the ', 4, 6, 'tiny', 0) ORDER BY rank"
    ).fetchall()
    assert [(beam.score, beam.text, beam.token_ids) for beam in beams] == rows
    assert len(client.beam_search("the ", max_tokens=2)) == 3


def test_any_row_factory_will_do(tiny: LanguageModel, connect: Any) -> None:
    connection = connect()
    expected = PGLLMClient(connection).generate("the ", **GREEDY)
    connection.row_factory = dict_row
    client = PGLLMClient(connection)
    assert client.generate("the ", **GREEDY) == expected
    assert list(client.stream("the ", **GREEDY))[-1].text == expected


def test_errors_keep_their_sqlstate(client: PGLLMClient) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject):
        client.generate("a", model="no such model")
    client.conn.rollback()
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        list(client.stream("the ", temperature=-1.0, model="tiny"))
    assert client.conn.info.transaction_status in (
        psycopg.pq.TransactionStatus.IDLE,
        psycopg.pq.TransactionStatus.INERROR,
    )
