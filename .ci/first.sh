# What a new user does, by the README: make demo, make test; then lint.

step "make demo: what a new user does first"
began=$SECONDS
make demo | tee "$work/demo.txt"
echo "with the installation: $((SECONDS - began)) s"
make -q env || { echo "error: a second make demo would install again"; exit 1; }
"$bin/python" - "$work/demo.txt" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
loss = float(re.search(r"^after\s+([\d.]+) nats", text, re.MULTILINE).group(1))
assert loss < 1.9, f"held-out loss {loss} is not below 1.9 nats per character"
print(f"held-out loss {loss}")
PYTHON

need pgbouncer pgbouncer || true
step "make test: what a new user does next"
began=$SECONDS
make test PYTEST_ARGS="--durations=15"
echo "tests: $((SECONDS - began)) s"

step "lint, types"
make lint
