"""Imports feature files into stores, after checking their values and splits."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import array_record.python.array_record_module  # noqa: F401  before limits apply
import numpy as np

from mmfusion_jax.data.feature_files.checksums import PUBLISHED_FILES
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
from mmfusion_jax.data.storage.array_record_store import (
    FeatureSpec,
    make_folder,
    open_store,
    write_store,
)
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import DataError, shown, shown_name

JSON = Any
FOLDER = "imported"
"""Folder of the cache with a folder for each dataset."""

VERSION = 1
"""Part of the name of every store: increase it when the stored values change."""


def summarize_file(file: str, name: str = "") -> JSON:
    """Computes the statistics of a file without importing it.

    Args:
        file: Path of the file.
        name: Key of its dataset in `FEATURE_DATASETS`; "" to recognize it by its
            checksum.

    Returns:
        "file", "layout", "sha256", "known", "name" and "report", the result of
        `compute_statistics`.

    Raises:
        DataError: The file is not readable, or its labels are not those of `name`.
    """
    path = Path(file)
    source = read_source(path)
    known = PUBLISHED_FILES.get(source.sha256)
    name = name or (known.name if known else "")
    if name:
        _check(path, source, name)
    return {
        "file": path.name,
        "layout": source.layout,
        "sha256": source.sha256,
        "known": known.title if known else "",
        "name": name,
        "report": compute_statistics(source.splits),
    }


def import_file(file: str, name: str, parent: str, nan_to_zero: bool) -> JSON:
    """Writes a file into a store, unless it exists.

    Args:
        file: Path of the file.
        name: Key of its dataset in `FEATURE_DATASETS`.
        parent: Folder of the stores of that dataset.
        nan_to_zero: Replace NaN and infinite values by 0, instead of raising an error.

    Returns:
        The result of `summarize_file`, and "folder", "repaired" (split -> modality ->
        number of replaced values) and "already_imported".

    Raises:
        DataError: The file is not readable, is another dataset, contains NaN or
            infinite values, or has a clip in two splits.
    """
    path = Path(file)
    make_folder(Path(parent))
    source = read_source(path)
    _check(path, source, name)
    known = PUBLISHED_FILES.get(source.sha256)
    report = compute_statistics(source.splits)
    bad = count_nonfinite(report)
    if bad and not nan_to_zero:
        raise _not_finite(path, report)
    _check_leakage(path, report)
    folder = Path(parent) / f"{source.layout}-{_short_hash(source)}"
    # Before write_store, after which it exists in any case.
    already_imported = folder.exists()
    manifest = {
        "file": path.name,
        "layout": source.layout,
        "sha256": source.sha256,
        "known": known.title if known else "",
        "name": name,
        "report": report,
        "repaired": bad,
        "licence": "research use; see the terms of the dataset",
    }
    splits = {s: _records(s, part) for s, part in source.splits.items()}
    write_store(folder, _features(source.splits["train"]), splits, manifest)
    # Also checks a store that an earlier import wrote.
    open_store(folder)
    return {
        **manifest,
        "folder": str(folder),
        "already_imported": already_imported,
    }


def find_problems(found: Mapping[str, JSON]) -> tuple[list[str], list[str]]:
    """Returns the problems of a file, and remarks about it.

    Args:
        found: Result of `summarize_file` or `import_file`.
    """
    spec = FEATURE_DATASETS.get(found["name"])
    wrong = problems(found["report"], spec)
    if found.get("repaired"):
        wrong = [w for w in wrong if "NaN or infinite" not in w]
    return wrong, remarks(found["report"], spec)


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


def _check_leakage(path: Path, report: Mapping[str, JSON]) -> None:
    """Raises DataError if a clip is in two splits."""
    if shared := shared_ids(report):
        one, splits = next(iter(shared.items()))
        raise DataError(
            "D73",
            f"{path}: {len(shared)} clips are in more than one split (data leakage), "
            f"such as {shown(one)} in {' and '.join(splits)}.",
            "use the published splits",
        )


def _not_finite(path: Path, report: Mapping[str, JSON]) -> DataError:
    """Returns the error for NaN and infinite values, with their numbers."""
    lines = []
    for split, counts in count_nonfinite(report).items():
        for name in counts:
            stats = report[split]["inputs"][name]
            nan, infinite = stats["nan"], stats["infinite"]
            lines.append(
                f"  {split:<5} {shown_name(name):<6} {nan:d} NaN, {infinite:d} infinite"
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
