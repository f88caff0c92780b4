# The documentation: the site is built, the blocks of its pages and the notebooks run, a browser looks at every page.

step "docs: make docs"
began=$SECONDS
make docs
echo "site: $((SECONDS - began)) s"

step "docs: the blocks of all pages"
began=$SECONDS
LLM_SQL_EXTENDED=1 "$bin/pytest" -q -n 2 --durations=5 tests/docs/test_examples.py tests/docs/test_playbook.py
echo "blocks: $((SECONDS - began)) s"

if need chromium chromium; then
    step "docs: every page in Chromium"
    began=$SECONDS
    "$bin/python" -m pip install --quiet --no-build-isolation -e ".[site]"
    LLM_SQL_EXTENDED=1 "$bin/pytest" -q -n 2 --durations=5 tests/site
    echo "browser: $((SECONDS - began)) s"
fi

step "notebooks"
began=$SECONDS
make notebooks
echo "notebooks: $((SECONDS - began)) s"
