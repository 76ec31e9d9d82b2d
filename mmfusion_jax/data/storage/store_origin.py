"""What a store contains, from what it was made, and when."""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion_jax.data.storage.array_record_store import MANIFEST
from mmfusion_jax.errors import shorten, shown_name

TITLES = {
    "imported": "features",
    "av_mnist": "AV-MNIST",
    "digits": "digits (embedded)",
    "deap": "DEAP",
    "ravdess": "RAVDESS",
    "clips": "clips",
}
"""First folder in the cache, before a "-" -> what its stores contain."""

SOURCES = ("source", "data_dir", "folder", "file")
"""Fields of a manifest that can name the file or folder of the original data."""


@dataclasses.dataclass(frozen=True)
class StoreOrigin:
    """Contents, source and date of a store.

    Attributes:
        title: What it contains, such as "CMU-MOSI, 2199 examples".
        source: File or folder from which it was made; "" if it is unknown.
        date: Local date on which it was built, such as "2025-12-31".
        version: Version of its format; 0 if it does not have one.
    """

    title: str
    source: str
    date: str
    version: int = 0

    @property
    def description(self) -> str:
        """Contents, source and date in words."""
        suffix = f", from {shorten(self.source)}" if self.source else ""
        return f"{shorten(self.title)}{suffix}, {shown_name(self.date)}"


def store_origin(folder: Path, path: Path) -> StoreOrigin:
    """Returns contents, source and date of a store.

    Args:
        folder: The store.
        path: Its path in the cache.
    """
    file = folder / MANIFEST
    made = (file if file.exists() else folder).stat().st_mtime
    date = time.strftime("%Y-%m-%d", time.localtime(made))
    kind = kind_of(path)
    what = TITLES.get(kind, kind)
    if not (manifest := _read(file)):
        return StoreOrigin(f"{what}, manifest not readable", "", date)
    title = manifest.get("title")
    title = title if isinstance(title, str) and title else _title(what, path, manifest)
    version = manifest.get("version")
    return StoreOrigin(
        f"{title}{_count(folder, manifest)}",
        next((v for k in SOURCES if isinstance(v := manifest.get(k), str)), ""),
        date,
        version if type(version) is int else 0,
    )


def kind_of(path: Path) -> str:
    """Returns the kind of a store, such as "imported" or "clips".

    Args:
        path: Its path in the cache.
    """
    return path.parts[0].partition("-")[0]


def _title(what: str, path: Path, manifest: Mapping[str, Any]) -> str:
    """Returns the name of the dataset in a store."""
    layout = manifest.get("layout")
    if path.parts[0] != "imported" or len(path.parts) < 2:
        return what
    suffix = f" ({layout})" if isinstance(layout, str) else ""
    return f"{path.parts[1]} {what}{suffix}"


def _count(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Returns the number of examples in a store as text; "" if it is unknown."""
    counts = _counts(manifest)
    if not counts:  # a store of several parts, which are stores themselves
        for part in folder.glob(f"*/{MANIFEST}"):
            counts += _counts(_read(part))
    return f", {sum(counts):d} examples" if counts else ""


def _counts(manifest: Mapping[str, Any]) -> list[int]:
    """Returns the number of examples of each split of a store."""
    counts = manifest.get("counts")
    values = counts.values() if isinstance(counts, dict) else ()
    return [count for count in values if type(count) is int]


def _read(file: Path) -> dict[str, Any]:
    """Returns a manifest; {} if it is not readable."""
    try:
        manifest = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
