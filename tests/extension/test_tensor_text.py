"""The text form of `tensor`: examples and what fuzzing left, through the server's own input function."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ..support.tensors import value

Connection = psycopg.Connection[Any]
CORPUS = Path(__file__).parents[1] / "corpus"
EXAMPLES = sorted((CORPUS / "tensor_text").iterdir())
INPUT = "SELECT %s::text::tensor"
REFUSED = (errors.InvalidTextRepresentation, errors.NumericValueOutOfRange, errors.ProgramLimitExceeded)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(conn: Connection, path: Path) -> None:
    if path.name.startswith("good"):
        assert value(conn, "SELECT %s::text::tensor IS NOT NULL", (path.read_text(),))
    else:
        with pytest.raises(REFUSED):
            conn.execute(INPUT, (path.read_text(),))


def test_what_fuzzing_left(conn: Connection) -> None:
    """ASCII up to the first NUL, as the fuzz target has it; what was read is written and read the same."""
    with zipfile.ZipFile(CORPUS / "fuzz" / "tensor_text.zip") as archive:
        inputs = [archive.read(name) for name in archive.namelist()]
    read = 0
    for data in inputs:
        text = bytes(byte & 0x7F for byte in data).split(b"\0")[0].decode()
        try:
            again = value(
                conn, "SELECT t::text::tensor::text = t::text FROM (SELECT %s::text::tensor) AS _(t)", (text,)
            )
        except REFUSED:
            continue
        assert again, text
        read += 1
    assert 0 < read < len(inputs)
