"""A model published by one server, subscribed to by another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from psycopg import sql

from .durable import Durable
from .small_models import Connection
from .tensors import value
from .waiting import wait_for

# Of a subscription's tables, those whose rows are not all there.
WAITING = """SELECT srrelid::regclass::text
FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
WHERE s.subname = %s AND srsubstate <> 'r' ORDER BY 1"""


def make_follower(publisher: Connection) -> None:
    """The role that subscriptions connect as, with what it needs and no more."""
    publisher.execute("CREATE ROLE follower LOGIN REPLICATION")
    publisher.execute("GRANT SELECT (model, name, token_id, data, step, updated_at) ON llm_param TO follower")
    publisher.execute(
        "GRANT SELECT ON llm_model_config, llm_adapter, llm_bpe_vocab, llm_bpe_merges, llm_tokenizer"
        " TO follower"
    )


def subscribe(publisher: Durable, subscriber: Connection, model: str, name: str = "served") -> None:
    statement = sql.SQL(
        "CREATE SUBSCRIPTION {name} CONNECTION {address} PUBLICATION {publication} WITH (binary = true)"
    ).format(
        name=sql.Identifier(name),
        address=sql.Literal(publisher.server.url(user="follower")),
        publication=sql.Identifier(str(value(subscriber, "SELECT llm_publication(%s)", (model,)))),
    )
    subscriber.execute(statement)


def waiting(subscriber: Connection, name: str = "served") -> list[str]:
    return [row[0] for row in subscriber.execute(WAITING, (name,)).fetchall()]


def wait_for_copy(subscriber: Connection, name: str = "served") -> None:
    wait_for(lambda: not waiting(subscriber, name), "the copy")


def wait_for_apply(publisher: Connection, subscriber: Connection, name: str = "served") -> None:
    """Until the subscriber has applied all that the publisher has committed."""
    written = value(publisher, "SELECT pg_current_wal_flush_lsn()")
    # The worker of a subscription that has copied everything is the one without a table.
    applied = (
        "SELECT latest_end_lsn >= %s::pg_lsn FROM pg_stat_subscription WHERE subname = %s AND relid IS NULL"
    )
    wait_for(lambda: value(subscriber, applied, (written, name)), "the apply")


def unsubscribe(subscriber: Connection, name: str = "served") -> None:
    subscriber.execute(sql.SQL("DROP SUBSCRIPTION IF EXISTS {}").format(sql.Identifier(name)))


@contextlib.contextmanager
def subscribed(
    publisher: Durable, subscriber: Connection, model: str, name: str = "served"
) -> Iterator[None]:
    """A subscription whose copy is complete; dropped afterwards, and the model with it."""
    subscribe(publisher, subscriber, model, name)
    try:
        wait_for_copy(subscriber, name)
        yield
    finally:
        unsubscribe(subscriber, name)
        forget(subscriber, model)


def forget(conn: Connection, model: str) -> None:
    """Whatever there is of the model."""
    tables = "llm_param llm_adapter llm_tokenizer llm_bpe_merges llm_bpe_vocab llm_model_config"
    for table in tables.split():
        conn.execute(sql.SQL("DELETE FROM {} WHERE model = %s").format(sql.Identifier(table)), (model,))
