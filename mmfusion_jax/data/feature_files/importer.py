"""Imports feature files into stores, after checking their values and splits."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import array_record.python.array_record_module  # noqa: F401  before limits apply
import numpy as np

from mmfusion_jax.data.feature_files.checksums import PUBLISHED_FILES
from mmfusion_jax.data.feature_files.import_manifest import (
    LICENSE,
    VERSION,
    manifest_fields,
    open_import,
)
from mmfusion_jax.data.feature_files.known_datasets import (
    FEATURE_DATASETS,
    check_labels,
)
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.data.feature_files.reader import Source, read_source
from mmfusion_jax.data.feature_files.statistics import (
    compute_statistics,
    count_nonfinite,
    problems,
    remarks,
    replace_nonfinite,
    shared_ids,
)
from mmfusion_jax.data.feature_files.summary import (
    FileSummary,
    ImportSummary,
    SplitStats,
)
from mmfusion_jax.data.storage.array_record_store import (
    FeatureSpec,
    make_folder,
    write_store,
)
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import DataError, shown, shown_name

FOLDER = "imported"
"""Folder of the cache with a folder for each dataset."""


def summarize_file(file: str, name: str = "") -> FileSummary:
    """Computes the statistics of a file without importing it.

    Args:
        file: Path of the file.
        name: Key of its dataset in `FEATURE_DATASETS`; "" to recognize it by its
            checksum.

    Raises:
        DataError: The file is not readable, or its labels are not those of `name`.
    """
    path = Path(file)
    source = read_source(path)
    known = PUBLISHED_FILES.get(source.sha256)
    name = name or (known.name if known else "")
    if name:
        _check(path, source, name)
    return _summary(path, source, name)


def import_file(file: str, name: str, parent: str, nan_to_zero: bool) -> ImportSummary:
    """Writes a file into a store, unless it exists.

    Args:
        file: Path of the file.
        name: Key of its dataset in `FEATURE_DATASETS`.
        parent: Folder of the stores of that dataset.
        nan_to_zero: Replace NaN and infinite values by 0, instead of raising an error.

    Raises:
        DataError: The file is not readable, is another dataset, contains NaN or
            infinite values, or has a clip in two splits.
    """
    path = Path(file)
    make_folder(Path(parent))
    source = read_source(path)
    _check(path, source, name)
    summary = _summary(path, source, name)
    bad = count_nonfinite(summary.splits)
    if bad and not nan_to_zero:
        raise _not_finite(path, summary.splits)
    _check_leakage(path, summary.splits)
    summary = dataclasses.replace(summary, repaired=bad)
    folder = Path(parent) / f"{source.layout}-{_short_hash(source)}"
    # Before write_store, after which it exists in any case.
    already_imported = folder.exists()
    splits = {s: _records(s, part) for s, part in source.splits.items()}
    features = _features(source.splits["train"])
    write_store(folder, features, splits, manifest_fields(summary))
    # Also checks a store that an earlier import wrote.
    open_import(folder, name)
    return ImportSummary(
        **vars(summary),
        license=LICENSE,
        folder=str(folder),
        already_imported=already_imported,
    )


def find_problems(summary: FileSummary) -> tuple[list[str], list[str]]:
    """Returns the problems of a file, and remarks about it."""
    wrong = problems(summary.splits, summary.spec)
    if summary.repaired:
        wrong = [w for w in wrong if "NaN or infinite" not in w]
    return wrong, remarks(summary.splits, summary.spec)


def _summary(path: Path, source: Source, name: str) -> FileSummary:
    """Returns the statistics of a file."""
    known = PUBLISHED_FILES.get(source.sha256)
    return FileSummary(
        file=path.name,
        layout=source.layout,
        sha256=source.sha256,
        known=known.title if known else "",
        name=name,
        splits=compute_statistics(source.splits),
    )


def _check(path: Path, source: Source, name: str) -> None:
    """Raises DataError if the file is not one of dataset `name`."""
    known = PUBLISHED_FILES.get(source.sha256)
    if known is not None and known.name != name:
        raise DataError(
            "D74",
            f"{path} is {known.title}, not {FEATURE_DATASETS[name].title}.",
            f"--dataset={shown_name(known.name)}",
        )
    for split, part in source.splits.items():
        check_labels(FEATURE_DATASETS[name], str(path), split, part)


def _check_leakage(path: Path, splits: Mapping[str, SplitStats]) -> None:
    """Raises DataError if a clip is in two splits."""
    if shared := shared_ids(splits):
        one, where = next(iter(shared.items()))
        raise DataError(
            "D73",
            f"{path}: {len(shared)} clips are in more than one split (data leakage), "
            f"such as {shown(one)} in {' and '.join(where)}.",
            "use the published splits",
        )


def _not_finite(path: Path, splits: Mapping[str, SplitStats]) -> DataError:
    """Returns the error for NaN and infinite values, with their numbers."""
    lines = []
    for split, counts in count_nonfinite(splits).items():
        for name in counts:
            stats = splits[split].inputs[name]
            lines.append(
                f"  {split:<5} {shown_name(name):<6} {stats.nan:d} NaN, "
                f"{stats.infinite:d} infinite"
            )
    return DataError(
        "D72",
        f"{path} contains NaN or infinite values:\n" + "\n".join(lines),
        "--nan_to_zero replaces them by 0, as is usual, and records their number",
    )


def _short_hash(source: Source) -> str:
    """Eight hex digits that identify the file and the version of the import."""
    key = f"{VERSION} {source.sha256}"
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def _features(part: Sequences) -> dict[str, FeatureSpec]:
    """Shapes and dtypes of the records of the store."""
    specs = {
        name: FeatureSpec((None, *rows[0].shape[1:]), str(rows[0].dtype))
        for name, rows in part.inputs.items()
    }
    specs |= {
        name: FeatureSpec(values.shape[1:], str(values.dtype))
        for name, values in part.labels.items()
    }
    return specs | {key: FeatureSpec((), "str") for key in ("id", "raw_text")}


def _records(split: str, part: Sequences) -> Iterator[dict[str, Any]]:
    """Yields the records of a split."""
    examples = track(part.examples(), len(part), f"importing {split}")
    for i, inputs in enumerate(examples):
        yield {
            **{name: replace_nonfinite(rows) for name, rows in inputs.items()},
            **{name: np.asarray(values[i]) for name, values in part.labels.items()},
            "id": part.ids[i] if part.ids else "",
            "raw_text": part.texts[i] if part.texts else "",
        }
