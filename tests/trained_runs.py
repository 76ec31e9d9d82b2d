"""Runs trained in seconds, and the examples of their data as arrays."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tiny_dataset
from ml_collections import ConfigDict

from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.runner import experiment

LOSSES = {"label": "cross_entropy", "score": "l1", "flags": "multilabel"}
"""Label of the tiny dataset -> its loss."""


def fused(label: str = "label", **changes) -> ConfigDict:
    """A linear model of both modalities of the tiny dataset."""
    made = tiny_dataset.config(**{"data.label": label, "train.epochs": 3})
    made.model = dict(name="concat_fc", hidden_dims=(4,), encoders={})
    made.model.encoders.audio = dict(name="feature_tokens", hidden_dim=4)
    made.model.encoders.video = dict(name="feature_tokens", hidden_dim=4)
    if label == "score":
        made.train.selection_metric = "mae"
    made.losses = dict(task=dict(name=LOSSES[label], weight=1.0))
    made.update_from_flattened_dict(changes)
    return made


def train(config: ConfigDict, workdir: Path) -> Path:
    experiment.train(resolve(config), workdir, "a test")
    return workdir


def arrays(data: Dataset, split: str) -> tuple[Mapping, Mapping]:
    """The inputs and the masks of all examples of a split, (n t ...)."""
    source = data.source(split)
    examples = [source[i] for i in range(len(source))]
    stacked = lambda part: {
        name: np.stack([one[part][name] for one in examples])
        for name in examples[0][part]
    }
    return stacked("inputs"), stacked("masks")


def table(folder: Path, split: str) -> list[dict[str, str]]:
    """The rows of a split in predictions.csv."""
    with (folder / "predictions.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]
