"""Who may run what: everybody what computes with given values, our roles what they need."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

# What a role without any grant of ours may run: the type and its ops, on values it has.
COMPUTES = re.compile(
    r"tensor|shape|ndims|norm|sum|avg|pg_llm_tensor_(?!id\b)\w+"
    r"|pg_llm_(item|full|normal|uniform|zeros_like|ones_like)"
    r"|pg_llm_(sum_accum|sum_final|avg_final)"
    r"|pg_llm_(attention|activation)(_backward)?|pg_llm_apply"
    r"|pg_llm_(add|sub|mul|div)_number|pg_llm_number_(add|sub|mul|div)"
    r"|pg_llm_(sample|penalize|top_tokens|adamw_step|grad_clip|lr_schedule|megatron_order)"
)
OPS = "SELECT DISTINCT 'pg_llm_' || name || suffix FROM pg_llm_ops(), (VALUES (''), ('_backward')) v (suffix)"


def computing(database) -> Callable[[str], bool]:
    ops = {name for (name,) in database.execute(OPS)}
    return lambda name: name in ops or COMPUTES.fullmatch(name) is not None


# What readers may not run, beside files of the server: claim to train, keep others from training.
NOT_READERS = re.compile(
    r"pg_llm_(read_file|file_(?!write)\w+|checkpoint_\w+|progress|progress_clear|(try|hold)_lock|arena_(adamw|saved|keep))"
)
# Trainers neither: what tells of files of the server, or of other databases.
NOT_TRAINERS = re.compile(r"pg_llm_(read_file|checkpoint_(files|name|orphans))")
ROUTINES = """
SELECT p.oid::regprocedure::text, p.proname, l.lanname IN ('c', 'internal'),
    has_function_privilege('{nobody}', p.oid, 'EXECUTE'),
    has_function_privilege('llm_reader', p.oid, 'EXECUTE'),
    has_function_privilege('llm_trainer', p.oid, 'EXECUTE')
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'public'::regnamespace
"""
EXAMPLES = [
    "SELECT '[1,2]'::tensor + '[3,4]' = '[4,6]'",
    "SELECT pg_llm_sample('[1,9]'::tensor, 0) = 1",
    "SELECT norm(sum(t)) > 0 FROM (VALUES ('[3,4]'::tensor)) v (t)",
    "SELECT pg_llm_lr_schedule(1, 0, 10, 0.5) = 0.5",
]
REFUSED = [
    "SELECT pg_llm_progress('spoofed', 999, 123, 1000, 0.01, 1e-3, 5)",
    "SELECT * FROM pg_llm_train_progress()",
    r"SELECT pg_llm_arena_open('x', '\x00', false)",
    "SELECT pg_llm_gen_open('x', '{1}', 8)",
    "SELECT pg_llm_bpe_create('x', 'y')",
    "SELECT pg_llm_batch(10, 1, 0, 2)",
    "SELECT pg_llm_permutation(10, 1, 0)",
    "SELECT pg_llm_try_lock('llm_model_config', 't')",
    "SELECT pg_llm_set_recording(true)",
    "SELECT pg_llm_pass_begin(1, 1, 1)",
    "SELECT pg_llm_tape_clear()",
    "SELECT pg_llm_release()",
    "SELECT pg_llm_bpe_learn('abab', 1, 1)",
    "SELECT llm_require(true, '')",
    "SELECT * FROM llm_windows(3, 2, 1)",
    "UPDATE llm_autograd_mode SET flag = true",
    "SELECT flag FROM llm_autograd_mode",
    "CALL llm_train_resume(1)",
]


@pytest.fixture
def nobody(at_head):
    name = f"nobody_{at_head.name}"
    at_head.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    at_head.execute(f"DROP ROLE {name}")


def test_every_function_is_in_one_class(at_head, nobody):
    found = at_head.execute(ROUTINES.format(nobody=nobody))
    assert len(found) > 300
    computes = computing(at_head)
    wrong = [
        signature
        for signature, name, is_c, by_nobody, by_reader, by_trainer in found
        if (by_nobody, by_reader, by_trainer)
        != (
            is_c and computes(name),
            not (is_c and NOT_READERS.fullmatch(name)),
            NOT_TRAINERS.fullmatch(name) is None,
        )
    ]
    assert wrong == []


def test_an_extension_without_our_migrations_is_closed_too(empty):
    empty.execute("CREATE EXTENSION pg_llm")
    query = (
        "SELECT p.oid::regprocedure::text, p.proname FROM pg_proc p"
        " WHERE p.pronamespace = 'public'::regnamespace"
        " AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0))"
    )
    computes = computing(empty)
    assert [s for s, name in empty.execute(query) if not computes(name)] == []


def test_what_nobody_may(at_head, nobody):
    with at_head.connect(user=nobody) as outsider:
        for statement in EXAMPLES:
            assert outsider.execute(statement).fetchall() == [(True,)], statement
        for statement in REFUSED:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                outsider.execute(statement)


def test_readers_neither_claim_to_train_nor_keep_others_from_it(at_head, nobody):
    at_head.execute(f"GRANT llm_reader TO {nobody}")
    with at_head.connect(user=nobody) as reader:
        for statement in (
            REFUSED[0],
            "SELECT pg_llm_try_lock('llm_model_config', 't')",
            "SELECT llm_lock_model('t')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement)
        assert reader.execute("SELECT count(*) FROM llm_train_progress").fetchall() == [(0,)]
        reader.execute("UPDATE llm_autograd_mode SET flag = true")


def test_a_strangers_advisory_lock_keeps_nobody_from_training(at_head, nobody):
    at_head.execute("SELECT llm_create_model('t', 'microgpt', vocab => 5)")
    at_head.execute("INSERT INTO llm_dataset (model, tokens, target) VALUES ('t', '{0,1,2}', '{1,2,3}')")
    with at_head.connect(user=nobody) as outsider:
        outsider.execute("SELECT pg_advisory_lock(hashtextextended('llm_sql:t', 0))")
        at_head.execute("SELECT llm_train('t', 1, log_every => 0)")
        with at_head.connect() as trainer, trainer.transaction():
            trainer.execute("SELECT llm_lock_model('t')")
            with pytest.raises(psycopg.errors.LockNotAvailable, match=f"process {trainer.info.backend_pid}"):
                at_head.execute("SELECT llm_train('t', 1, log_every => 0)")
    at_head.execute("SELECT llm_train('t', 1, log_every => 0)")


@pytest.fixture
def hardened(empty):
    """A database that takes new functions from PUBLIC, before anything of ours is there."""
    empty.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    empty.upgrade()
    names = []
    for role in ("llm_reader", "llm_trainer"):
        names.append(f"{role}_of_{empty.name}")
        empty.execute(f"CREATE ROLE {names[-1]} LOGIN IN ROLE {role}")
    yield empty, *names
    for name in names:
        empty.execute(f"DROP ROLE {name}")
    empty.execute("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC")


def test_a_hardened_database(hardened):
    database, reader_name, trainer_name = hardened
    database.check()
    documents = "$$VALUES ('abc'), ('bca'), ('cab'), ('aab')$$"
    with database.connect(user=trainer_name) as trainer:
        trainer.execute(f"SELECT llm_build_char_tokenizer('t', {documents})")
        trainer.execute("SELECT llm_create_model('t', 'gpt2', 1, 1, 8, 8)")
        trainer.execute(f"SELECT llm_fill_dataset('t', {documents}, validation => 0.3)")
        trainer.execute("SELECT llm_train('t', 1, log_every => 0)")
        trainer.execute("CALL llm_train_loop('t', 2, 1, log_every => 0)")
        trainer.execute("SELECT llm_checkpoint_load('t', llm_checkpoint_save('t'))")
        trainer.execute(f"SELECT llm_train_bpe('b', {documents}, 258)")
        assert trainer.execute("SELECT count(*) FROM llm_sql_version").fetchall() == [(1,)]
    with database.connect(user=reader_name) as reader:
        for statement in (
            "SELECT llm_generate('a', 3, model => 't') IS NOT NULL",
            "SELECT count(*) > 0 FROM llm_generate_stream('a', 3, model => 't')",
            "SELECT count(*) > 0 FROM llm_beam_search('a', 2, 2, 't')",
            "SELECT nll > 0 FROM llm_evaluate('t')",
            "SELECT llm_perplexity('t', 'abc') > 0",
            "SELECT norm(llm_embed_text('abc', 't')) > 0",
            "SELECT ndims(llm_logits('{0,1}', 't')) = 2",
            "SELECT llm_encode('ab', 'b') IS NOT NULL",
            "SELECT count(*) > 0 FROM llm_param_er",
            "SELECT count(*) > 0 FROM llm_train_status",
            "SELECT count(*) = 1 FROM llm_sql_version",
            *EXAMPLES,
        ):
            assert reader.execute(statement).fetchall() == [(True,)], statement
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("SELECT llm_train('t', 1)")
    database.downgrade()
