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
    token_ids: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Dataset:
    """Returns a Dataset of decoded clips.

    Args:
        name: The word after the colon of a config.
        title: Its name in results.
        decoded: The decoded clips.
        keys: Split -> keys of its clips, in order.
        labels: Split -> label name -> (n) class indices, in the order of `keys`.
        classes: Label name -> class names.
        standardize: Standardize the MFCC with the statistics of the training split.
        augment: Augmentation of training examples.
        groups: Split -> speakers, for the leakage check.
        facts: Additional JSON values for the results.
        warnings: Additional warnings for the user.
        token_ids: Split -> ids (n t) and mask (n t) of the modality "text", in the
            order of `keys`; None without it.
    """
    spec, store = decoded.spec, decoded.store
    records = store.source(SPLIT)
    # Of the training split of this fold: the store has raw MFCC, which serve all folds.
    standardizer = decoded.standardizer(keys["train"]) if standardize else None
    sources = {
        split: ClipSource(
            records,
            [decoded.index[key] for key in part],
            labels[split],
            spec,
            decoded.audio_steps,
            standardizer,
            token_ids[split] if token_ids else None,
        )
        for split, part in keys.items()
    }
    total = len(decoded.index)
    missing = {name: decoded.count_without(name) for name in spec.modalities}
    if token_ids:
        masks = [mask for _, mask in token_ids.values()]
        missing["text"] = sum(int(np.sum(~mask.any(axis=1))) for mask in masks)
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
        augment if "video" in spec.modalities else None,  # it crops and flips frames
        labels,
        groups or {},
        {**common_facts, **(facts or {})},
        ids={"text": _id_range(token_ids)} if token_ids else {},
        example_ids=keys,
    )


def _id_range(
    token_ids: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> tuple[int, int]:
    """Returns the minimum and maximum id of unmasked tokens; 0 if there are none."""
    ids = np.concatenate([values[mask] for values, mask in token_ids.values()])
    return int(ids.min(initial=0)), int(ids.max(initial=0))
