"""The catalogue of SQL functions: that it is the database's, and what calls compile to and return."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.orm import Session

from llm_sql import functions
from llm_sql.models import Dataset, codegen
from llm_sql.models.arguments import LISTS, Argument, Check
from llm_sql.models.forms import expand
from llm_sql.sql_function import RowsFunction, Signature, SqlFunction

from ..support.pages import PAGES

DIALECT = psycopg_dialect.dialect()  # type: ignore[attr-defined]

CATALOG = """
    SELECT
        (
            SELECT coalesce(string_agg(
                a.name || ' ' || format_type(a.type, NULL)
                    || CASE WHEN a.i > p.pronargs - p.pronargdefaults THEN '?' ELSE '' END,
                ', ' ORDER BY a.i
            ), '')
            FROM unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) WITH ORDINALITY a (name, type, i)
        ),
        coalesce(
            (
                SELECT '(' || string_agg(o.name || ' ' || format_type(o.type, NULL), ', ' ORDER BY o.i) || ')'
                FROM unnest(p.proargnames, p.proallargtypes, p.proargmodes)
                    WITH ORDINALITY o (name, type, mode, i)
                WHERE o.mode IN ('o', 't')
            ),
            CASE p.prokind WHEN 'p' THEN 'void' ELSE format_type(p.prorettype, NULL) END
        )
    FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.proname = %s
"""


@pytest.mark.parametrize("function", functions.FUNCTIONS, ids=lambda f: f.name)
def test_signatures_are_the_databases(conn: psycopg.Connection[Any], function: SqlFunction) -> None:
    found = {Signature.read(*row) for row in conn.execute(CATALOG, (function.name,)).fetchall()}
    assert found == set(function.signatures)
    assert isinstance(function, RowsFunction) == all(s.returns.startswith("(") for s in found)


@pytest.mark.parametrize("function", functions.FUNCTIONS, ids=lambda f: f.name)
def test_functions_are_named_and_described(function: SqlFunction) -> None:
    assert getattr(functions, function.name) is function
    assert getattr(functions, function.name.removeprefix("pg_").removeprefix("llm_")) is function
    assert function.__doc__


def test_what_is_written_from_the_declarations_is_current() -> None:
    """python -m llm_sql.migrations.freeze writes it anew."""
    stale = [name for name, text in codegen.files().items() if (codegen.HERE / name).read_text() != text]
    assert stale == []


def test_lists_of_arguments_are_written_out_as_the_mark_is_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Argument("size", "int", "3", "how many", (Check("size > 0", "be positive"),))
    kind = Argument("kind", "text", "'a'", "which", choices=("a", "b", "c"))
    monkeypatch.setitem(LISTS, "some", (size, kind))
    assert expand("f(\n    {{ some.parameters }},\n    x int)") == (
        "f(\n    size int DEFAULT 3,\n    kind text DEFAULT 'a',\n    x int)"
    )
    assert expand("    VALUES {{ some.checks }}") == (
        "    VALUES ('size', size > 0, 'be positive', size::text),\n"
        "    ('kind', kind IN ('a', 'b', 'c'), 'be a, b or c', kind::text)"
    )
    assert expand("{{ some.pairs }} {{ some") == "'size', size, 'kind', kind {{ some"
    with pytest.raises(KeyError):
        expand("{{ unheard.names }}")


# What people call for training, tokenizers, generation and weights; CALL runs the procedures.
CONTRACT = """
    llm_create_model llm_init_model llm_drop_model llm_loss llm_logits llm_forward_gpt2 llm_forward_gpt3
    llm_forward_microgpt llm_train llm_train_step llm_materialize_params llm_backprop llm_accumulate_grads
    llm_prune_autograd_state llm_finetune llm_evaluate llm_perplexity pg_llm_load_bpe_vocab
    pg_llm_load_bpe_merges llm_encode llm_decode llm_build_char_tokenizer llm_train_bpe llm_fill_dataset
    llm_generate llm_generate_stream llm_beam_search llm_embed llm_embed_text
    pg_llm_import_npz pg_llm_export_npz
    pg_llm_import_safetensors pg_llm_export_safetensors llm_checkpoint_save llm_checkpoint_load
"""


def test_nothing_people_call_is_missing(conn: psycopg.Connection[Any]) -> None:
    """The contract's functions, and every function of the schema that README and docs show a call of."""
    shown = {name for page in PAGES for name in re.findall(r"\b(llm_\w+)\(", page.read_text())}
    installed = {
        name
        for (name,) in conn.execute(
            # Nobody calls a trigger's function.
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'"
            " AND prorettype <> 'trigger'::regtype"
        )
    }
    contract = set(CONTRACT.split())
    catalogue = {function.name for function in functions.FUNCTIONS}
    assert contract <= installed
    assert (contract | (shown & installed)) - catalogue == set()


def compiled(expression: Any) -> str:
    return " ".join(str(sa.select(expression).compile(dialect=DIALECT)).split())


def test_only_what_is_given_is_sent_and_by_name() -> None:
    assert compiled(functions.llm_generate("a", temperature=0)) == (
        "SELECT public.llm_generate(prompt => CAST(%(param_1)s::VARCHAR AS TEXT), temperature => "
        "CAST(%(param_2)s AS DOUBLE PRECISION)) AS llm_generate_1"
    )


def test_a_procedure_is_called() -> None:
    call = functions.llm_train_loop("m", 5, lr_max=1)
    assert str(call.compile(dialect=DIALECT)) == (
        "CALL public.llm_train_loop(model => CAST(%(param_1)s::VARCHAR AS TEXT),"
        " n_steps => CAST(%(param_2)s::INTEGER AS INTEGER), lr_max => CAST(%(param_3)s AS DOUBLE PRECISION))"
    )


def test_columns_are_sent_as_they_are() -> None:
    text = compiled(functions.loss("m", Dataset.tokens, Dataset.target))
    assert "tokens => public.llm_dataset.tokens, targets => public.llm_dataset.target" in text
    assert text.endswith("FROM public.llm_dataset")


def test_rows_stand_in_from() -> None:
    rows = functions.llm_evaluate("m")
    text = " ".join(str(sa.select(rows.c.tokens).compile(dialect=DIALECT)).split())
    assert text == (
        "SELECT anon_1.tokens FROM public.llm_evaluate(model => CAST(%(param_1)s::VARCHAR AS TEXT)) AS anon_1"
    )


def test_the_overload_is_chosen_by_the_arguments() -> None:
    assert "prompt =>" in compiled(functions.llm_generate("a"))
    assert "prompts =>" in compiled(functions.llm_generate(["a", "b"]))
    assert "prompts =>" in compiled(functions.llm_generate(prompts=["a"]))
    assert "prompts =>" in compiled(functions.llm_generate(sa.func.array_agg(sa.column("t", sa.Text))))
    assert isinstance(functions.llm_generate(["a"]).type, sa.ARRAY)
    assert "n_layer =>" in compiled(functions.llm_loss("m", [1], [2], 1, 1, 4, 5))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("a",), {"prompt": "b"}),
        (("a",), {"unknown": 1}),
        ((3,) * 20, {}),
        ((["a"],), {"prompts": ["b"]}),
        ((["a"],), {"max_tokens": [1]}),
    ],
)
def test_arguments_that_fit_no_signature_are_a_type_error(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match="llm_generate has no parameter 'tempurature': call llm_generate"):
        functions.llm_generate("a", tempurature=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"llm_generate\(prompt, max_tokens\?"):
        functions.llm_generate(*args, **kwargs)


def test_statements_share_a_cache_entry_unless_names_differ() -> None:
    def key(expression: Any) -> Any:
        found = sa.select(expression)._generate_cache_key()
        assert found is not None
        return found.key

    assert key(functions.llm_generate("a", top_k=1)) == key(functions.llm_generate("b", top_k=2))
    assert key(functions.llm_generate("a", top_k=1)) != key(functions.llm_generate("a", max_tokens=1))


def test_calls_reach_the_database(session: Session) -> None:
    count = session.scalar(sa.select(functions.create_model("m", "microgpt", n_positions=8, vocab=5, seed=3)))
    assert count == 2 * 5 * 16 + 8 * 16 + 4 * 16 * 16 + 2 * 16 * 64
    tokens = np.array([0, 1, 2])
    logits = session.scalar(sa.select(functions.logits(tokens, "m")))
    assert logits is not None
    assert logits.shape == (3, 5)
    loss = session.scalar(sa.select(functions.loss("m", (0, 1, 2), [1, 2, 3])))
    forward = session.scalar(sa.select(functions.forward("m", tokens, targets=[1, 2, 3]).cast(sa.Double)))
    assert loss == pytest.approx(forward)
    session.add(Dataset(model="m", split="validation", tokens=[0, 1], target=[1, 2]))
    session.flush()
    row = session.execute(sa.select(*functions.evaluate("m").c)).one()
    assert row.tokens == 2
    assert row.perplexity == pytest.approx(np.exp(row.nll))
    parameters = functions.parameters("m")
    assert session.scalar(sa.select(sa.func.count()).select_from(parameters)) == 9
    joined = sa.select(Dataset.id, functions.loss("m", Dataset.tokens, Dataset.target))
    assert session.execute(joined).one()[1] == pytest.approx(row.nll)
    session.execute(sa.select(functions.drop_model("m")))
