"""What a run depends on: its data, its config, its fold and seed."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmfusion_jax.errors import shorten, shown

UNRECORDED = (
    "distributed",
    "data.num_read_threads",
    "train.log_every",
    "train.gradient_stats_every",
    "train.parallel_seeds",
    "train.diagnosis",
)
"""Fields of a config that do not change a run."""

ADDED = {"optim.gradient_balance": "none", "matmul_precision": "highest"}
"""Field that configs of earlier versions lack -> the value with which their runs go on.

On a CPU, where those were trained, every precision of products is the same."""


@dataclass(frozen=True)
class SplitFingerprint:
    """Hashes of the examples of one split; SHA-256, hexadecimal.

    Attributes:
        count: Number of examples.
        ids: Hash of their ids, in order.
        labels: Label -> hash of its values.
        content: Hash of inputs and masks, or of the files that they are made of.
        hashed: Number of examples that `content` depends on; less than `count` for a
            large source that does not give a digest of its content.
    """

    count: int
    ids: str
    labels: dict[str, str]
    content: str
    hashed: int


@dataclass(frozen=True)
class DataFingerprint:
    """Identifies the data of a fold, wherever they are stored.

    Attributes:
        dataset: Short name of the dataset.
        splits: Split -> its examples.
        classes: Label -> names of its classes or flags, by index.
        ranges: Numeric label -> minimum, maximum and neutral value.
        inputs: Modality -> dtype and padded shape of an example.
        scaling: Modality -> hash of the statistics that its values are scaled with.
        vocabulary: Hash of the vocabulary of transcripts; "" without one.
    """

    dataset: str
    splits: dict[str, SplitFingerprint]
    classes: dict[str, list[str]]
    ranges: dict[str, list[float]]
    inputs: dict[str, str]
    scaling: dict[str, str]
    vocabulary: str


@dataclass(frozen=True)
class RunIdentity:
    """What a run depends on; in every checkpoint and in `run.json`.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> run = mmf.read_result(Path("runs/cfn_sr")).runs[0]
        >>> run.identity.data.splits["train"].count
        1200

    Attributes:
        fold: Number of the fold.
        seed: Seed of weights, order and augmentation.
        stage: Modality of a unimodal stage; "" for the model.
        config_sha256: Result of `config_sha256` of the config.
        data: The data of the fold.
    """

    fold: int
    seed: int
    stage: str
    config_sha256: str
    data: DataFingerprint


def config_sha256(config: Mapping[str, Any]) -> str:
    """Returns a hash of the fields of a config that change a run.

    The number of seeds is not one of them: every seed is a run by itself.

    Args:
        config: All fields, as JSON values.
    """
    ignored = ("seeds", *UNRECORDED)
    return sha256_json(dict(_changing(config, ignored)))


def _changing(
    config: Mapping[str, Any], ignored: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yields the fields of a config, by full name."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        # With its earlier value a field is left out, so that the runs of an earlier
        # version, whose hash does not have it, can be resumed.
        if name in ignored or (name in ADDED and value == ADDED[name]):
            continue
        if isinstance(value, Mapping):
            yield from _changing(value, ignored, f"{name}.")
        else:
            yield name, value


def data_sha256(data: DataFingerprint) -> str:
    """Returns a hash of the data of a fold, the same wherever they are stored."""
    return sha256_json(asdict(data))


def sha256_json(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def config_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ, by full name: (old, new), None where absent.

    Fields that do not change a run are left out.
    """
    found = {}
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        a, b = (config.get(key, ADDED.get(name)) for config in (old, new))
        if name in UNRECORDED or a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= config_differences(a, b, f"{name}.")
        else:
            found[name] = (a, b)
    return found


def data_differences(
    old: DataFingerprint,
    new: DataFingerprint,
    *,
    content: bool = True,
    separator: str = ", now ",
) -> list[str]:
    """Returns what differs between two fingerprints, a phrase for each part.

    Args:
        old: The first one.
        new: The second one.
        content: False compares neither inputs nor their scaling.
        separator: Text between the first value and the second one.
    """
    found = []
    if old.dataset != new.dataset:
        found.append(f"dataset {shown(old.dataset)}{separator}{shown(new.dataset)}")
    found += _class_differences(old.classes, new.classes, separator)
    if old.ranges != new.ranges:
        found.append("range of a numeric label")
    for split in {**old.splits, **new.splits}:
        a, b = old.splits.get(split), new.splits.get(split)
        if a and b:
            found += _split_differences(split, a, b, content, separator)
        elif a or b:
            found.append(f"split {shown(split)} is {'removed' if a else 'new'}")
    return [*found, *(_input_differences(old, new, separator) if content else ())]


def _class_differences(
    old: Mapping[str, list[str]], new: Mapping[str, list[str]], separator: str
) -> Iterator[str]:
    """Yields how the classes or flags of the labels differ."""
    for label in sorted({*old, *new}):
        a, b = old.get(label), new.get(label)
        if a == b:
            continue
        if a is None or b is None:
            yield f"label {shown(label)} is {'new' if a is None else 'removed'}"
        elif len(a) != len(b):
            yield f"classes of label {shown(label)}: {len(a)}{separator}{len(b)}"
        else:
            i = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
            yield (
                f"classes of label {shown(label)}: class {i:d} is {shown(a[i])}, now "
                f"{shown(b[i])}"
            )


def _split_differences(
    split: str,
    old: SplitFingerprint,
    new: SplitFingerprint,
    content: bool,
    separator: str,
) -> Iterator[str]:
    """Yields how the examples of a split differ."""
    if old.count != new.count:
        yield f"split {shown(split)}: {old.count} examples{separator}{new.count}"
        return  # everything else of it differs too
    if old.ids != new.ids:
        yield f"ids of split {shown(split)}"
    for label in sorted({*old.labels, *new.labels}):
        if old.labels.get(label) != new.labels.get(label):
            yield f"label {shown(label)} of split {shown(split)}"
    if content and old.content != new.content:
        yield f"content of split {shown(split)}"


def _input_differences(
    old: DataFingerprint, new: DataFingerprint, separator: str
) -> Iterator[str]:
    """Yields how the shapes and the scaling of the inputs differ."""
    for modality in sorted({*old.inputs, *new.inputs}):
        a, b = old.inputs.get(modality), new.inputs.get(modality)
        if a != b:
            what = separator.join(shorten(x or "missing") for x in (a, b))
            yield f"{shorten(modality)} is {what}"
    for modality in sorted({*old.scaling, *new.scaling}):
        if old.scaling.get(modality) != new.scaling.get(modality):
            yield f"standardization of {shorten(modality)}"
    if old.vocabulary != new.vocabulary:
        yield "vocabulary"
