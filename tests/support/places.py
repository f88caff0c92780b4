"""Where the servers that tests start keep their files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

from ..amount import EXTENDED
from .reaper import Reaper

# What the servers of one run of the suite take at most, all together, with room to spare.
ENOUGH_BYTES = 8 << 30
_reaper = Reaper()


def new_place(prefix: str, *, on_disk: bool = False) -> Path:
    """A new directory that other accounts can pass, and with a short path, as a socket's must be.

    In memory where there is plenty of it: a run makes and removes hundreds of databases of a thousand files
    each, which file systems on disks take long for. Else in /tmp; the models of EXTENDED take gigabytes.
    `on_disk`: what grows while it runs. Whatever ends this process, the place and its servers go.
    """
    in_memory = not on_disk and not EXTENDED and _roomy()
    place = Path(tempfile.mkdtemp(prefix=prefix, dir="/dev/shm" if in_memory else "/tmp"))
    place.chmod(0o711)
    _reaper.watch(place)
    return place


def _roomy() -> bool:
    try:
        state = os.statvfs("/dev/shm")
    except OSError:
        return False
    # Programs and the extension's library are copied there, too.
    usable = os.access("/dev/shm", os.W_OK) and not state.f_flag & os.ST_NOEXEC
    free: int = min(state.f_bavail * state.f_frsize, psutil.virtual_memory().available)
    return usable and free >= ENOUGH_BYTES
