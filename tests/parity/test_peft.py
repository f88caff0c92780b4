"""LoRA adapters against PEFT: it loads what is exported, and its own files come in, with the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from typer.testing import CliRunner

from llm_sql.cli import app

from ..support.training import relative_error, scalar
from .families import FAMILIES, MODEL, VOCAB, Family, bring_in

Connection = psycopg.Connection[Any]
TARGETS = {
    "GPT2": ["c_attn", "attn.c_proj", "c_fc"],
    "Llama": ["q_proj", "v_proj", "down_proj"],
    "GPTNeoX": ["attention.dense", "dense_h_to_4h"],
    "OPT": ["q_proj", "out_proj", "fc2"],
}


class GPT2(Family):
    def make(self) -> Any:
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(self.config()).eval()
        for p in model.parameters():
            p.data = p.data + 0.1 * torch.randn(p.shape)
        return model


CHOSEN = {f.prefix: f for f in reversed((GPT2("gpt2", "GPT2"), *FAMILIES)) if f.prefix in TARGETS}


@pytest.fixture(params=CHOSEN.values(), ids=str)
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


def scramble(model: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = 0.2 * torch.randn(p.shape, generator=generator)


def logits_of(model: Any, ids: torch.Tensor) -> Any:
    with torch.no_grad():
        return model.eval()(ids).logits.numpy()


def test_logits_both_ways(conn: Connection, db_url: str, tmp_path: Path, family: Family) -> None:
    base = family.make()
    base.save_pretrained(tmp_path / "saved")
    bring_in(db_url, tmp_path / "saved")
    ids = torch.randint(0, VOCAB - 1, (2, 19), generator=torch.Generator().manual_seed(3))
    plain = logits_of(base, ids)
    # What PEFT saves.
    config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[family.prefix], task_type="CAUSAL_LM")
    theirs = get_peft_model(family.make(), config)
    scramble(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = logits_of(theirs, ids)
    assert relative_error(plain, expected) > 0.05
    conn.execute("SELECT llm_create_adapter('tuned', %s, 4, 6, %s)", (MODEL, TARGETS[family.prefix]))
    file = tmp_path / "theirs" / "adapter_model.safetensors"
    done = CliRunner().invoke(app, ["import", str(file), "--model", "tuned", "--url", db_url])
    assert done.exit_code == 0, done.output
    query = "SELECT llm_logits(%s, %s)"
    assert relative_error(scalar(conn, query, (ids.tolist(), "tuned")), expected) <= 2e-5
    assert relative_error(scalar(conn, query, (ids.tolist(), MODEL)), plain) <= 2e-5
    # What we write.
    done = CliRunner().invoke(app, ["export", str(tmp_path / "ours"), "--model", "tuned", "--url", db_url])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    back = PeftModel.from_pretrained(family.make(), tmp_path / "ours")
    assert relative_error(logits_of(back, ids), expected) <= 1e-6
    written = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["base_model_name_or_path"]) == (4, 6, MODEL)
