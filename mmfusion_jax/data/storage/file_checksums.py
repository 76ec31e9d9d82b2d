"""Checksums of data files, computed again only where a file may have changed."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from mmfusion_jax.data.storage.array_record_store import cache_folder
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.regular_file import open_regular

FileState: TypeAlias = tuple[int, int, int, int]
"""Size, time of modification and of the last change in ns, and number of the inode."""

FOLDER = "checksums"
"""Folder of the cache with a file of known checksums for each folder of data files."""

UNREADABLE = ""
"""Checksum of a file that cannot be read; the decoder reports why."""

_LARGE = 1_000_000_000
"""Number of bytes whose reading takes so long that its progress is shown."""

_SETTLED_NS = 2_000_000_000


def file_state(file: Path) -> FileState:
    """Returns what changes when a file is replaced.

    A copy that keeps its times (`cp -p`, `rsync -t`) has the size and the time of
    modification of the original; the time of the last change is that of the copy, and
    no program can set it.

    Args:
        file: The file.
    """
    state = file.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def file_checksums(files: Iterable[Path]) -> dict[Path, str]:
    """Returns the SHA-256 of each file, or `UNREADABLE`.

    Checksums are kept in the cache with the state of their file, so that an unchanged
    file is read only once.

    Args:
        files: Data files; one can occur several times.
    """
    by_folder: dict[Path, list[Path]] = {}
    for file in dict.fromkeys(files):
        by_folder.setdefault(file.absolute().parent, []).append(file)
    found: dict[Path, str] = {}
    for folder, part in by_folder.items():
        found |= _of_folder(folder, part)
    return found


def _of_folder(folder: Path, files: Sequence[Path]) -> dict[Path, str]:
    """Returns the checksums of files in one folder."""
    name = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()
    path = cache_folder(FOLDER) / f"{name[:16]}.json"
    known = _read(path)
    states = {file: file_state(file) for file in files}
    changed = [f for f in files if known.get(f.name, ("",))[1:] != states[f]]
    fresh = {}
    work: Iterable[Path] = changed
    if sum(states[file][0] for file in changed) > _LARGE:
        work = track(changed, len(changed), f"reading {len(changed)} files")
    for file in work:
        fresh[file] = _sha256(file)
    # A file that was changed a moment ago can be changed once more without another
    # time, as clocks of file systems are coarse: its checksum is not kept.
    now = time.time_ns()
    kept = {
        file.name: (fresh[file], *states[file])
        for file in changed
        if fresh[file] != UNREADABLE and now - states[file][2] > _SETTLED_NS
    }
    if kept:
        _write(path, known | kept)
    return {file: fresh.get(file) or known.get(file.name, ("",))[0] for file in files}


def _sha256(file: Path) -> str:
    try:
        with open_regular(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, DataError):
        return UNREADABLE


def _read(path: Path) -> dict[str, tuple]:
    """Returns file name -> checksum and state; {} if there are none."""
    try:
        found = json.loads(path.read_text())
        return {str(name): tuple(values) for name, values in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write(path: Path, known: dict[str, tuple]) -> None:
    """Writes checksums, unless the cache is not writable: they only save time."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(known, ensure_ascii=True))
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
