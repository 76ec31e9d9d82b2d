"""Lists and removes the stores in the cache."""

import dataclasses
import shutil
import time
from pathlib import Path

from mmfusion_jax.data.datasets.av_mnist.build_store import FOLDER as AV_MNIST
from mmfusion_jax.data.feature_files.importer import FOLDER as IMPORTED
from mmfusion_jax.data.storage.array_record_store import MANIFEST, cache_folder
from mmfusion_jax.errors import DataError, shown, shown_path, suggest


@dataclasses.dataclass(frozen=True)
class CachedStore:
    """Store in the cache, or the two stores of AV-MNIST.

    Attributes:
        name: Its path in the cache, such as "digits-1.0.0-5a203b2c"; of an import
            without the first folder, such as "mosi/mmsa_unaligned-4aa09fd3".
        folder: Folder that contains it and nothing else.
        bytes: Its size.
        date: Local date on which it was built, such as "2025-12-31".
    """

    name: str
    folder: str
    bytes: int
    date: str


def list_stores() -> list[CachedStore]:
    """Returns the complete stores in the cache, sorted by name."""
    root = cache_folder("")
    built: dict[Path, float] = {}
    for depth in (1, 2, 3):
        for manifest in root.glob("*/" * depth + MANIFEST):
            parts = manifest.relative_to(root).parent.parts
            if any(part.startswith(".") for part in parts):  # not complete
                continue
            folder = (
                root.joinpath(*parts[:2]) if parts[0] == AV_MNIST else manifest.parent
            )
            time_built = manifest.stat().st_mtime
            built[folder] = max(time_built, built.get(folder, time_built))
    stores = [
        CachedStore(
            name=_name(folder.relative_to(root)),
            folder=str(folder),
            bytes=_size(folder),
            date=time.strftime("%Y-%m-%d", time.localtime(time_built)),
        )
        for folder, time_built in built.items()
    ]
    return sorted(stores, key=lambda store: store.name)


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
        listed = " or ".join(shown(store.name) for store in matching)
        raise DataError("D76", f"{shown(name)} is ambiguous among the stores.", listed)
    raise DataError(
        "D75",
        f"{shown(name)} is not in the cache {shown_path(cache_folder(''))}.",
        suggest(name, names) if names else "the cache contains no store",
    )


def remove_store(store: CachedStore) -> None:
    """Deletes a store; no process ever finds an incomplete one."""
    # Renamed first, which is atomic, to a name of unfinished builds: if the deletion is
    # interrupted, the next build of this store completes it.
    folder = Path(store.folder)
    doomed = folder.with_name(f".{folder.name}.building-removed")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _name(path: Path) -> str:
    """Returns the name of a store from its path in the cache."""
    parts = path.parts[1:] if path.parts[0] == IMPORTED else path.parts
    return "/".join(parts)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
