"""`MANIFEST.json` of an imported feature file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mmfusion_jax.data.feature_files.known_datasets import license_of
from mmfusion_jax.data.feature_files.summary import FileSummary
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.data.storage.array_record_store import (
    FeatureSpec,
    Store,
    StoreInfo,
    open_store,
)
from mmfusion_jax.errors import DataError, shown, shown_name
from mmfusion_jax.results.json_file import check

VERSION = 4
"""Part of the name of every import and of its manifest: increase it when the stored
values change, or a field of the manifest its name or meaning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportManifest(StoreInfo, FileSummary):
    """Manifest of an import.

    Attributes:
        version: `VERSION` of the library that wrote it.
        license: License of the data.
        vocabulary: Words in the order of their ids, from 1; [] if the text is not
            words.
    """

    version: int
    license: str
    vocabulary: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {split: part.count for split, part in self.splits.items()}
        check(self.counts == counts, "counts: not those of the splits")
        check(not self.bad, "bad: an import has no bad examples")
        check(
            len(self.vocabulary) == len({*self.vocabulary}),
            "vocabulary: a word occurs twice",
        )
        if self.vocabulary:
            highest = max(p.inputs["words"].high or 0 for p in self.splits.values())
            check(highest <= len(self.vocabulary), "vocabulary: ids without a word")
        text = FeatureSpec((), "str")
        for name in ("id", "raw_text"):
            check(
                self.features.get(name) == text,
                f"features: {shown_name(name)} is not a text",
            )
        for part in self.splits.values():
            for name, stats in part.inputs.items():
                shape = self.features[name].shape if name in self.features else ()
                width = (stats.features,) if stats.moments else shape[1:]
                check(shape == (None, *width), f"features: wrong {shown_name(name)}")


def manifest_fields(
    summary: FileSummary, vocabulary: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the fields of a manifest that `write_store` does not add itself.

    Args:
        summary: The file.
        vocabulary: Words in the order of their ids, from 1.
    """
    # Not `to_json`: labels that the dataset does not use can be NaN.
    fields = msgspec.to_builtins(summary)
    about = {"version": VERSION, "license": license_of(summary.name)}
    return {**about, "vocabulary": [*vocabulary], **fields}


def open_import(folder: Path, name: str) -> tuple[Store, ImportManifest]:
    """Opens the store of an import, with its splits in the usual order.

    Args:
        folder: Folder of the store.
        name: Key of the dataset in `FEATURE_DATASETS`.

    Raises:
        DataError: The store or its manifest is corrupted, or another version of the
            library wrote it.
    """
    try:
        store = open_store(folder)
        return store, _read_manifest(store, name)
    except DataError as error:
        fix = (
            f"delete {folder} and run: python -m mmfusion_jax data import FILE "
            f"--dataset={shown_name(name)}"
        )
        raise DataError(error.code, error.args[0], fix) from error


def _read_manifest(store: Store, name: str) -> ImportManifest:
    """Returns the manifest of a store, checked."""
    version = store.manifest.get("version")
    if type(version) is not int or version != VERSION:
        what = "no version" if version is None else f"version {shown(version)}"
        raise DataError(
            "D21",
            f"the import {store.folder} has {what}, but this version of mmfusion_jax "
            f"reads {VERSION}.",
        )
    manifest = store.manifest_as(ImportManifest)
    if manifest.name != name:
        raise DataError(
            "D21",
            f"the import {store.folder} is of {shown(manifest.name)}, not of "
            f"{shown(name)}.",
        )
    splits = {split: manifest.splits[split] for split in SPLITS}
    return dataclasses.replace(manifest, splits=splits)
