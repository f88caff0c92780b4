"""The order of files: what takes longest first, so that the processes of a parallel run end at the same time.

pytest-xdist would begin with the files of most tests, and the long files of few tests would come last.
"""

from __future__ import annotations

from pathlib import Path

import pytest

# Of some seconds, the longest first: `pytest --durations=0` tells. One that has become short does no harm.
LONG = (
    "schema/test_hostile.py",
    "cli/test_embedded.py",
    "cli/test_interrupts.py",
    "schema/test_transactions.py",
    "hunts/test_stateful.py",
    "docs/test_playbook.py",
    "docs/test_examples.py",
    "schema/test_import.py",
    "llm_sql/test_root_server.py",
    "llm_sql/test_server.py",
    "cli/test_cli.py",
    "schema/test_shared_packed.py",
    "schema/test_shared_hostile.py",
    "schema/test_checkpoint_crashes.py",
    "schema/test_standby.py",
    "schema/test_generate.py",
    "schema/test_write_cost.py",
    "schema/test_crash.py",
    "extension/test_same_bits.py",
    "schema/test_train_transactions.py",
    "schema/test_publish.py",
    "schema/test_names.py",
    "schema/test_checkpoint.py",
    "cli/test_settings.py",
    "schema/test_models.py",
    "llm_sql/test_bench.py",
    "extension/test_identity.py",
    "schema/test_redo_log.py",
    "cli/test_rows.py",
    "schema/test_shared_crashes.py",
    "schema/test_settings.py",
    "schema/test_train_loop.py",
    "schema/test_train_crashes.py",
    "schema/test_builder_kills.py",
    "schema/test_null_arguments.py",
)


def longest_first(items: list[pytest.Item]) -> None:
    """Files that are not in LONG come after those, the ones of most tests first."""
    root = Path(__file__).parent
    places = {root / name: place for place, name in enumerate(LONG)}
    tests: dict[Path, int] = {}
    for item in items:
        tests[item.path] = tests.get(item.path, 0) + 1
    items.sort(key=lambda item: (places.get(item.path, len(LONG)), -tests[item.path], str(item.path)))
