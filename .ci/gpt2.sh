# GPT-2 124M inside the server: the same bits on every instruction set, cancels within 100 ms; valgrind on a session.

step "GPT-2 124M: the same bits, cancels; valgrind"
need valgrind valgrind libc6-dbg || true
# Valgrind's work is of one core, and what the others hold to bounds is CPU time.
LLM_SQL_EXTENDED=1 "$bin/pytest" -q --durations=0 tests/extended/test_valgrind.py >"$work/valgrind.txt" 2>&1 &
valgrind=$!
LLM_SQL_EXTENDED=1 "$bin/pytest" -q -s --durations=0 --durations-min=5 --ignore tests/extended/test_valgrind.py tests/extended
wait "$valgrind" || { cat "$work/valgrind.txt"; exit 1; }
tail -1 "$work/valgrind.txt"
