"""Reads feature files in the sandbox, as arrays without padding."""

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmfusion_jax.data.feature_files.reader import list_files, read_source
from mmfusion_jax.errors import shorten
from mmfusion_jax.safe_load.npz import read_npz
from mmfusion_jax.safe_load.sandbox import memory_for, run_sandboxed

ARRAYS = "arrays.npz"
TIMEOUT = 1800


@dataclasses.dataclass(frozen=True)
class SplitNames:
    """Names in a split of a feature file.

    Attributes:
        ids: Ids of the examples; [] if the file has none.
        inputs: Names of the inputs.
        labels: Names of the labels.
    """

    ids: list[str]
    inputs: list[str]
    labels: list[str]


@dataclasses.dataclass(frozen=True)
class FeatureNames:
    """Names in a feature file.

    Attributes:
        sha256: Hash of its bytes.
        has_words: Its word ids are those of the words of its training split.
        splits: Split -> names.
    """

    sha256: str
    has_words: bool
    splits: dict[str, SplitNames]


@dataclasses.dataclass(frozen=True)
class FeatureSplit:
    """A split of a feature file.

    Attributes:
        ids: Ids of the examples; () if the file has none.
        inputs: Name -> values of every example, (t f) or (t); a missing one has no
            steps.
        labels: Name -> labels, (n ...).
    """

    ids: Sequence[str]
    inputs: Mapping[str, Sequence[np.ndarray]]
    labels: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclasses.dataclass(frozen=True)
class FeatureArrays:
    """Content of a feature file.

    Attributes:
        sha256: Hash of its bytes.
        has_words: Its word ids are those of the words of its training split.
        splits: Split -> examples.
    """

    sha256: str
    has_words: bool
    splits: Mapping[str, FeatureSplit]


def read_feature_arrays(path: Path) -> FeatureArrays:
    """Returns all splits of a feature file, read in a sandboxed process.

    Args:
        path: A file, or a folder with a file for each split.

    Raises:
        DataError: The file is missing, damaged or of an unknown layout, or exceeds the
            limits of memory or time.
    """
    exists = os.path.isdir(path) or os.path.isfile(path)
    # An absent file is an error of the reader, with the most similar name.
    sizes = [memory_for(one) for one in (list_files(path) if exists else ())]
    with tempfile.TemporaryDirectory(prefix="mmfusion_jax_") as folder:
        names = run_sandboxed(
            "mmfusion_jax.data.feature_files.feature_arrays:write_feature_arrays",
            {"file": str(path), "folder": folder},
            FeatureNames,
            memory_gb=max(sizes, default=2.0),
            cpu_seconds=900,
            timeout=TIMEOUT,
            subject=f"reading {shorten(path.name)}",
        )
        # By name: a file may have taken over the process that wrote them.
        arrays = read_npz(Path(folder) / ARRAYS, [*_array_names(names)])
    splits = {
        split: FeatureSplit(
            part.ids,
            {
                name: np.split(
                    arrays[f"{split}_{name}"],
                    np.cumsum(arrays[f"{split}_{name}_lengths"])[:-1],
                )
                for name in part.inputs
            },
            {name: arrays[f"{split}_label_{name}"] for name in part.labels},
        )
        for split, part in names.splits.items()
    }
    return FeatureArrays(names.sha256, names.has_words, splits)


def _array_names(names: FeatureNames) -> Iterator[str]:
    """Yields the names of the arrays of all splits."""
    for split, part in names.splits.items():
        for name in part.inputs:
            yield from (f"{split}_{name}", f"{split}_{name}_lengths")
        yield from (f"{split}_label_{name}" for name in part.labels)


def write_feature_arrays(file: str, folder: str) -> FeatureNames:
    """Writes the arrays of a feature file to `arrays.npz`; runs in the sandbox.

    Args:
        file: Path of the file.
        folder: Folder to write to.
    """
    source = read_source(Path(file))
    arrays: dict[str, np.ndarray] = {}
    splits = {}
    for split, part in source.splits.items():
        for name, rows in part.inputs.items():
            values = [np.asarray(rows[i]) for i in range(len(part))]
            arrays[f"{split}_{name}"] = np.concatenate(values)
            arrays[f"{split}_{name}_lengths"] = np.array([len(x) for x in values])
        for name, values in part.labels.items():
            arrays[f"{split}_label_{name}"] = np.asarray(values)
        ids = [str(one) for one in part.ids]
        splits[split] = SplitNames(ids, [*part.inputs], [*part.labels])
    np.savez(Path(folder) / ARRAYS, **arrays)  # pyright: ignore[reportArgumentType]
    has_words = bool(source.splits["train"].tokens)
    return FeatureNames(source.sha256, has_words, splits)
