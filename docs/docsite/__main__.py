"""Build the site: stage the pages, write the reference, run Sphinx with warnings as errors."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from . import DOCS, HTML, SOURCE, UndocumentedError, reference, stage, vendor


def _is_changed() -> bool:
    """Whether the builder is newer than what it built, which Sphinx does not look at."""
    built = HTML / "index.html"
    sources = [DOCS / "conf.py", *Path(__file__).parent.glob("*.py")]
    return built.exists() and max(path.stat().st_mtime for path in sources) > built.stat().st_mtime


def _remove_stale() -> None:
    """Pages whose source is gone, which Sphinx leaves."""
    for path in HTML.rglob("*.html"):
        source = SOURCE / path.relative_to(HTML)
        kept = path.name in ("search.html", "genindex.html") and path.parent == HTML
        if not kept and not any(source.with_suffix(suffix).exists() for suffix in (".md", ".ipynb")):
            path.unlink()


def main() -> int:
    began = time.monotonic()
    wrong = vendor.problems()
    if wrong:
        print("\n".join(f"error: docs/_static/vendor: {problem}" for problem in wrong), file=sys.stderr)
        return 1
    try:
        written = stage.stage() | reference.write()
    except (stage.BrokenLinkError, UndocumentedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stage.remove_others(written)
    stage.prune_toctrees()
    from sphinx.cmd.build import main as sphinx_build

    jobs = str(min(os.cpu_count() or 1, 4))
    fresh = ["-E", "-a"] if _is_changed() else []
    status = sphinx_build(
        [
            *fresh,
            *("-W", "--keep-going", "-q", "-j", jobs, "-b", "html", "-c", str(DOCS)),
            *("-d", str(HTML.with_name("doctrees")), str(SOURCE), str(HTML)),
        ]
    )
    if status == 0:
        _remove_stale()
        print(f"docs: {HTML.relative_to(DOCS.parent)}/index.html, {time.monotonic() - began:.0f} s")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
