# GPT-2 124M inside the server: the same bits on every instruction set, cancels within 100 ms; valgrind on a session.

step "GPT-2 124M: the same bits, cancels; valgrind"
need valgrind valgrind libc6-dbg || true
LLM_SQL_EXTENDED=1 "$bin/pytest" -q -s --durations=0 --durations-min=5 tests/extended
