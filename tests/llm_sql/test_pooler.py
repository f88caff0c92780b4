"""Behind PgBouncer in transaction mode: no statement may count on the server that the one before it had."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from llm_sql import LanguageModel
from llm_sql.bench.pooler import find_pgbouncer, pooler
from llm_sql.client import PGLLMClient

from ..cli.test_settings import command_line, every_command
from ..support.small_models import make_model, names_query

Connection = psycopg.Connection[Any]
SERVERS = 2


@pytest.fixture
def pooled(server: Any, fresh_database: str, tmp_path: Path) -> Iterator[str]:
    """The database's URL through PgBouncer, whose two servers other clients have prepared statements on."""
    program = find_pgbouncer()
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    if os.geteuid() == 0:  # it refuses to run as root, and its account must get there
        for path in (tmp_path, *tmp_path.parents):
            if str(path) != "/tmp" and str(path).startswith("/tmp/"):
                path.chmod(0o755)
    folder = tmp_path / "pooler"
    folder.mkdir()
    with pooler(program, server.url(fresh_database), folder, SERVERS) as url:
        # Both servers hold statements of the names that psycopg gives.
        with psycopg.connect(url) as one, psycopg.connect(url) as two:
            for connection in (one, two):
                for number in range(4):
                    connection.execute(f"SELECT {number}", prepare=True)  # type: ignore[call-overload]
        yield url


def test_commands_and_clients_behind_a_pooler(pooled: str, tmp_path: Path) -> None:
    every_command(command_line(pooled), tmp_path)
    options: dict[str, Any] = {"model": "c", "max_tokens": 5, "seed": 1}
    for autocommit in (True, False):
        with psycopg.connect(pooled, autocommit=autocommit) as connection:
            client = PGLLMClient(connection)
            for _ in range(8):
                text = client.generate("the ", **options)
                assert [e.text for e in client.stream("the ", **options)][-1] == text
                client.beam_search("the ", model="c", max_tokens=2)
    engine = create_engine(pooled, connect_args={"prepare_threshold": None})
    with Session(engine) as session:
        lm = LanguageModel(session, "c")
        reports: list[Any] = []
        lm.train(3, log_every=0, progress=reports.append)
        session.commit()
        lm.train(3, log_every=0, commit_every=1, progress=reports.append)
        for _ in range(8):
            lm.generate("the ", max_tokens=4, seed=1)
            session.commit()
    engine.dispose()
    # An engine of the user's that prepares: what takes many statements still works.
    engine = create_engine(pooled)
    with Session(engine) as session:
        LanguageModel(session, "c").export_weights(tmp_path / "w.npz")
        LanguageModel(session, "c").import_weights(tmp_path / "w.npz")
        session.commit()
    engine.dispose()


# What a client gets depends on its arguments and on what it sets for its transaction.
PRECISIONS = ("float32", "bf16", "int8", "int4")
TOKENS = """SELECT string_agg(s.token_id::text, ',' ORDER BY s.step) || llm_embed_text('ma', 'm')::text
FROM llm_generate_stream('ma', 12, temperature => %(temperature)s, top_k => %(top_k)s, seed => %(seed)s) s"""
SETTINGS = "SELECT name, setting FROM pg_settings WHERE name LIKE 'pg_llm.%' AND source = 'session'"
LEFT_BEHIND = f"""
SELECT 'setting ' || s.name || ' = ' || s.setting FROM ({SETTINGS}) s
UNION ALL SELECT 'lock ' || locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
UNION ALL SELECT 'cursor ' || name FROM pg_cursors
UNION ALL SELECT 'table ' || relname FROM pg_class WHERE pg_my_temp_schema() = relnamespace
UNION ALL SELECT 'recording' WHERE pg_llm_recording()
"""


def make_names(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SELECT llm_build_char_tokenizer('m', %s)", (names_query(),))
        vocab = conn.execute("SELECT count(*) FROM llm_bpe_vocab WHERE model = 'm'").fetchone()
        assert vocab is not None
        make_model(conn, "m", d_model=32, n_positions=32, vocab=vocab[0])
        conn.execute("SELECT llm_fill_dataset('m', %s)", (names_query(),))


def drawn(conn: Connection, number: int) -> str:
    """A transaction of client `number`: its precision, its sampling, its seed."""
    settings = {"temperature": 1 + number / 10, "top_k": 4 + number % 4, "seed": number}
    with conn.transaction():
        conn.execute(f"SET LOCAL pg_llm.weights = '{PRECISIONS[number % 4]}'")  # type: ignore[call-overload]
        row = conn.execute(TOKENS, settings).fetchone()
    assert row is not None
    return str(row[0])


def unpooled(url: str) -> Connection:
    return psycopg.connect(url, autocommit=True, prepare_threshold=None)


def left_behind(url: str) -> dict[int, list[str]]:
    """By server, all of which are held at once: what clients before left on it."""
    with unpooled(url) as one, unpooled(url) as two:
        found = {}
        for conn in (one, two):
            conn.execute("BEGIN")
            found[conn.execute("SELECT pg_backend_pid()").fetchone()[0]] = [  # type: ignore[index]
                row[0] for row in conn.execute(LEFT_BEHIND)
            ]
        return found


def test_twenty_clients_get_what_they_asked_for(pooled: str, server: Any, fresh_database: str) -> None:
    make_names(pooled)
    with unpooled(server.url(fresh_database)) as conn:
        expected = [drawn(conn, number) for number in range(20)]
    assert len(set(expected)) == 20
    clients = [unpooled(pooled) for _ in range(20)]

    def ask(number: int) -> list[str]:
        return [drawn(clients[number], number) for _ in range(6)]

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == [[text] * 6 for text in expected]
    for client in clients:
        client.close()
    assert list(left_behind(pooled).values()) == [[], []]


def test_streams_side_by_side(pooled: str, server: Any, fresh_database: str) -> None:
    make_names(pooled)
    stream = "SELECT token_id FROM llm_generate_stream('ma', 20, seed => {seed}, top_p => 1, top_k => 0)"
    with unpooled(server.url(fresh_database)) as conn:
        expected = [list(conn.execute(stream.format(seed=seed))) for seed in (1, 2)]  # type: ignore[arg-type]
    with unpooled(pooled) as one, unpooled(pooled) as two, unpooled(pooled) as lost:
        rows: list[list[Any]] = [[], []]
        for seed, conn in ((1, one), (2, two)):
            conn.execute("BEGIN")
            conn.execute(f"DECLARE tokens NO SCROLL CURSOR FOR {stream.format(seed=seed)}")  # type: ignore[call-overload]
        for _ in range(20):
            for place, conn in enumerate((one, two)):
                rows[place] += conn.execute("FETCH 1 FROM tokens")
        assert rows == expected
        for conn in (one, two):
            conn.execute("COMMIT")
        # A client that goes away in the middle of its text leaves nothing to the next one on its server.
        lost.execute("BEGIN")
        lost.execute(f"DECLARE tokens NO SCROLL CURSOR FOR {stream.format(seed=3)}")  # type: ignore[call-overload]
        lost.execute("FETCH 2 FROM tokens")
        lost.close()
        for seed, conn in ((1, one), (2, two), (2, one), (1, two)):
            assert list(conn.execute(stream.format(seed=seed))) == expected[seed - 1]  # type: ignore[arg-type]
    assert list(left_behind(pooled).values()) == [[], []]


def test_nothing_stays_with_a_server(pooled: str) -> None:
    """Whatever was called, and however it ended: a SET would meet the next client."""
    make_names(pooled)
    calls = [
        "SELECT llm_train('m', 2, batch_size => 2, log_every => 0)",
        "CALL llm_train_loop('m', 2, commit_every => 1, batch_size => 2, log_every => 0)",
        "SELECT llm_generate('ma', 4, model => 'm', temperature => -1)",
        "SELECT llm_generate(ARRAY['ma', 'jo'], 4, model => 'm')",
        "SELECT llm_logits(llm_encode('ma', 'm'), 'm', n_layer => 7)",
        "SELECT llm_evaluate('m')",
        "SELECT llm_train('m', 2, batch_size => 2, lr_max => 'NaN')",
        "SELECT llm_embed_text('ma', 'm') IS NOT NULL",
        "SELECT llm_beam_search('ma', 2, 3, 'm')",
        "SELECT llm_finetune('m', 'n', 'SELECT 1', 1)",
        "SELECT llm_init_model('m')",
    ]
    with unpooled(pooled) as conn:
        for call in calls * 2:
            with contextlib.suppress(psycopg.Error):
                conn.execute(call)  # type: ignore[call-overload]
    found = left_behind(pooled)
    assert len(found) == SERVERS
    assert list(found.values()) == [[], []]
