"""Imports feature files into stores, after checking their values and splits."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import array_record.python.array_record_module  # noqa: F401  before limits apply
import numpy as np

from mmfusion_jax.data.feature_files.bad_examples import (
    NOTHING,
    bad_examples_error,
    copies_to_drop,
    drop,
    find_bad,
)
from mmfusion_jax.data.feature_files.checksums import PUBLISHED_FILES
from mmfusion_jax.data.feature_files.example_ids import known_ids
from mmfusion_jax.data.feature_files.findings import copies, leaks, videos_of
from mmfusion_jax.data.feature_files.import_manifest import (
    VERSION,
    manifest_fields,
    open_import,
)
from mmfusion_jax.data.feature_files.known_datasets import (
    FEATURE_DATASETS,
    check_labels,
    license_of,
    suggest_dataset,
)
from mmfusion_jax.data.feature_files.leaks import find_equal
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.data.feature_files.reader import Source, read_source
from mmfusion_jax.data.feature_files.statistics import replace_nonfinite, scan
from mmfusion_jax.data.feature_files.summary import (
    FileSummary,
    ImportSummary,
    SplitStats,
    count_nonfinite,
)
from mmfusion_jax.data.storage.array_record_store import (
    FeatureSpec,
    make_folder,
    write_store,
)
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import DataError, shorten, shown_name
from mmfusion_jax.results.run_identity import sha256_json

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
    source = _with_known_ids(read_source(path))
    known = PUBLISHED_FILES.get(source.sha256)
    name = name or (known.name if known else "")
    if name:
        _check(path, source, name)
    return _summary(path, source, name)


def import_file(
    file: str,
    name: str,
    parent: str,
    nan_to_zero: bool,
    drop_bad: bool = False,
    equal_clips: bool = False,
) -> ImportSummary:
    """Writes a file into a store, unless it exists.

    Args:
        file: Path of the file.
        name: Key of its dataset in `FEATURE_DATASETS`.
        parent: Folder of the stores of that dataset.
        nan_to_zero: Replace NaN and infinite values by 0, instead of raising an error.
        drop_bad: Leave out the examples that cannot be used, and the copies of examples
            of another split, instead of raising an error.
        equal_clips: Accept examples with equal features in two splits.

    Raises:
        DataError: The file is not readable, is another dataset, contains NaN or
            infinite values or examples that cannot be used, or has a clip or video, or
            equal examples, in two splits.
    """
    path = Path(file)
    make_folder(Path(parent))
    source = _with_known_ids(read_source(path))
    _check(path, source, name)
    summary = _summary(path, source, name)
    if drop_bad:
        source, summary = _without_bad(path, source, summary)
    bad = count_nonfinite(summary.splits)
    if bad and not nan_to_zero:
        raise _not_finite(path, summary.splits)
    _check_usable(path, source, summary, equal_clips)
    summary = dataclasses.replace(summary, repaired=bad)
    folder = Path(parent) / f"{source.layout}-{_short_hash(source, summary)}"
    # Before write_store, after which it exists in any case.
    already_imported = folder.exists()
    splits = {s: _records(s, part) for s, part in source.splits.items()}
    features = _features(source.splits["train"])
    fields = manifest_fields(summary, source.vocabulary)
    write_store(folder, features, splits, fields)
    # Also checks a store that an earlier import wrote.
    open_import(folder, name)
    return ImportSummary(
        **vars(summary),
        license=license_of(name),
        folder=str(folder),
        already_imported=already_imported,
    )


def _with_known_ids(source: Source) -> Source:
    """Returns a file without the ids that identify no example."""
    ids = known_ids({split: part.ids for split, part in source.splits.items()})
    splits = {
        split: dataclasses.replace(part, ids=ids[split])
        for split, part in source.splits.items()
    }
    return dataclasses.replace(source, splits=splits)


def _summary(path: Path, source: Source, name: str) -> FileSummary:
    """Returns the statistics of a file."""
    known = PUBLISHED_FILES.get(source.sha256)
    scanned = scan(source.splits)
    empty = {split: part.empty for split, part in scanned.items()}
    return FileSummary(
        file=path.name,
        layout=source.layout,
        sha256=source.sha256,
        known=known.title if known else "",
        name=name,
        splits={split: part.stats for split, part in scanned.items()},
        bad=find_bad(source.splits, empty, FEATURE_DATASETS[name] if name else None),
        equal=find_equal({split: part.digests for split, part in scanned.items()}),
    )


def _without_bad(
    path: Path, source: Source, summary: FileSummary
) -> tuple[Source, FileSummary]:
    """Returns a file without its bad examples, and its new statistics."""
    copies = [] if summary.known else copies_to_drop(summary.equal, source.splits)
    if not (bad := [*summary.bad, *copies]):
        return source, summary
    source = dataclasses.replace(source, splits=drop(source.splits, bad))
    summary = _summary(path, source, summary.name)
    return source, dataclasses.replace(summary, dropped=bad)


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


def _check_usable(
    path: Path, source: Source, summary: FileSummary, equal_clips: bool
) -> None:
    """Raises DataError for examples that cannot be used, and for data leakage."""
    spec = FEATURE_DATASETS[summary.name]
    if summary.bad:
        hints = {suggest_dataset(spec, part.labels) for part in source.splits.values()}
        # Another dataset is a remedy only for scores that are out of range.
        outside = any(one.kind != NOTHING for one in summary.bad)
        hint = hints.pop() if outside and len(hints) == 1 else ""
        raise bad_examples_error(str(path), summary.bad, hint)
    # A copy of a test example makes the score of the test split invalid, and one of a
    # validation example the choice of the checkpoint.
    shared = leaks(summary, videos_of(summary.splits))
    equal = [] if equal_clips else copies(summary)
    if lines := [*shared, *equal]:
        listed = "\n".join(f"  {line}" for line in lines)
        fixes = []
        if shared:
            fixes.append("use the published splits, or put each video into one split")
        if equal:
            fixes.append(
                "--drop_bad leaves the copies out of the earlier split; --equal_clips "
                "accepts them, as --config.data.equal_clips=True does in a training"
            )
        raise DataError("D73", f"{path}:\n{listed}", shorten("; ".join(fixes)))


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


def _short_hash(source: Source, summary: FileSummary) -> str:
    """Eight hex digits that identify the file and how it was imported."""
    key = f"{VERSION} {source.sha256}"
    # An import without its words, as by earlier versions, is not that of the file.
    if source.vocabulary:
        sha256 = sha256_json([*source.vocabulary])
        key += f" {sha256}"
    # With other examples left out, it is other data.
    for one in summary.dropped:
        key += f" {one.split} {one.index:d}"
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
