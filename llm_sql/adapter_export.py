"""LoRA adapters as PEFT loads them: adapter_config.json beside adapter_model.safetensors."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from llm_sql import decoder_export
from llm_sql.errors import UsageError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_ADAPTER = text("SELECT a.* FROM public.llm_adapter a WHERE a.model = :model")
_ARCH = text("SELECT c.arch FROM public.llm_model_config c WHERE c.model = :model")
_TARGETS = text(
    "SELECT t.name, public.llm_hub_target(COALESCE(h.name, 'h.0.' || t.name || '.weight')) AS theirs, h.how"
    " FROM unnest(CAST(:targets AS text[])) t (name) CROSS JOIN LATERAL"
    " public.llm_hub_name(public.llm_hub_family(CAST(:model AS text)), 'h.0.' || t.name || '.weight') h"
    " ORDER BY t.name"
)


def files(connection: Connection, model: str) -> dict[str, Any] | None:
    """The small files by their names; None for a model that is no adapter."""
    adapter = connection.execute(_ADAPTER, {"model": model}).one_or_none()
    if adapter is None:
        return None
    arch = connection.execute(_ARCH, {"model": model}).scalar_one()
    if arch not in decoder_export.ARCHITECTURES:
        raise UsageError(
            f'adapter "{model}" is of a model of architecture {arch}, which PEFT does not know',
            hint="Name a file: adapter.safetensors.",
        )
    targets = connection.execute(_TARGETS, {"targets": adapter.targets, "model": model}).all()
    for target in targets:
        if target.how is not None and target.how.startswith("part"):
            raise UsageError(
                f'adapter "{model}" has factors of {target.name}, which PEFT has of {target.theirs} only',
                hint="Name a file: adapter.safetensors.",
            )
    alpha = float(adapter.alpha)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base,
        "r": adapter.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "target_modules": [target.theirs for target in targets],
        "bias": "none",
        # transformers' GPT-2 has its matrices as [in, out].
        "fan_in_fan_out": arch in ("gpt2", "gpt3"),
        "inference_mode": True,
    }
    return {CONFIG: config}
