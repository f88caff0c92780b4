"""The release after this one, made from a copy of the package: what a maintainer would change, and no more.

migrations/README.md tells the steps; `NextRelease` does them: declarations are changed, the extension gets an
upgrade script and its way back, and `alembic revision --autogenerate` writes the revision.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import llm_sql.kernels
import llm_sql.migrations
import llm_sql.models
from llm_sql import provision
from llm_sql.migrations import kernels

PACKAGE = Path(llm_sql.__file__).parent
PRESENT, PRESENT_KERNELS = provision.head(), kernels.version()
MAJOR, MINOR = PRESENT_KERNELS.split(".")
NEXT, NEXT_KERNELS = f"{int(PRESENT) + 1:04}", f"{MAJOR}.{int(MINOR) + 1}"

# Its name is new; its C symbol is one that the library has.
NEW_KERNEL = """
CREATE FUNCTION public.pg_llm_rank(x public.tensor) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'pg_llm_ndims';
COMMENT ON FUNCTION public.pg_llm_rank(public.tensor) IS 'number of dimensions';
"""
ITS_RIGHTS = """
GRANT EXECUTE ON FUNCTION public.pg_llm_rank(public.tensor) TO pg_database_owner WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION public.pg_llm_rank(public.tensor) FROM PUBLIC;
"""
NEW_FUNCTION = """

CREATE FUNCTION public.llm_scales(model text) RETURNS SETOF real
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_llm, pg_temp
BEGIN ATOMIC
SELECT p.scale FROM public.llm_param p WHERE p.model = llm_scales.model AND public.pg_llm_rank(p.data) > 0;
END;

COMMENT ON FUNCTION public.llm_scales(text) IS 'The scale of each weight''s parts.';
"""
NEW_COLUMNS = """

Param.scales = mapped_column("scales", Tensor, nullable=True, comment="of each row")
Param.scale = mapped_column("scale", REAL, nullable=False, server_default=text("1"), comment="of this part")
"""
CHANGED_LINE = '    PERFORM public.pg_llm_rank(\'[1]\'::public.tensor); -- 100%, :name, \\, """, $1\n'


class NextRelease:
    """The package of the next release in a folder, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "llm_sql"
        for module, name in (
            (llm_sql.models, "models"),
            (llm_sql.migrations, "migrations"),
            (llm_sql.kernels, "kernels"),
        ):
            self._copy(Path(str(module.__file__)).parent, self.package / name)
        self._copy(PACKAGE, self.package)
        self._copy(kernels.SCRIPTS, self.package / "kernels" / "postgres", "*.[cho]", "fuzz", "build")
        self.kernels = self.package / "kernels" / "postgres"
        self.versions = self.package / "migrations" / "versions"
        self.sql = self.package / "migrations" / "sql" / NEXT
        (folder / "alembic.ini").write_text(
            (PACKAGE.parent / "alembic.ini")
            .read_text()
            .replace("%(here)s/migrations", str(self.package / "migrations"))
        )

    @staticmethod
    def _copy(source: Path, target: Path, *left_out: str) -> None:
        ignored = shutil.ignore_patterns("_pg", "__pycache__", *left_out)
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)

    def change_declarations(self) -> None:
        """A column, a function's body, a function and a view's column."""
        self._edit(
            "models/param.py",
            lambda text: text.replace("import BigInteger", "import REAL, BigInteger") + NEW_COLUMNS,
        )
        self._edit(
            "models/functions/generate.sql",
            lambda text: re.sub(
                r"(CREATE FUNCTION public\.llm_generate\(.*?\nBEGIN\n)",
                lambda m: m[1] + CHANGED_LINE,
                text,
                count=1,
                flags=re.S,
            ),
        )
        self._edit("models/functions/weights.sql", lambda text: text + NEW_FUNCTION)
        self._edit(
            "models/views/llm_heldout.sql",
            lambda text: text.replace("AS seq, target\n", "AS seq, target, split\n"),
        )

    def change_kernels(self) -> None:
        """A function, in a part of the whole extension's script and in the script that upgrades to it."""
        self._script(PRESENT_KERNELS, self._joined())
        self._edit("kernels/postgres/tensor/tensor.sql", lambda text: text + NEW_KERNEL)
        self._script(NEXT_KERNELS, self._joined())
        self._script(f"{PRESENT_KERNELS}--{NEXT_KERNELS}", NEW_KERNEL + ITS_RIGHTS)
        self._script(
            f"{NEXT_KERNELS}--{PRESENT_KERNELS}", "DROP FUNCTION public.pg_llm_rank(public.tensor);\n"
        )
        control = "default_version = '{}'"
        self._edit(
            "kernels/postgres/pg_llm.control",
            lambda text: text.replace(control.format(PRESENT_KERNELS), control.format(NEXT_KERNELS)),
        )

    def _joined(self) -> str:
        """The extension's script, as make joins it."""
        makefile = (self.kernels / "Makefile").read_text()
        named = re.search(r"^SQL_PARTS = ((?:.*\\\n)*.*)$", makefile, re.M)
        assert named is not None
        return "\n".join((self.kernels / part).read_text() for part in named[1].replace("\\", "").split())

    def _script(self, versions: str, text: str) -> None:
        (self.kernels / f"pg_llm--{versions}.sql").write_text(text)

    def _edit(self, path: str, change: Any) -> None:
        file = self.package / path
        before = file.read_text()
        after = change(before)
        assert after != before, path
        file.write_text(after)

    def python(self, *arguments: str, url: str) -> str:
        """Python with this release's package, on the database; what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder), "DATABASE_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def alembic(self, *arguments: str, url: str) -> str:
        return self.python("-m", "alembic", *arguments, url=url)

    def llm_sql(self, *arguments: str, url: str) -> str:
        return self.python("-c", "from llm_sql.cli import main; main()", *arguments, url=url)
