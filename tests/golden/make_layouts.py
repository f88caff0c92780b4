"""Writes tokenizer_layouts.json: what transformers makes of reference/layouts.py's directories.

python -m tests.golden.make_layouts
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ..reference.layouts import LAYOUTS, TEXTS, write


def expected(folder: Path) -> dict[str, Any]:
    """Ids of every text with special tokens and without, and the tokens with a role."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    found: dict[str, Any] = {"eos": tokenizer.eos_token_id, "bos": tokenizer.bos_token_id}
    for name, special in (("ids", True), ("ordinary", False)):
        backend.encode_special_tokens = not special
        found[name] = [backend.encode(text, add_special_tokens=False).ids for text in TEXTS]
    return found


def main() -> None:
    found = {}
    for name, layout in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = expected(write(Path(folder), layout))
    path = Path(__file__).parent / "tokenizer_layouts.json"
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
