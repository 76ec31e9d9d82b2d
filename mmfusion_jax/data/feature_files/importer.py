"""From a file of features to a store: read once, looked at, written whole."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import array_record.python.array_record_module  # noqa: F401  before limits bind
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
from mmfusion_jax.errors import DataError

JSON = Any
FOLDER = "imported"
"""Of the cache, in which there is a folder for each data set."""

VERSION = 1
"""Part of the name of every store: raise it when the same file gives other values."""


def summarize_file(file: str, name: str = "") -> JSON:
    """What is in a file, without importing it.

    Args:
        file: its path.
        name: of the data set it should be; "" for the one that it is known as.

    Returns:
        "layout", "sha256", "known", "name", "report" (of `survey`).

    Raises:
        DataError: it cannot be read, or its labels are not those of `name`.
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
    """Writes what is in a file into a store, or finds that it is there.

    Args:
        file: its path.
        name: of the data set it is.
        parent: folder of the stores of that data set.
        nan_to_zero: write 0 for what is NaN or infinite, instead of refusing the file.

    Returns:
        What `summarize_file` does, and "folder", "repaired" and "there" (it was
        before).

    Raises:
        DataError: it cannot be read, is not `name`, or should not be trained on.
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
    _check_clips(path, report)
    folder = Path(parent) / f"{source.layout}-{_mark(source)}"
    there = folder.exists()
    manifest = {
        "file": path.name,
        "layout": source.layout,
        "sha256": source.sha256,
        "known": known.title if known else "",
        "name": name,
        "report": report,
        "repaired": bad,
        "licence": "research use; see the terms of the data set",
    }
    splits = {s: _records(s, part) for s, part in source.splits.items()}
    write_store(folder, _features(source.splits["train"]), splits, manifest)
    open_store(folder)
    return {**manifest, "folder": str(folder), "there": there}


def find_problems(found: Mapping[str, JSON]) -> tuple[list[str], list[str]]:
    """What is wrong with a file, and what one should know of it.

    Args:
        found: what `summarize_file` or `import_file` returned.
    """
    kind = FEATURE_DATASETS.get(found["name"])
    wrong = problems(found["report"], kind)
    if found.get("repaired"):
        wrong = [w for w in wrong if "NaN or infinite" not in w]
    return wrong, remarks(found["report"], kind)


def _check(path: Path, source: Source, name: str) -> None:
    """Raises DataError if the file is not of the data set `name`."""
    known = PUBLISHED_FILES.get(source.sha256)
    if known is not None and known.name != name:
        raise DataError(
            "D74",
            f"{path} is {known.title}, and not {FEATURE_DATASETS[name].title}.",
            f"--as={known.name}",
        )
    for split, part in source.splits.items():
        check_labels(FEATURE_DATASETS[name], str(path), split, part)


def _check_clips(path: Path, report: Mapping[str, JSON]) -> None:
    """Raises DataError if a clip is in two splits."""
    if twice := shared_ids(report):
        one, where = next(iter(twice.items()))
        raise DataError(
            "D73",
            f"{path}: {len(twice)} clips are in more than one split, such as {one!r} "
            f"in {' and '.join(where)}.",
            "scores would measure memory: take the splits from their publisher",
        )


def _not_finite(path: Path, report: Mapping[str, JSON]) -> DataError:
    """The error for values that are no numbers, all of them counted."""
    lines = []
    for split, counts in count_nonfinite(report).items():
        for name in counts:
            told = report[split]["inputs"][name]
            lines.append(
                f"  {split:<5} {name:<6} {told['nan']} NaN, {told['infinite']} infinite"
            )
    return DataError(
        "D72",
        f"{path} holds values that are no numbers:\n" + "\n".join(lines),
        "--repair writes 0 for them, as the field does, and the manifest counts them",
    )


def _mark(source: Source) -> str:
    """Eight letters that say which file was imported, and how."""
    told = f"{VERSION} {source.sha256}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _features(part: Sequences) -> dict[str, FeatureSpec]:
    """What an example of the store looks like."""
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
    """The examples of a split as they are stored."""
    examples = track(part.examples(), len(part), f"importing {split}")
    for i, inputs in enumerate(examples):
        yield {
            **{name: replace_nonfinite(rows) for name, rows in inputs.items()},
            **{name: np.asarray(values[i]) for name, values in part.labels.items()},
            "id": part.ids[i] if part.ids else "",
            "raw_text": part.texts[i] if part.texts else "",
        }
