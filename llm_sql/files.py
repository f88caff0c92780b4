"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_sql.errors import UsageError


@contextmanager
def replacing(path: Path) -> Iterator[int]:
    """A descriptor to write a new file to, which takes the path's place when all went well."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.absolute().parent)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(descriptor, 0o666 & ~umask)
        yield descriptor
        os.fsync(descriptor)
        try:
            Path(temporary).replace(path)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
