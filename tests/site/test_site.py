"""The built site in headless Chromium: every page in light, dark and phone width.

Needs `make docs` before, the extra `site`, and the system's chromium (LLM_SQL_CHROMIUM names another); see
docs/develop/documentation.md.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..amount import extended

HTML = Path(__file__).parents[2] / "docs" / "_build" / "html"
CHROMIUM = os.environ.get("LLM_SQL_CHROMIUM") or shutil.which("chromium")
PHONE = 390
# How a page is looked at: colours, width, height.
VIEWS = {"light": ("light", 1280, 900), "dark": ("dark", 1280, 900), "phone": ("light", PHONE, 844)}
GRAVE = ("serious", "critical")
# All of axe's rules in light; elsewhere those that colours and width can change.
RULES = {"light": [], "dark": ["color-contrast"], "phone": ["scrollable-region-focusable", "target-size"]}
# What is the same on many pages is looked at on these: the navigation, and code in the style sheet's colours.
WHOLE = ("index.html", "guide/python.html", "guide/psql.html", "operate/docker.html", "overview.html")
REPEATED = {"light": [".sidebar-drawer", "div.highlight"], "dark": [".sidebar-drawer", "div.highlight"]}
# Of the reference's generated pages axe sees the first sections: hundreds of the same form follow.
GENERATED = "article section section:nth-of-type(n+9)"
AXE = """async ([source, rules, exclude]) => {
    if (!window.axe) { (0, eval)(source); }
    const only = rules.length ? {runOnly: {type: "rule", values: rules}} : {};
    const part = exclude.length ? {exclude} : document;
    const found = await axe.run(part, {resultTypes: ["violations"], ...only});
    return found.violations.map(v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))]);
}"""
DRAWN = "document.querySelectorAll('pre.mermaid:not([data-drawn])').length === 0"
WIDTH = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
LINKS = "[...document.querySelectorAll('a[href], img[src]')].map(e => e.href || e.src)"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if not (HTML / "index.html").exists():
        pytest.skip("the site is not built: make docs")
    handler = functools.partial(Quiet, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="the extra site is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe() -> str:
    found = pytest.importorskip("axe_playwright_python", reason="the extra site is not installed")
    return (Path(found.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def pages() -> list[str]:
    return sorted(path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html"))


def not_looked_at(name: str, view: str) -> list[str]:
    """Selectors of what axe passes over on a page."""
    generated = [GENERATED] if name.startswith("reference/") else []
    return generated if name in WHOLE else generated + REPEATED.get(view, [])


def opened(browser: Any, address: str, view: str, wrong: list[str]) -> Any:
    """A page of the browser that notes what must not happen."""
    colours, width, height = VIEWS[view]
    page = browser.new_context(color_scheme=colours, viewport={"width": width, "height": height}).new_page()

    def asked(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(f"{page.url}: asks {request.url}")

    page.on("request", asked)
    page.on(
        "console", lambda m: wrong.append(f"{page.url}: console: {m.text}") if m.type == "error" else None
    )
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on(
        "response", lambda r: wrong.append(f"{page.url}: {r.status} {r.url}") if r.status >= 400 else None
    )
    return page


@extended
@pytest.mark.parametrize("view", VIEWS)
def test_every_page(browser: Any, axe: str, address: str, view: str) -> None:
    wrong: list[str] = []
    page = opened(browser, address, view, wrong)
    visited = pages()
    assert len(visited) > 30
    assert set(WHOLE) <= set(visited)
    for name in visited:
        page.goto(address + name)
        try:
            page.wait_for_function(DRAWN, timeout=10_000)
        except Exception:
            wrong.append(f"{name}: a diagram is not drawn")
        if view == "phone" and page.evaluate(WIDTH) > PHONE:
            wrong.append(f"{name}: {page.evaluate(WIDTH)} pixels wide")
        faults = page.evaluate(AXE, [axe, RULES[view], not_looked_at(name, view)])
        wrong += [f"{name}: {kind} {rule}: {nodes}" for kind, rule, nodes in faults if kind in GRAVE]
    page.context.close()
    assert wrong == []


@extended
def test_links_lead_somewhere(browser: Any, address: str) -> None:
    """Pages, and places on them, as the browser resolves the links."""
    wrong: list[str] = []
    page = opened(browser, address, "light", wrong)
    ids: dict[str, set[str]] = {}
    links: dict[str, list[str]] = {}
    for name in pages():
        page.goto(address + name, wait_until="domcontentloaded")
        ids[name] = set(page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
        links[name] = page.evaluate(LINKS)
    for name, found in links.items():
        for link in found:
            target, _, anchor = link.removeprefix(address).partition("#")
            if not link.startswith(address):
                continue
            if not (HTML / target).is_file() and target:
                wrong.append(f"{name}: {link} leads to no file")
            elif anchor and target in ids and anchor not in ids[target]:
                wrong.append(f"{name}: {link} leads to no place on the page")
    page.context.close()
    assert wrong == []


@extended
def test_search_finds_a_function(browser: Any, address: str) -> None:
    wrong: list[str] = []
    page = opened(browser, address, "light", wrong)
    page.goto(f"{address}search.html?q=llm_generate")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    found = page.evaluate("[...document.querySelectorAll('#search-results li a')].map(e => e.href)")
    page.context.close()
    assert any("reference/sql/generation.html" in link for link in found), found
    assert wrong == []


@extended
def test_diagrams_follow_the_theme(browser: Any, address: str, tmp_path: Path) -> None:
    """Light, dark, and changed by the button while the page is open."""
    with_diagram = [name for name in pages() if '<pre class="mermaid"' in (HTML / name).read_text()]
    if not with_diagram:
        pytest.skip("no page has a diagram")
    wrong: list[str] = []
    page = opened(browser, address, "light", wrong)
    page.goto(address + with_diagram[0])
    page.wait_for_selector("pre.mermaid[data-drawn=light] svg", timeout=10_000)
    page.evaluate("document.body.dataset.theme = 'dark'")
    page.wait_for_selector("pre.mermaid[data-drawn=dark] svg", timeout=10_000)
    page.context.close()
    assert wrong == []
