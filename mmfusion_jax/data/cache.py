"""Lists and removes the stores in the cache."""

import dataclasses
import fcntl
import os
import shutil
from pathlib import Path

from mmfusion_jax.data.datasets.av_mnist.build_store import FOLDER as AV_MNIST
from mmfusion_jax.data.feature_files.import_manifest import VERSION as IMPORT_VERSION
from mmfusion_jax.data.feature_files.importer import FOLDER as IMPORTED
from mmfusion_jax.data.storage.array_record_store import MANIFEST, cache_folder
from mmfusion_jax.data.storage.store_origin import StoreOrigin, kind_of, store_origin
from mmfusion_jax.errors import (
    DataError,
    join_names,
    shorten,
    shown,
    shown_path,
    suggest,
)

PROCESSES = Path("/proc")
"""Folder with a folder for each process, on Linux."""


@dataclasses.dataclass(frozen=True)
class CachedStore:
    """Store in the cache, or the two stores of AV-MNIST.

    Attributes:
        name: Its path in the cache, such as "digits-1.0.0-5a203b2c"; of an import
            without the first folder, such as "mosi/mmsa_unaligned-4aa09fd3".
        kind: Kind of its data, which is the first folder in the cache: "imported" for
            feature files, "clips", "digits" and so on.
        folder: Folder that contains it and nothing else.
        bytes: Its size.
        date: Local date on which it was built, such as "2025-12-31".
        title: What it contains, such as "CMU-MOSI, 2199 examples".
        source: File or folder from which it was made; "" if it is unknown.
        outdated: Whether this version of the library cannot read it.
    """

    name: str
    kind: str
    folder: str
    bytes: int
    date: str
    title: str
    source: str
    outdated: bool

    @property
    def description(self) -> str:
        """Contents, source, date and whether it is outdated, in words."""
        about = StoreOrigin(self.title, self.source, self.date).description
        suffix = ", of another version: import it again" if self.outdated else ""
        return f"{about}{suffix}"


def list_stores() -> list[CachedStore]:
    """Returns the complete stores in the cache, sorted by name."""
    root = cache_folder("")
    built: dict[Path, Path] = {}
    for depth in (1, 2, 3):
        for manifest in sorted(root.glob("*/" * depth + MANIFEST)):
            parts = manifest.relative_to(root).parent.parts
            if any(part.startswith(".") for part in parts):  # not complete
                continue
            folder = (
                root.joinpath(*parts[:2]) if parts[0] == AV_MNIST else manifest.parent
            )
            # A store in a store is a part of it.
            if not any(parent in built for parent in folder.parents):
                built.setdefault(folder, manifest.parent)
    stores = [_cached(folder, store, root) for folder, store in built.items()]
    return sorted(stores, key=lambda store: store.name)


def _cached(folder: Path, store: Path, root: Path) -> CachedStore:
    """Returns the description of a store.

    Args:
        folder: Folder that contains it and nothing else.
        store: Folder of its manifest.
        root: The cache.
    """
    path = folder.relative_to(root)
    origin = store_origin(store, path)
    return CachedStore(
        name=_name(path),
        kind=kind_of(path),
        folder=str(folder),
        bytes=_size(folder),
        date=origin.date,
        title=origin.title,
        source=origin.source,
        outdated=path.parts[0] == IMPORTED and origin.version != IMPORT_VERSION,
    )


def find_store(name: str) -> CachedStore:
    """Returns the store with a name.

    Args:
        name: Name of a store as in `list_stores`, its last part, or the dataset of an
            import if there is only one.

    Raises:
        DataError: No store, or more than one, has this name.
    """
    stores = list_stores()
    matching = [store for store in stores if store.name == name] or [
        store for store in stores if name in Path(store.name).parts
    ]
    if len(matching) == 1:
        return matching[0]
    names = [store.name for store in stores]
    if matching:
        listed = "\n       ".join(
            f"{shorten(store.name)}  {shorten(store.description)}" for store in matching
        )
        raise DataError("D76", f"{shown(name)} is ambiguous among the stores.", listed)
    raise DataError(
        "D75",
        f"{shown(name)} is not in the cache {shown_path(cache_folder(''))}.",
        suggest(name, names) if names else "the cache contains no store",
    )


def check_removable(store: CachedStore) -> None:
    """Raises DataError if a store must not be deleted.

    Raises:
        DataError: It is a link or is outside of the cache, or a process is building or
            reading it, as far as this can be found out.
    """
    folder, root = Path(store.folder), cache_folder("").resolve()
    if folder.is_symlink() or root not in folder.resolve().parents:
        raise DataError(
            "D29",
            f"{shown_path(folder)} is a link to {shown_path(folder.resolve())}, which "
            "is not in the cache.",
            "delete it yourself, if you mean it",
        )
    if users := processes_using(folder):
        raise DataError(
            "D29",
            f"{shown_path(folder)} is in use by process {join_names(users)}.",
            "wait until it ends, or stop it",
        )


def processes_using(folder: Path) -> list[int]:
    """Returns the processes with open files of a store, or that are building it.

    On Linux only, and only processes of the same user: [] does not show that there are
    none.
    """
    found = []
    inside = f"{folder.resolve()}{os.sep}"
    lock = str(folder.resolve().with_name(f".{folder.name}.lock"))
    locked = _is_locked(Path(lock))
    for process in PROCESSES.glob("[0-9]*"):
        try:
            files = [os.readlink(one) for one in (process / "fd").iterdir()]
        except OSError:  # it has ended, or belongs to another user
            continue
        open_here = any(f.startswith(inside) or (locked and f == lock) for f in files)
        if open_here and int(process.name) != os.getpid():
            found.append(int(process.name))
    return sorted(found)


def remove_store(store: CachedStore) -> None:
    """Deletes a store; no process ever finds an incomplete one.

    Raises:
        DataError: It must not be deleted, see `check_removable`.
    """
    check_removable(store)
    # Renamed first, which is atomic, to a name of unfinished builds: if the deletion is
    # interrupted, the next build of this store completes it.
    folder = Path(store.folder)
    doomed = folder.with_name(f".{folder.name}.building-removed")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _is_locked(lock: Path) -> bool:
    """Returns whether a process holds the lock of a build."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _name(path: Path) -> str:
    """Returns the name of a store from its path in the cache."""
    parts = path.parts[1:] if path.parts[0] == IMPORTED else path.parts
    return "/".join(parts)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
