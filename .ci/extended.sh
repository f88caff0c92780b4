# What `make test` takes only a share of, as much as there is of it: tests/amount.py.

step "the tests that grow, in full"
LLM_SQL_HOSTILE_CALLS=${LLM_SQL_HOSTILE_CALLS:-200} LLM_SQL_HUNT_SECONDS=${LLM_SQL_HUNT_SECONDS:-12} \
    LLM_SQL_EXTENDED=1 "$bin/pytest" -q -n 2 --dist loadfile --durations=10 -m extended tests/kernels tests/extension tests/schema \
    tests/llm_sql tests/cli tests/migrations tests/hunts tests/graph \
    tests/docs/test_fine_tuning_page.py
