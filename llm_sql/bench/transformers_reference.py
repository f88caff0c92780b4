# mypy: disable-error-code="import-not-found,misc,no-any-return,no-untyped-call"
"""Generation by Hugging Face transformers in float32, greedy and with its key/value cache."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel


class TransformersGenerator:
    """A GPT-2 with the given weights, under their names in GPT2Model."""

    def __init__(self, weights: dict[str, Any], n_head: int) -> None:
        vocab, width = weights["wte.weight"].shape
        n_layer = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("h."))
        config = GPT2Config(
            n_layer=n_layer, n_head=n_head, n_embd=width, n_positions=weights["wpe.weight"].shape[0],
            vocab_size=vocab,
        )  # fmt: skip
        self._model = GPT2LMHeadModel(config).eval()
        state = {name: torch.from_numpy(array) for name, array in weights.items()}
        missing = self._model.transformer.load_state_dict(state, strict=False).missing_keys
        if missing:
            raise ValueError(f"no weights for {', '.join(missing)}")
        self._vocab = vocab

    def seconds(self, n_prompt: int, n_tokens: int) -> tuple[float, float]:
        """Seconds of the prompt's pass up to the first token, and of n_tokens further tokens."""
        with torch.inference_mode():
            ids = torch.arange(n_prompt).remainder(self._vocab).unsqueeze(0)
            started = time.perf_counter()
            token, cache = self._step(ids, None)
            prefilled = time.perf_counter()
            for _ in range(n_tokens):
                token, cache = self._step(token, cache)
        return prefilled - started, time.perf_counter() - prefilled

    def _step(self, ids: Any, cache: Any) -> tuple[Any, Any]:
        out = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
