"""META.json, Dockerfile and compose.yaml name versions and files that stand elsewhere, too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SEMVER = re.compile(r"\d+\.\d+\.\d+")
EXTENSIONS = {"pg_llm": "kernels/postgres", "pg_llm_vector": "kernels/postgres_vector"}


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "META.json").read_text(encoding="utf-8"))
    return found


def project(key: str) -> str:
    """The text of a key of pyproject.toml (tomllib begins with Python 3.11)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf'^{key} = (".*?"|\[.*?^\])', text, re.M | re.S)
    assert found is not None
    return found[1]


def default_version(extension: str) -> str:
    text = (ROOT / EXTENSIONS[extension] / f"{extension}.control").read_text(encoding="utf-8")
    found = re.search(r"^default_version = '(.*)'", text, re.M)
    assert found is not None
    return found[1]


def test_the_distribution_has_what_pgxn_requires(meta: dict[str, Any]) -> None:
    """https://pgxn.org/spec: required keys, semantic versions, terms without spaces and slashes."""
    assert {"abstract", "maintainer", "license", "provides", "name", "version", "meta-spec"} <= set(meta)
    assert meta["meta-spec"]["version"] == "1.0.0"
    assert meta["license"] == "mit"
    assert meta["release_status"] in ("stable", "testing", "unstable")
    assert re.fullmatch(r"[^/\\\s]{2,}", meta["name"])
    assert all(0 < len(tag) < 256 and not re.search(r"[/\\]", tag) for tag in meta["tags"])
    for extension in meta["provides"].values():
        assert SEMVER.fullmatch(extension["version"])
        assert set(extension) <= {"file", "version", "abstract", "docfile"}
        for key in ("file", "docfile"):
            assert (ROOT / extension[key]).is_file(), extension[key]


def test_versions_are_those_of_the_package_and_the_control_files(meta: dict[str, Any]) -> None:
    assert project("version") == f'"{meta["version"]}"'
    assert set(meta["provides"]) == set(EXTENSIONS)
    for extension, entry in meta["provides"].items():
        version = default_version(extension)
        assert entry["version"] == version + ".0" * (2 - version.count(".")), extension


def test_the_image_installs_what_the_package_requires() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    line = re.search(r"pip install --no-cache-dir (.*)$", dockerfile, re.M)
    assert line is not None
    required = set(re.findall(r'"(.+?)"', project("dependencies").replace("[asyncio]", "")))
    assert set(re.findall(r'"(.+?)"', line[1])) <= required


def test_the_image_is_named_after_the_version(meta: dict[str, Any]) -> None:
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    major = re.search(r'PG_MAJOR: "(\d+)"', compose)
    assert major is not None
    assert f"image: llm-sql:{meta['version']}-pg{major[1]}" in compose
    assert f"ARG PG_MAJOR={major[1]}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
