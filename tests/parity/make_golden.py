"""Writes tests/golden/gpt2_tiny.npz: what PyTorch computes for a tiny GPT-2, for machines without PyTorch.

    python tests/parity/make_golden.py

The file was made with PyTorch 2.13.0 and transformers 5.23.0 on a CPU, in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch_gpt2 import Optimizer, Shape, batch, gradients, make, parameters, train

GOLDEN = Path(__file__).parent.parent / "golden" / "gpt2_tiny.npz"
SHAPE = Shape(n_layer=2, n_head=2, d_model=8, n_positions=12, vocab=23)


def main() -> None:
    model = make(SHAPE, seed=1)
    tokens, targets = batch(SHAPE, rows=5, length=11, seed=2)
    weights = parameters(model)
    loss, grads = gradients(model, tokens, targets)
    losses = train(model, tokens, targets, Optimizer())
    np.savez_compressed(
        GOLDEN,
        shape=np.array([SHAPE.n_layer, SHAPE.n_head, SHAPE.d_model, SHAPE.n_positions, SHAPE.vocab]),
        tokens=tokens,
        targets=targets,
        loss=np.float64(loss),
        losses=np.array(losses),
        **{f"w.{name}": value for name, value in weights.items()},
        **{f"g.{name}": value for name, value in grads.items()},
    )
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes, loss {loss:.6f}, at the end {losses[-1]:.6f}")


if __name__ == "__main__":
    main()
