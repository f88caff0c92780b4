"""Builds the documentation site: `python -m docsite` from docs/, which is what `make docs` runs.

stage.py copies the pages and the notebooks to where Sphinx reads them and mends their links; the reference is
written beside them, from the catalog of a freshly provisioned database (catalog.py, sql_pages.py,
settings_page.py), from the commands (command_line.py) and from the Python package (python_api.py);
extension.py is what Sphinx itself is taught. Nothing of it is installed with llm-sql.
"""

from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
BUILD = DOCS / "_build"
SOURCE = BUILD / "source"
HTML = BUILD / "html"


class UndocumentedError(Exception):
    """Something that people meet has no comment, docstring, help text or place to be documented by."""
