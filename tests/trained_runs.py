"""Runs trained in seconds, and the examples of their data as arrays."""

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tiny_dataset
from media_files import tone, write_video
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


def write_clips(folder: Path) -> Path:
    """Twelve clips of two classes and two speakers, with transcripts."""
    rows = ["file,label,split,speaker,text"]
    for i in range(12):
        color = (200, 30, 5 * i) if i % 2 else (5 * i, 30, 200)
        frames = [np.full((32, 32, 3), color, np.uint8)] * 5
        write_video(folder / f"{i}.mp4", frames, tone(0.4, 300 + 500 * (i % 2)))
        split = ("train",) * 6 + ("valid",) * 3 + ("test",) * 3
        words = ("good day", "bad day")[i % 2]
        rows.append(f"{i}.mp4,{'ab'[i % 2]},{split[i]},{split[i]} {i // 3},{words}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def train_on_clips(clips: Path, workdir: Path, cache: Path) -> Path:
    """A run of three modalities of `write_clips`, without its data in a cache."""
    config = tiny_dataset.config(**{"train.epochs": 3, "data.batch_size": 2})
    options = {"frames": 2, "size": 4, "sample_rate": 16000, "max_tokens": 5}
    config.data.update(
        name="clips",
        data_dir=str(clips),
        modalities=("audio", "text", "video"),
        workers=0,
        **options,
    )
    config.model = dict(name="concat_fc", hidden_dims=(4,), encoders={})
    for modality, name in (
        ("audio", "feature_tokens"), ("video", "image_cnn"), ("text", "conv_lstm")
    ):  # fmt: skip
        config.model.encoders[modality] = dict(name=name)
    config.model.encoders.audio.hidden_dim = 4
    config.model.encoders.video.channels = (4,)
    config.model.encoders.text.update(hidden_dim=4, vocab_size=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMFUSION_CACHE", str(cache))
        train(config, workdir)
    shutil.rmtree(cache)
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
