"""Builds a Dataset from decoded clips."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.media.decode_clips import (
    SPLIT,
    ClipSource,
    DecodedClips,
    summarize_skipped,
)
from mmfusion_jax.errors import shown_name


def assemble(
    name: str,
    title: str,
    decoded: DecodedClips,
    keys: Mapping[str, Sequence[str]],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    classes: Mapping[str, tuple[str, ...]],
    standardize: bool,
    augment: CropAndFlip | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    facts: Mapping[str, Any] | None = None,
    warnings: Iterable[str] = (),
) -> Dataset:
    """Returns a Dataset of decoded clips.

    Args:
        name: the word after the colon of a config.
        title: its name in results.
        decoded: the decoded clips.
        keys: split -> keys of its clips, in order.
        labels: split -> label name -> (n) class indices, in the order of `keys`.
        classes: label name -> class names.
        standardize: standardize the MFCC with the statistics of the training split.
        augment: augmentation of training examples.
        groups: split -> speakers, for the leakage check.
        facts: additional JSON values for the results.
        warnings: additional warnings for the user.
    """
    spec, store = decoded.spec, decoded.store
    records = store.source(SPLIT)
    standardizer = decoded.standardizer(keys["train"]) if standardize else None
    sources = {
        split: ClipSource(
            records,
            [decoded.index[key] for key in part],
            labels[split],
            spec,
            decoded.audio_steps,
            standardizer,
        )
        for split, part in keys.items()
    }
    total = len(decoded.index)
    missing = {name: decoded.count_without(name) for name in spec.modalities}
    warnings = list(warnings)
    for modality, count in missing.items():
        if count:
            warnings.append(
                f"{count} of {total} clips have no "
                f"{shown_name(modality)}, which is masked"
            )
    if decoded.skipped:
        warnings.append(
            summarize_skipped(decoded.skipped, total + len(decoded.skipped))
        )
    common_facts = {
        "prepared": store.folder.name,
        "spec": store.manifest["spec"],
        "missing": missing,
        "skipped": dict(decoded.skipped),
        "standardized": standardizer is not None,
        "warnings": warnings,
    }
    return Dataset(
        name,
        title,
        sources,
        classes,
        augment if "video" in spec.modalities else None,
        labels,
        groups or {},
        {**common_facts, **(facts or {})},
    )
