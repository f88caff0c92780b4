"""llm_sql.conf of an embedded server: its settings, and which build of the extension its sessions load."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from llm_sql.server import guarded, layout
from llm_sql.server.install import Account, printable, run_script

# Writing a model back rewrites every tensor: 1.6 GB of WAL and as much TOAST for 124M parameters. Few
# checkpoints, whose first changes log whole pages; those images are of floats, so compressing them is wasted.
# Old WAL files are kept for reuse instead of being made anew. The WAL writer and the background writer are
# awake while there is work (both sleep when there is none), so that the session that writes need not do
# theirs. Vacuum comes soon, so that the next write-back finds the last one's space, and with a ring of
# buffers that does not make it wait for WAL at every 2 MB. Durability stays on.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "shared_buffers": "512MB",
    "wal_compression": "off",
    "wal_buffers": "64MB",
    "wal_writer_delay": "10ms",
    "wal_writer_flush_after": "8MB",
    "min_wal_size": "4GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "15min",
    "bgwriter_delay": "10ms",
    "bgwriter_lru_maxpages": "2000",
    "bgwriter_lru_multiplier": "4",
    "autovacuum_naptime": "10s",
    "vacuum_buffer_usage_limit": "64MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
FILE = "llm_sql.conf"
INCLUDE = f"\n# Written anew at every start; ALTER SYSTEM overrides it.\ninclude_if_exists = '{FILE}'\n"
_PACKAGE = "# The extension is that of "
_STAGE = re.compile(r"^extension_control_path = '(.*)/share:\$system'$", re.MULTILINE)


def write(
    data_directory: Path,
    settings: Mapping[str, str],
    *,
    major: int,
    sockets: Path,
    stage: Path | None,
    running: bool,
    account: Account | None,
    notice: Callable[[str], None],
) -> bool:
    """Write the file; True when it changed.

    Another installation's build of the extension stays in use while the server runs: its sessions would else
    find a library that their database was not provisioned with. The caller is told.
    """
    path = data_directory / FILE
    before = guarded.read_text(path) or ""
    package = layout.packaged_extension(major)
    theirs, their_stage = _other_build(before, package, stage)
    if theirs is not None:
        if running:
            notice(
                f"the embedded server runs with the extension of {theirs}, which is not this installation's: "
                "`llm-sql down` and the next start change over, LLM_SQL_HOME gives each a server of its own"
            )
            stage, package = their_stage, Path(theirs)
        else:
            notice(f"the embedded server changes from the extension of {theirs} to that of {package}")
    text = _text(settings, major, sockets, stage, package)
    if before == text:
        return False
    if account is not None:
        script = f'cd -- "$1"; rm -rf -- {FILE}.new; set -C; cat > {FILE}.new; mv -fT -- {FILE}.new {FILE}'
        run_script(account, script.replace("mv -fT", _MOVE), data_directory, text=text)
        return True
    replacement = path.with_suffix(".new")
    replacement.write_text(text)
    replacement.replace(path)
    return True


# GNU's -T: never into a directory of that name. Elsewhere -h does that for links to one.
_MOVE = "mv -fT" if os.uname().sysname == "Linux" else "mv -fh"


def _other_build(text: str, package: Path | None, stage: Path | None) -> tuple[str, Path] | tuple[None, None]:
    """The other installation whose extension the file names, if it is another build and both still exist."""
    staged = _STAGE.search(text)
    named = next(
        (line.removeprefix(_PACKAGE) for line in text.splitlines() if line.startswith(_PACKAGE)), None
    )
    if staged is None or named is None or stage is None or named == str(package):
        return None, None
    their_stage = Path(staged[1].replace("''", "'"))
    if their_stage == stage or not their_stage.is_dir() or not Path(named).is_dir():
        return None, None
    return printable(named), their_stage


def _text(
    given: Mapping[str, str], major: int, sockets: Path, stage: Path | None, package: Path | None
) -> str:
    settings = dict(given)
    if major < 16:
        settings.pop("vacuum_buffer_usage_limit", None)
    settings["unix_socket_directories"] = f'"{sockets}"'
    heading = ""
    if stage is not None and major >= 18:
        heading = f"{_PACKAGE}{package}\n"
        settings["extension_control_path"] = f"{stage / 'share'}:$system"
        settings["dynamic_library_path"] = f"{stage / 'lib'}:$libdir"
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    return heading + "".join(f"{name} = '{value}'\n" for name, value in quoted.items())
