"""Weight files of other programs: nanoGPT's layout, wrappers' names, a tied matrix under either name."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy import Engine

from ..support.small_models import make_model, weights
from ..support.tensors import value
from .test_import import (
    Arrays,
    D,
    L,
    P,
    ServerImport,
    V,
    assert_equal,
    folder,
    hf_tensors,
    load,
    stored,
    write,
)

Connection = psycopg.Connection[Any]
__all__ = ["folder", "load"]
LINEAR = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def nanogpt(tensors: Arrays, prefix: str = "transformer.", *, vocab: int = V, mask: bool = False) -> Arrays:
    """The model as nanoGPT stores it: Linear layers [out, in], the tied head beside the padded embedding."""
    found = {}
    for name, a in tensors.items():
        if name == "wte.weight":
            a = np.concatenate([a, np.full((vocab - V, D), 7.0, np.float32)])
            found[prefix.removesuffix("transformer.") + "lm_head.weight"] = a
        found[prefix + name] = a.T if name.endswith(LINEAR) else a
    if mask:
        found |= {f"{prefix}h.{i}.attn.bias": np.ones((1, 1, P, P), np.float32) for i in range(L)}
    return found


def without_biases(tensors: Arrays) -> Arrays:
    return {name: np.zeros_like(a) if name.endswith("bias") else a for name, a in tensors.items()}


LAYOUTS = {
    "nanoGPT": lambda t: (nanogpt(t), t),
    "nanoGPT with masks": lambda t: (nanogpt(t, mask=True), t),
    "nanoGPT, vocabulary padded": lambda t: (nanogpt(t, vocab=64), t),
    "nanoGPT without biases": lambda t: (
        {
            n: a
            for n, a in nanogpt(t, mask=True).items()
            if not n.endswith("bias") or n.endswith(".attn.bias")
        },
        without_biases(t),
    ),
    "nanoGPT compiled": lambda t: (nanogpt(t, "_orig_mod.transformer."), t),
    "nanoGPT compiled, data parallel": lambda t: (nanogpt(t, "module._orig_mod.transformer."), t),
    "nanoGPT data parallel, compiled": lambda t: (nanogpt(t, "_orig_mod.module.transformer."), t),
    "nanoGPT, the head alone": lambda t: (
        {n: a for n, a in nanogpt(t, vocab=64).items() if not n.endswith("wte.weight")},
        t,
    ),
    "Hugging Face's in a wrapper": lambda t: ({"model.transformer." + n: a for n, a in t.items()}, t),
    "the head alone": lambda t: (
        {("lm_head.weight" if n == "wte.weight" else "transformer." + n): a for n, a in t.items()},
        t,
    ),
    "head and embedding": lambda t: (
        {"transformer." + n: a for n, a in t.items()} | {"lm_head.weight": t["wte.weight"]},
        t,
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("format_", ["safetensors", "npz"])
def test_a_layout_is_read(
    conn: Connection, folder: Path, load: ServerImport, name: str, format_: str
) -> None:
    make_model(conn)
    tensors, expected = LAYOUTS[name](hf_tensors())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(write(folder / "w", tensors, format_))
    assert_equal(stored(conn), expected)
    assert value(conn, "SELECT tied FROM llm_model_config WHERE model = 'tiny'") is True


def test_untying_is_told(conn: Connection, folder: Path, load: ServerImport, request: Any) -> None:
    make_model(conn)
    tensors = hf_tensors()
    notices: list[str] = []
    conn.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(write(folder / "w", tensors | {"lm_head.weight": tensors["wte.weight"] + 1}))
        load(write(folder / "v", tensors))
    told = notices or [str(warning.message) for warning in caught]
    assert len(told) == 2
    assert "no longer tied" in told[0]
    assert "has no separate output head" in told[1]


def test_an_untied_model_needs_its_embedding(conn: Connection, folder: Path, load: ServerImport) -> None:
    make_model(conn)
    tensors = hf_tensors()
    conn.execute("UPDATE llm_model_config SET tied = false WHERE model = 'tiny'")
    head = {("lm_head.weight" if n == "wte.weight" else n): a for n, a in tensors.items()}
    before = weights(conn)
    with pytest.raises(
        Exception, match=r"(?s)lacks tensors.*wte\.weight.*It holds 28 tensors.*lm_head.weight"
    ):
        load(write(folder / "w", head))
    assert weights(conn) == before


def test_sizes_of_another_model_are_named(conn: Connection, folder: Path, load: ServerImport) -> None:
    make_model(conn)
    tensors = nanogpt(hf_tensors())
    for name, content, message in (
        (
            "few",
            tensors | {"transformer.wte.weight": np.zeros((5, D), np.float32)},
            r"\[5, 16\], expected \[13, 16\]",
        ),
        (
            "biased",
            {n: a for n, a in tensors.items() if "ln_1.bias" not in n},
            r"lacks tensors.*h\.0\.ln_1\.bias",
        ),
        ("long", tensors | {"transformer.wpe.weight": np.zeros((32, D))}, r"\[32, 16\], expected \[8, 16\]"),
    ):
        if name == "few":
            content.pop("lm_head.weight")
        with pytest.raises(Exception, match=message):
            load(write(folder / name, content))


def pickles(folder: Path) -> list[Path]:
    old = folder / "old.pt"
    old.write_bytes(pickle.dumps({"model": {"wte": list(range(1000))}}, protocol=2))
    new = folder / "new.pt"
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", b"\0" * 64)
    for path in (old, new):
        path.chmod(0o644)
    return [old, new]


def test_pickles_are_refused_with_what_to_do(
    conn: Connection, engine: Engine, folder: Path, load: ServerImport
) -> None:
    make_model(conn)
    for path in pickles(folder):
        with pytest.raises(Exception, match=r"pickle of PyTorch.*safetensors\.torch\.save_file"):
            load(str(path))
