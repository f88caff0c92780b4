"""What only reads works where nothing can be written: on a streaming replica, in a read-only transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import errors
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.types import adapt_engine
from llm_sql.url import normalize_url

from ..support.durable import Durable, provisioned, streaming_replica, wait_for_replay
from ..support.shared_files import version
from ..support.small_models import Connection, make_encoder, make_names, train, weights
from ..support.tensors import value

# Where a function samples, the seed makes both servers give the same text. Casts to text are exact.
READS = (
    "SELECT llm_generate('em', 20, 1, 5, 0.9, 'names', 7)",
    "SELECT llm_generate(ARRAY['em', '', 'lu'], 20, 1, 0, 1, 'names', 7)",
    "SELECT * FROM llm_generate_stream('em', 20, 1, 5, 0.9, 'names', 7)",
    "SELECT * FROM llm_beam_search('em', 3, 12, 'names')",
    "SELECT llm_perplexity('names', 'emma')",
    "SELECT llm_perplexity('names', 'emmaoliviaavaisabellasophia', 4)",
    "SELECT llm_embed_text('emma', 'names')::text",
    "SELECT llm_embed_text('emmaoliviaavaisabellasophia', 'names', 1, 'none')::text",
    "SELECT llm_embed('emma', 'names')::text",
    "SELECT llm_embed('emma and mia', 'enc')::text",
    "SELECT llm_embed(ARRAY['emma', NULL, ''], 'enc')::text",
    "SELECT * FROM llm_evaluate('names', 'train')",
    "SELECT llm_loss('names', tokens, target) FROM llm_dataset ORDER BY id LIMIT 3",
    "SELECT llm_logits('{1,2,3}', 'names')::text",
    "SELECT llm_forward('names', '{1,2,3}')::text",
    "SELECT llm_decode(llm_encode('olivia', 'names'), 'names')",
    "SELECT llm_weight('names', 'wpe.weight')::text",
    "SELECT (llm_weight('names', 'wte.weight') * 2.0)::text",
)
WRITES = (
    "SELECT llm_train('names', 1, log_every => 0)",
    "CALL llm_train_loop('names', 1, 1, log_every => 0)",
    "SELECT llm_init_model('names', 1)",
    "SELECT llm_create_model('other', 'gpt2', 1, 1, 8, 8, 8, 1)",
    "SELECT llm_checkpoint_save('names')",
    "DELETE FROM llm_param",
)
# Everything that may be set about generating and still writes nothing.
MODES: dict[str, tuple[str, ...]] = {
    "as it comes": (),
    "bf16": ("SET pg_llm.weights = 'bf16'",),
    "int8": ("SET pg_llm.weights = 'int8'",),
    "int4": ("SET pg_llm.weights = 'int4'",),
    "ordinary role": ("SET ROLE llm_reader",),
    "repeatable read": ("SET default_transaction_isolation = 'repeatable read'",),
    "recording": ("SET pg_llm.autograd = on",),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Durable, Durable]]:
    """A primary with a trained model, and its replica."""
    with provisioned() as primary:
        with primary.connect() as conn:
            make_names(conn)
            make_encoder(conn)
            train(conn, "names", 20, lr_max=0.01)
        with streaming_replica(primary) as replica:
            yield primary, replica


@contextlib.contextmanager
def connected(servers: tuple[Durable, Durable]) -> Iterator[tuple[Connection, Connection]]:
    with servers[0].connect() as primary, servers[1].connect() as replica:
        wait_for_replay(primary, replica)
        yield primary, replica


@pytest.fixture
def pair(servers: tuple[Durable, Durable]) -> Iterator[tuple[Connection, Connection]]:
    """Sessions on the primary and on the replica, which shows all of the primary's."""
    with connected(servers) as both:
        yield both


def answers(conn: Connection) -> list[Any]:
    found = [conn.execute(statement).fetchall() for statement in READS]
    assert all(found)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_a_replica_answers_as_its_primary_does(pair: tuple[Connection, Connection], mode: str) -> None:
    primary, replica = pair
    assert value(replica, "SELECT pg_is_in_recovery()")
    for conn in pair:
        for statement in MODES[mode]:
            conn.execute(statement)
    assert answers(replica) == answers(primary)


def test_a_version_has_one_name_on_both_servers(pair: tuple[Connection, Connection]) -> None:
    names = []
    for _ in range(2):
        mine, theirs = (version(conn, "names") for conn in pair)
        assert mine is not None
        assert mine == theirs
        names.append(mine)
        train(pair[0], "names", 1)
        wait_for_replay(*pair)
    assert names[0] != names[1]


@pytest.mark.parametrize("mode", MODES)
def test_a_read_only_transaction_answers_as_any_does(pair: tuple[Connection, Connection], mode: str) -> None:
    primary, _ = pair
    for statement in MODES[mode]:
        primary.execute(statement)
    with primary.transaction():
        primary.execute("SET TRANSACTION READ ONLY")
        found = answers(primary)
        assert value(primary, "SELECT pg_current_xact_id_if_assigned()") is None
    assert found == answers(primary)


def test_a_stream_on_a_replica_comes_token_by_token(servers: tuple[Durable, Durable]) -> None:
    """A cursor holds its place, and its weights, while the replica replays further training."""
    query = "SELECT token FROM llm_generate_stream('em', 16, 1, 0, 1, 'names', 7)"
    with connected(servers) as (primary, replica):
        whole = replica.execute(query).fetchall()
        with replica.transaction():
            replica.execute(f"DECLARE c CURSOR FOR {query}")
            got = replica.execute("FETCH 2 FROM c").fetchall()
            train(primary, "names", 5, lr_max=0.05)
            # Old rows that the cursor may still need are not vacuumed away below it.
            got += replica.execute("FETCH ALL FROM c").fetchall()
        assert got == whole


def test_a_replicas_session_follows_the_weights(pair: tuple[Connection, Connection]) -> None:
    """What the session holds in memory gives way to each version that arrives."""
    primary, replica = pair
    seen = [answers(replica)]
    for _ in range(2):
        train(primary, "names", 5, lr_max=0.05)
        wait_for_replay(primary, replica)
        seen.append(answers(replica))
        assert seen[-1] == answers(primary)
    assert seen[0] != seen[1] != seen[2]


def test_writing_is_refused(pair: tuple[Connection, Connection]) -> None:
    primary, replica = pair
    before = answers(replica)
    primary.execute("SET default_transaction_read_only = on")
    for conn in pair:
        for statement in WRITES:
            with pytest.raises(errors.ReadOnlySqlTransaction):
                conn.execute(statement)
    assert answers(replica) == before == answers(primary)


def test_the_service_reads_from_a_replica(servers: tuple[Durable, Durable]) -> None:
    results = []
    for durable in servers:
        engine = create_engine(normalize_url(durable.server.url()))
        adapt_engine(engine)
        with Session(engine) as session:
            model = LanguageModel(session, "names")
            generated = model.generate("em", max_tokens=12, seed=7)
            streamed = list(model.stream("em", max_tokens=12, seed=7))
            results.append((generated, streamed, model.perplexity("emma")))
        engine.dispose()
    assert results[0] == results[1]
    assert len(results[0][1]) > 2


def test_a_promoted_replica_trains(servers: tuple[Durable, Durable]) -> None:
    """In the session that read while it was a replica. The last test of this file: the two part here."""
    with connected(servers) as (primary, replica):
        assert answers(replica) == answers(primary)
        assert value(replica, "SELECT pg_promote()")
        for conn in (primary, replica):
            train(conn, "names", 3, lr_max=0.01)
        assert weights(replica, "names") == weights(primary, "names")
        assert answers(replica) == answers(primary)
