"""microgpt's run of 1,000 steps, followed loss for loss (notebooks/data, docs/microgpt.md)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ..support.small_models import Connection
from ..support.tensors import value

DATA = Path(__file__).parents[2] / "notebooks" / "data"
# Rounding alone (our float32, the reference's float64) gives 5.3e-7.
TOLERANCE = 1e-5

# Our name of each parameter, and whether it is stored as [in, out] where microgpt has [out, in].
NAMES = {
    "wte": ("wte.weight", False),
    "wpe": ("wpe.weight", False),
    "lm_head": ("lm_head.weight", False),
    "layer0.attn_wq": ("h.0.attn.q_proj.weight", True),
    "layer0.attn_wk": ("h.0.attn.k_proj.weight", True),
    "layer0.attn_wv": ("h.0.attn.v_proj.weight", True),
    "layer0.attn_wo": ("h.0.attn.o_proj.weight", True),
    "layer0.mlp_fc1": ("h.0.mlp.fc1.weight", True),
    "layer0.mlp_fc2": ("h.0.mlp.fc2.weight", True),
}


def trained(conn: Connection, **changed: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The losses of 1,000 steps from the reference's weights on its documents, and the reference's losses."""
    reference = json.loads((DATA / "microgpt_reference.json").read_text())
    documents = (DATA / "microgpt_names.txt").read_text().split()
    corpus = (
        "SELECT d FROM unnest(current_setting('test.documents')::text[]) WITH ORDINALITY u (d, n) ORDER BY n"
    )
    conn.execute("SELECT set_config('test.documents', %s::text[]::text, false)", (documents,))
    conn.execute("SELECT llm_build_char_tokenizer('names', %s)", (corpus,))
    assert value(conn, "SELECT llm_create_model('names', 'microgpt')") == 4192
    for theirs, (ours, transposed) in NAMES.items():
        weight = np.array(reference["init"][theirs], dtype=np.float32)
        written = conn.execute(
            "UPDATE llm_param SET data = %s WHERE model = 'names' AND name = %s",
            (np.ascontiguousarray(weight.T) if transposed else weight, ours),
        )
        assert written.rowcount == 1
    conn.execute(
        "SELECT llm_fill_dataset('names', %s, validation => 0, keep_order => true)",
        (corpus,),
    )
    arguments = {
        "lr_max": "0.01", "schedule": "'linear'", "warmup": "0", "beta1": "0.85", "beta2": "0.99", "wd": "0",
        "data_order": "'by_id'", "log_every": "0",
    } | changed  # fmt: skip
    listed = ", ".join(f"{name} => {given}" for name, given in arguments.items())
    run = value(conn, f"SELECT llm_train('names', 1000, {listed})")
    log = conn.execute("SELECT loss FROM llm_train_log WHERE run_id = %s ORDER BY step", (run,)).fetchall()
    return np.array([loss for (loss,) in log]), np.array(reference["losses"])


def test_every_loss_of_microgpts_run(conn: Connection) -> None:
    ours, reference = trained(conn)
    assert ours.shape == reference.shape == (1000,)
    difference = np.abs(ours - reference)
    assert difference.max() < TOLERANCE, f"step {difference.argmax() + 1} differs by {difference.max()}"
    rates = [lr for (lr,) in conn.execute("SELECT lr FROM llm_train_log ORDER BY step")]
    np.testing.assert_allclose(rates, [0.01 * (1 - step / 1000) for step in range(1000)], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "changed", [{"eps": "1e-7"}, {"data_order": "'shuffled'"}], ids=["eps", "data_order"]
)
def test_another_run_is_told_from_it(conn: Connection, changed: dict[str, str]) -> None:
    """The tolerance is narrow enough that a slightly different optimizer does not pass."""
    ours, reference = trained(conn, **changed)
    assert np.abs(ours - reference).max() > 10 * TOLERANCE
