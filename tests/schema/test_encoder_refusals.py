"""What is for models that predict tokens refuses an encoder by name; every such function is sorted here."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.small_models import Connection, make_encoder, make_names

# How each is called with an encoder; each says that it is one.
REFUSE = {
    "llm_beam_search": "('emma', model => 'enc')",
    "llm_evaluate": "('enc', 'train')",
    "llm_fill_dataset": "('enc', 'SELECT ''emma''')",
    "llm_finetune": "('enc', 'SELECT ''emma''', 1)",
    "llm_generate": "('emma', model => 'enc')",
    "llm_generate_stream": "('emma', model => 'enc')",
    "llm_generate_together": "(ARRAY['emma'], 3, 1, 0, 1, 'enc', 1, NULL, false, 1, 0, 0)",
    "llm_generation_open": "('emma', 'enc')",
    "llm_log_evaluation": "('enc', 'train')",
    "llm_logits": "('{1,2}', 'enc')",
    "llm_perplexity": "('enc', 'emma')",
    "llm_embed_text": "('emma', 'enc')",
}
# These refuse a decoder.
OF_ENCODERS = {
    "llm_embed_sequences": "('names', '{1,2}', '{2}')",
    "llm_contrastive_loss": "('names', '{{1,2},{1,2}}', '{{0,1},{0,1}}')",
    "llm_fill_pairs": "('names', 'SELECT ''a'', ''b''')",
    "llm_recall": "('names', 'train')",
}
# Parts of generation: they take a handle, which an encoder never gets, or are called by those above.
WITH_A_HANDLE = {
    "llm_generation_begin",
    "llm_generation_logits",
    "llm_generation_next",
    "llm_generation_pass",
    "llm_generations_logits",
    "llm_beam_advance",
    "llm_beam_candidates",
}


@pytest.mark.parametrize("name", REFUSE)
def test_an_encoder_is_refused_by_name(conn: Connection, name: str) -> None:
    make_encoder(conn)
    with pytest.raises(errors.FeatureNotSupported, match=r'"enc" \(bert\) is an encoder') as refused:
        conn.execute(f"SELECT * FROM {name}{REFUSE[name]}")
    assert refused.value.diag.message_hint


def test_an_array_of_prompts_is_refused_too(conn: Connection) -> None:
    make_encoder(conn)
    for prompts in ("ARRAY['emma']", "'{}'::text[]"):
        with pytest.raises(errors.FeatureNotSupported, match="encoder"):
            conn.execute(f"SELECT llm_generate({prompts}, model => 'enc')")


@pytest.mark.parametrize("name", OF_ENCODERS)
def test_a_decoder_is_refused_by_name(conn: Connection, name: str) -> None:
    make_names(conn)
    with pytest.raises(
        (errors.FeatureNotSupported, errors.InvalidParameterValue), match="encoder"
    ) as refused:
        conn.execute(f"SELECT * FROM {name}{OF_ENCODERS[name]}")
    assert '"names" (gpt2)' in str(refused.value)


def functions_of_a_model(conn: Connection) -> dict[str, list[Any]]:
    rows = conn.execute(
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND proname ~ '^llm_(generat|beam|logits|perplexity|evaluat|log_eval|finetune|fill_|embed_text)'"
    ).fetchall()
    return {name: [] for (name,) in rows}


def test_none_is_forgotten(conn: Connection) -> None:
    """Whatever generates, scores, fits or embeds text by its tokens is sorted above."""
    sorted_here = {
        *REFUSE,
        *OF_ENCODERS,
        *WITH_A_HANDLE,
        "llm_embed_texts",
        "llm_finetune_name",
        "llm_evaluation_batches",
    }
    assert set(functions_of_a_model(conn)) - sorted_here == set()
    names = {row[0] for row in conn.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'llm\\_%'")}
    assert {*REFUSE, *OF_ENCODERS, *WITH_A_HANDLE} - names == set()


def test_what_has_nothing_to_do_with_tokens_works(conn: Connection) -> None:
    make_encoder(conn)
    for statement in (
        "SELECT * FROM llm_parameters('enc')",
        "SELECT llm_hidden('enc', '{1,2}')",
        "SELECT llm_forward('enc', '{1,2}')",
        "SELECT llm_copy_model('enc', 'other')",
        "SELECT llm_rename_model('other', 'another')",
        "SELECT llm_decode(llm_encode('emma', 'another'), 'another')",
        "SELECT llm_init_model('another', 3)",
        "SELECT * FROM llm_write_cost('another', 'training')",
        "SELECT llm_weight('another', 'wte.weight')",
        "SELECT llm_drop_model('another')",
    ):
        conn.execute(statement)
    with pytest.raises(psycopg.Error):
        conn.execute("SELECT llm_embed('emma', 'another')")
