"""Fingerprints of datasets, to tell whether a run still has its data."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from mmfusion_jax.data.array_hashes import hash_arrays, update_hash
from mmfusion_jax.data.dataset import Dataset, Example, Source
from mmfusion_jax.data.dataset_checks import check_example
from mmfusion_jax.errors import shown
from mmfusion_jax.results.run_identity import (
    DataFingerprint,
    SplitFingerprint,
    sha256_json,
)

MAX_HASHED = 1024
"""Number of examples of a split, evenly spaced, that are read for its hash, where the
source does not give a `content_digest` and the dataset gives the labels."""


def fingerprint(data: Dataset) -> DataFingerprint:
    """Returns the fingerprint of a dataset, which does not depend on its path.

    The content of a split is the result of `content_digest` of its source, if the
    source has this method: sources of stores return a hash of the checksums in the
    manifest of the store, which were computed when it was built. Otherwise examples are
    read and hashed: all of them, or `MAX_HASHED` if the dataset gives the labels
    separately.

    Args:
        data: The dataset.

    Raises:
        DataError: An example is malformed.
    """
    first = data.source("train")[0]
    classes = {**data.classes, **data.flags}
    names = [name for name in (*classes, *data.values) if name in first["labels"]]
    tokenizer = data.preprocessing.tokenizer
    return DataFingerprint(
        dataset=data.name,
        splits={split: _split(data, split, names) for split in data.sources},
        classes={name: list(values) for name, values in classes.items()},
        ranges={
            name: [float(x) for x in (target.low, target.high, target.neutral)]
            for name, target in data.values.items()
        },
        inputs={
            name: f"{values.dtype.name} {values.shape}"
            for name, values in first["inputs"].items()
        },
        scaling={
            modality: sha256_json([scaling.kind, scaling.a, scaling.b])
            for modality, scaling in data.preprocessing.scaling.items()
        },
        vocabulary=sha256_json(tokenizer.vocabulary) if tokenizer else "",
    )


def _split(data: Dataset, split: str, names: Sequence[str]) -> SplitFingerprint:
    """Returns the fingerprint of a split."""
    source, given = data.sources[split], data.labels.get(split, {})
    count = len(source)
    if digest := getattr(source, "content_digest", None):
        content, hashed, labels = digest(), count, {}
    else:
        chosen = _chosen(count, all(name in given for name in names))
        content, labels = _read(source, split, chosen, names)
        hashed = len(chosen)
    for name in names:
        if name in given or name not in labels:
            labels[name] = data.label(split, name)
    return SplitFingerprint(
        count=count,
        ids=sha256_json(data.example_id_list(split)),
        labels={name: hash_arrays([np.asarray(x)]) for name, x in labels.items()},
        content=content,
        hashed=hashed,
    )


def _chosen(count: int, has_labels: bool) -> list[int]:
    """Returns the indices of the examples to read."""
    if count <= MAX_HASHED or not has_labels:
        return list(range(count))
    return np.linspace(0, count - 1, MAX_HASHED).round().astype(int).tolist()


def _read(
    source: Source, split: str, indices: Iterable[int], names: Sequence[str]
) -> tuple[str, dict[str, np.ndarray]]:
    """Returns the hash of some examples, and their labels."""
    sha256, labels = hashlib.sha256(), {name: [] for name in names}
    for index in indices:
        example = source[index]
        check_example(example, f"example {index} of split {shown(split)}")
        update_hash(sha256, _arrays(example))
        for name, values in labels.items():
            values.append(example["labels"].get(name))
    return sha256.hexdigest(), {n: np.array(v) for n, v in labels.items()}


def _arrays(example: Example) -> list[np.ndarray]:
    """Returns inputs, masks and weight of an example, in the order of their names."""
    inputs, masks = example["inputs"], example["masks"]
    arrays = [one[name] for one in (inputs, masks) for name in sorted(one)]
    return [*arrays, np.asarray(example["weight"], np.float32)]
