"""How much of a kind is tried: `make test` takes a share of it, LLM_SQL_EXTENDED=1 in the environment all.

CI runs `LLM_SQL_EXTENDED=1 pytest -m extended` once beside `make test` (.ci/extended.sh).
LLM_SQL_FIRST_CASES=1 takes the first case of each test alone: for a PostgreSQL between two on which all run
(.ci/servers.sh).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

EXTENDED = bool(os.environ.get("LLM_SQL_EXTENDED"))
FIRST_CASES = bool(os.environ.get("LLM_SQL_FIRST_CASES"))

# A test that tries more when EXTENDED.
grows = pytest.mark.extended
_skip = pytest.mark.skipif(not EXTENDED, reason="LLM_SQL_EXTENDED=1 runs it")


def extended(test: Test) -> Test:
    """Only EXTENDED runs this test."""
    marked: Test = pytest.mark.extended(_skip(test))
    return marked


def only_extended(*values: object, id: str | None = None) -> Any:
    """A case that only EXTENDED runs, among a test's others."""
    return pytest.param(*values, id=id, marks=[pytest.mark.extended, _skip])


# Files of many cases that take some seconds: `make test` runs the first case of each of their tests.
BROAD = (
    "cli/test_embedded.py",
    "cli/test_interrupts.py",
    "cli/test_settings.py",
    "cli/test_start.py",
    "cli/test_weight_commands.py",
    "extension/test_bf16.py",
    "extension/test_bytea_ops.py",
    "extension/test_cursors.py",
    "extension/test_file_queries.py",
    "extension/test_identity.py",
    "extension/test_ops.py",
    "extension/test_roles_and_memory.py",
    "extension/test_same_bits.py",
    "extension/test_sequences.py",
    "extension/test_state_order.py",
    "extension/test_stopped_kernels.py",
    "extension/test_tensor_storage.py",
    "extension/test_weights_setting.py",
    "graph/test_forward.py",
    "graph/test_functions.py",
    "graph/test_ops.py",
    "kernels/test_bpe.py",
    "kernels/test_formats.py",
    "kernels/test_fuzz_corpus.py",
    "kernels/test_pre_tokenizers.py",
    "kernels/test_quantized.py",
    "kernels/test_same_bits.py",
    "llm_sql/test_arrays.py",
    "llm_sql/test_bench.py",
    "llm_sql/test_connections.py",
    "llm_sql/test_corpus.py",
    "llm_sql/test_root_server.py",
    "llm_sql/test_search_path.py",
    "llm_sql/test_server.py",
    "llm_sql/test_streams.py",
    "llm_sql/test_tokenizer_export.py",
    "llm_sql/test_tokenizer_files.py",
    "migrations/test_applications.py",
    "migrations/test_drift.py",
    "migrations/test_mending.py",
    "migrations/test_neighbours.py",
    "migrations/test_revisions.py",
    "schema/test_adapter.py",
    "schema/test_bf16_models.py",
    "schema/test_chat.py",
    "schema/test_checkpoint_files.py",
    "schema/test_crash.py",
    "schema/test_decoders.py",
    "schema/test_embed_upkeep.py",
    "schema/test_generate.py",
    "schema/test_hostile.py",
    "schema/test_import.py",
    "schema/test_import_encoder.py",
    "schema/test_import_layouts.py",
    "schema/test_model_settings.py",
    "schema/test_names.py",
    "schema/test_odd_callers.py",
    "schema/test_publish.py",
    "schema/test_redo_log.py",
    "schema/test_replica.py",
    "schema/test_sentencepiece.py",
    "schema/test_shared_hostile.py",
    "schema/test_shared_packed.py",
    "schema/test_shared_versions.py",
    "schema/test_standby.py",
    "schema/test_step_means.py",
    "schema/test_train_encoder.py",
    "schema/test_train_errors.py",
    "schema/test_train_transactions.py",
    "schema/test_transactions.py",
    "schema/test_wordpiece.py",
    "schema/test_write_cost.py",
)


def first_cases(items: list[pytest.Item]) -> list[pytest.Item]:
    """The first case of each test."""
    first: dict[str, pytest.Item] = {}
    for item in items:
        first.setdefault(item.nodeid.split("[")[0], item)
    return list(first.values())


def share(items: list[pytest.Item]) -> list[pytest.Item]:
    """Without the further cases of BROAD files, which are marked as extended, unless EXTENDED."""
    root = Path(__file__).parent
    first = set(map(id, first_cases(items)))
    further = [item for item in items if id(item) not in first and str(item.path.relative_to(root)) in BROAD]
    for item in further:
        item.add_marker(pytest.mark.extended)
    left_out = set() if EXTENDED else set(map(id, further))
    return [item for item in items if id(item) not in left_out]
