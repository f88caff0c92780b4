"""The runner of pages' blocks: what it takes for one, what it refuses, and that a failure is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..support.blocks import blocks, mistakes, run_page

PAGE = """
```sql
CREATE TABLE t AS SELECT 1 AS a; SET search_path = pg_catalog;
DO $$ BEGIN PERFORM 1; END $$;
SELECT current_setting('search_path'), a FROM public.t WHERE current_setting('search_path') = 'pg_catalog';
```

<!-- not run: takes a second server -->
```sh
reboot
```

```python
kept = 3
```

```python
assert kept == 3
```

```sql
\\pset format unaligned
SELECT a FROM t \\gset
SELECT :a;
```

```sh
llm-sql evaluate --help   # a comment
llm-sql generate \\
    --help
```

```text
anything
```
"""


def run(text: str, server: Any, database: str, folder: Path) -> list[str]:
    return run_page(text, server.url(database), server.sqlalchemy_url(database), folder)


def test_blocks_run_in_order(server: Any, fresh_database: str, tmp_path: Path) -> None:
    assert mistakes(PAGE) == []
    assert [block.line for block in blocks(PAGE)] == [2, 9, 13, 17, 21, 27, 33]
    assert run(PAGE, server, fresh_database, tmp_path) == ["sql", "python", "python", "sql", "sh"]


@pytest.mark.parametrize(
    "block",
    [
        "```sql\nSELECT 1 / 0;\n```",
        "```sql\nSELECT 1 WHERE false;\n```",
        "```sql\n\\echo x\nSELECT 1 / 0;\n```",
        "```python\nassert False\n```",
        "```sh\nls\n```",
        "```sh\nllm-sql generate --no-such-option\n```",
    ],
)
def test_a_block_that_fails_fails(block: str, server: Any, fresh_database: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"."):
        run(block, server, fresh_database, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "```\nx\n```",
        "```klingon\nx\n```",
        "<!-- not run: why -->\n\n```sql\nSELECT 1;\n```",
        "<!-- not run -->\n```sql\nSELECT 1;\n```",
        "<!-- not run: output -->\n```text\nx\n```",
    ],
)
def test_mistakes_in_fences_are_named(text: str) -> None:
    assert mistakes(text) != []
