"""What fuzzing left: every committed input through its target again, compiled by any C compiler.

kernels/core/fuzz/Makefile tells how the inputs were found. The sanitizers are on where the compiler has them.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from ..amount import extended

ROOT = Path(__file__).parents[2]
FUZZ = ROOT / "kernels" / "core" / "fuzz"
CORPUS = ROOT / "tests" / "corpus"
HOSTILE = ROOT / "tests" / "kernels" / "hostile"
TARGETS = [
    line[len("TARGET(") : line.index(")")]
    for line in (FUZZ / "targets.h").read_text().splitlines()
    if line.startswith("TARGET(")
]


def build(where: str, *settings: str) -> subprocess.CompletedProcess[str]:
    command = [
        "make",
        "-j2",
        "-C",
        str(FUZZ),
        f"BUILD={FUZZ / where}",
        f"CC={os.environ.get('CC', 'cc')}",
        # Compiling takes longest; the sanitizers find the same in code that is not optimised.
        "OPTIMIZE=-O0 -g1",
        *settings,
    ]
    return subprocess.run([*command, "replay"], capture_output=True, text=True)


@pytest.fixture(scope="module")
def replay() -> Path:
    if build("build/sanitized").returncode == 0:
        return FUZZ / "build" / "sanitized" / "replay"
    plain = build("build/plain", "SANITIZE=")
    assert plain.returncode == 0, plain.stderr
    return FUZZ / "build" / "plain" / "replay"


@extended
@pytest.mark.parametrize("target", TARGETS)
def test_inputs_of(target: str, replay: Path, tmp_path: Path) -> None:
    seeds = CORPUS / {"bpe_train": "bpe_encode"}.get(target, target)
    if not seeds.exists():
        seeds = HOSTILE
    with zipfile.ZipFile(CORPUS / "fuzz" / f"{target}.zip") as archive:
        archive.extractall(tmp_path)
        expected = len(archive.namelist()) + len(list(seeds.iterdir()))
    result = subprocess.run([replay, target, tmp_path, seeds], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == expected > 20
