"""Packs a directory of inputs into one archive, the same for the same inputs: pack.py DIRECTORY ARCHIVE."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path


def main() -> None:
    directory, archive = map(Path, sys.argv[1:3])
    inputs = sorted({path.read_bytes() for path in directory.iterdir()}, key=lambda data: (len(data), data))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, data in enumerate(inputs):
            packed.writestr(zipfile.ZipInfo(f"{number:04}"), data, zipfile.ZIP_DEFLATED, 9)
    print(f"{archive}: {len(inputs)} inputs, {archive.stat().st_size} bytes")


if __name__ == "__main__":
    main()
