"""pg_llm_vector: casts between tensor and pgvector's vector, where pgvector is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors

from ..support.small_models import NAMES, make_encoder, make_names
from ..support.tensors import value

Connection = psycopg.Connection[Any]


@pytest.fixture(params=["public", "elsewhere"])
def vectors(conn: Connection, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A database with pgvector in a schema that need not be on the search path later."""
    installable = "SELECT count(*) FROM pg_available_extensions WHERE name = %s"
    if value(conn, installable, ("vector",)) == 0:
        pytest.skip("this server has no pgvector")
    assert value(conn, installable, ("pg_llm_vector",)) == 1
    conn.execute(f"CREATE SCHEMA IF NOT EXISTS {request.param}")
    conn.execute(f"CREATE EXTENSION vector SCHEMA {request.param}")
    conn.execute(f"SET search_path = public, {request.param}")
    conn.execute("CREATE EXTENSION pg_llm_vector")
    yield conn
    conn.execute("DROP EXTENSION vector CASCADE")


def test_there_and_back(vectors: Connection) -> None:
    numbers = np.array([1.5, -2.25, 3.0e-8, 0.0], dtype=np.float32)
    assert value(vectors, "SELECT '[1.5,-2.25,3]'::tensor::vector::text") == "[1.5,-2.25,3]"
    assert value(vectors, "SELECT '[1.5,-2.25,3]'::vector::tensor::text") == "[1.5,-2.25,3]"
    assert value(vectors, "SELECT (%s::tensor::vector::tensor)", (numbers,)).tolist() == numbers.tolist()
    assert value(vectors, "SELECT NULL::tensor::vector") is None
    assert value(vectors, "SELECT ('[1,2]'::tensor::vector(2))::text") == "[1,2]"


def test_what_no_vector_can_hold(vectors: Connection) -> None:
    for literal in ("[[1,2],[3,4]]", "[NaN]", "[Infinity,1]", "[]"):
        with pytest.raises(errors.DataException):
            vectors.execute(f"SELECT '{literal}'::tensor::vector")
    with pytest.raises(errors.DataException, match="dimensions"):
        vectors.execute("SELECT '[1,2]'::tensor::vector(3)")


def test_casts_are_explicit_and_independent_of_the_search_path(vectors: Connection) -> None:
    vectors.execute("CREATE TABLE embedding (v vector(2), t tensor)")
    try:
        with pytest.raises(errors.DatatypeMismatch):
            vectors.execute("INSERT INTO embedding (v) VALUES ('[1,2]'::tensor)")
        vectors.execute("INSERT INTO embedding VALUES ('[3,4]', '[1,2]')")
        vectors.execute("SET search_path = public")
        assert value(vectors, "SELECT v::tensor::text FROM embedding") == "[3,4]"
        vectors.execute("SET search_path = pg_catalog")
        assert value(vectors, "SELECT CAST(v AS public.tensor)::text FROM public.embedding") == "[3,4]"
    finally:
        vectors.execute("SET search_path = public")
        vectors.execute("DROP TABLE embedding")


def test_nearest_texts(vectors: Connection) -> None:
    make_names(vectors)
    vectors.execute(
        "CREATE TABLE body AS SELECT name, llm_embed_text(name, 'names')::vector(16) AS v"
        " FROM unnest(%s::text[]) name",
        (NAMES,),
    )
    vectors.execute("CREATE INDEX ON body USING hnsw (v vector_l2_ops)")
    nearest = value(
        vectors, "SELECT name FROM body ORDER BY v <-> llm_embed_text('sofia', 'names')::vector LIMIT 1"
    )
    assert nearest == "sofia"
    vectors.execute("DROP TABLE body")


def test_the_embedding_of_a_constant_is_not_made_for_every_row_and_the_index_is_used(
    vectors: Connection,
) -> None:
    make_names(vectors)
    vectors.execute("CREATE TABLE body (id int, e vector(16))")
    vectors.execute(
        "INSERT INTO body SELECT i, pg_llm_normal('{16}', 0, 1, 7, i)::vector(16)"
        " FROM generate_series(1, 3000) i"
    )
    vectors.execute("CREATE INDEX body_e ON body USING hnsw (e vector_l2_ops)")
    vectors.execute("ANALYZE body")
    vectors.execute("SET track_functions = 'all'")
    query = "SELECT id FROM body ORDER BY e <-> llm_embed_text('sofia', model => 'names')::vector LIMIT 3"
    plan = "\n".join(row[0] for row in vectors.execute(f"EXPLAIN {query}"))
    assert "Index Scan using body_e" in plan
    with vectors.transaction():
        found = vectors.execute(query).fetchall()
        calls = value(vectors, "SELECT pg_stat_get_xact_function_calls('llm_embed_text'::regproc)")
    # Once for the index, and once for each row that is returned, whose distance PostgreSQL computes again.
    assert calls == 1 + 3
    assert len(found) == 3
    vectors.execute("DROP TABLE body")


def test_a_search_by_text_uses_the_index_and_embeds_once(vectors: Connection) -> None:
    make_encoder(vectors)
    vectors.execute("CREATE TABLE docs (id int, body text, embedding vector(16), half halfvec(16))")
    try:
        vectors.execute(
            "INSERT INTO docs SELECT i, (%s::text[])[1 + i %% 29] || i FROM generate_series(1, 600) i",
            (NAMES,),
        )
        vectors.execute("CALL llm_embed_missing('docs', 'body', 'embedding', 'enc', batch_rows => 100)")
        vectors.execute("CALL llm_embed_missing('docs', 'body', 'half', 'enc')")
        wrong = (
            "SELECT count(*) FROM docs WHERE embedding IS DISTINCT FROM llm_embed(body, 'enc')::vector(16)"
            " OR half IS DISTINCT FROM llm_embed(body, 'enc')::vector::halfvec(16)"
        )
        assert value(vectors, wrong) == 0
        vectors.execute("CREATE INDEX docs_e ON docs USING hnsw (embedding vector_cosine_ops)")
        vectors.execute("ANALYZE docs")
        vectors.execute("SET track_functions = 'all'")
        query = (
            "SELECT body FROM docs ORDER BY embedding <=> llm_embed('sofia3', model => 'enc')::vector LIMIT 5"
        )
        plan = "\n".join(row[0] for row in vectors.execute(f"EXPLAIN {query}"))
        assert "Index Scan using docs_e" in plan
        with vectors.transaction():
            found = [row[0] for row in vectors.execute(query)]
            calls = value(vectors, "SELECT pg_stat_get_xact_function_calls('llm_embed_bert'::regproc)")
        assert len(found) == 5
        assert calls == 1
        vectors.execute(
            "CREATE TRIGGER keep BEFORE INSERT OR UPDATE ON docs FOR EACH ROW"
            " EXECUTE FUNCTION llm_embed_column('body', 'embedding', 'enc')"
        )
        vectors.execute("UPDATE docs SET body = 'emma' WHERE id = 1")
        vectors.execute("SET search_path = pg_catalog")
        vectors.execute("UPDATE public.docs SET body = 'mia' WHERE id = 2")
        vectors.execute("CALL public.llm_embed_missing('public.docs', 'body', 'embedding', 'enc')")
        vectors.execute("RESET search_path")
        vectors.execute("SET search_path = public, elsewhere")
        assert (
            value(vectors, "SELECT count(*) FROM docs WHERE embedding <> llm_embed(body, 'enc')::vector") == 0
        )
        vectors.execute("ALTER TABLE docs ADD COLUMN other vector(15)")
        with pytest.raises(errors.DataException, match="dimensions"):
            vectors.execute("CALL llm_embed_missing('docs', 'body', 'other', 'enc')")
    finally:
        vectors.execute("SET search_path = public, elsewhere")
        vectors.execute("DROP TABLE docs")
