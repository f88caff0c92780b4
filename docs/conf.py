"""Sphinx's configuration; docs/docsite builds with it (`make docs`)."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "llm-sql"
author = "llm-sql authors"
copyright = "llm-sql authors, MIT licence"
release = installed_version("llm-sql")
version = release

extensions = ["myst_nb", "docsite.extension"]
root_doc = "index"

# ---- pages: MyST Markdown; links and anchors are checked ----
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# ---- notebooks: shown with the outputs that they are stored with ----
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # from another host
nb_merge_streams = True

# ---- HTML ----
html_theme = "furo"
html_title = f"llm-sql {release}"
html_static_path = [str(Path(__file__).parent / "_static")]
html_css_files = ["site.css"]
html_favicon = str(Path(__file__).parent / "_static" / "favicon.svg")
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_use_index = False
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
# Contrast of at least 4.5 in light and dark.
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
