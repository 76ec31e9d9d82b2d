"""A dataset in memory that is learned in seconds, for tests of entire runs."""

import numpy as np
from ml_collections import ConfigDict

from mmfusion_jax.config.base import base_config
from mmfusion_jax.data.dataset import Dataset, RegressionTarget, dataset_loader

CLASSES = ("low", "middle", "high")


class Tones:
    """Made-up clips: the class is the mean of both streams, with much noise."""

    def __init__(self, size: int, seed: int, endless: tuple[int, ...] = ()):
        self.size, self.seed, self.endless = size, seed, endless

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        rng = np.random.default_rng([self.seed, index])
        label = index % len(CLASSES)
        audio = rng.normal(label - 1, 1, (24, 4)).astype(np.float32)
        video = rng.normal(label - 1, 1, (1, 6)).astype(np.float32)
        if index in self.endless:
            video[:] = np.inf
        return {
            "inputs": {"audio": audio, "video": video},
            "masks": {"audio": np.ones(24, bool), "video": np.ones(1, bool)},
            "labels": {
                "label": np.int32(label),
                "score": np.float32(label - 1),
                "flags": np.array([label > 0, label > 1], np.int32),
            },
            "weight": np.float32(1),
        }


@dataset_loader(takes=("fold", "folds"))
def tones(
    *,
    fold: int = 0,
    folds: int = 1,
    valid: bool = True,
    broken: bool = False,
    endless: tuple[int, ...] = (),
) -> Dataset:
    """Thirty training examples and two small test splits.

    Args:
        fold: Another fold is another dataset.
        folds: Their number.
        valid: Whether there is a validation split.
        broken: Puts NaN into the sound of every training example.
        endless: Test examples whose video is infinite.
    """
    del folds
    sources = {"train": Tones(30, 3 * fold), "test": Tones(9, 3 * fold + 1, endless)}
    if valid:
        sources["valid"] = Tones(9, 3 * fold + 2)
    return Dataset(
        "tones",
        "tones (made up)",
        sources,
        classes={"label": CLASSES},
        augment=spoilt if broken else None,
        values={"score": RegressionTarget(-1, 1, family="sims")},
        flags={"flags": ("not low", "high")},
    )


def spoilt(example, rng):
    """The example with NaN as audio."""
    audio = np.full_like(example["inputs"]["audio"], np.nan)
    return {**example, "inputs": {**example["inputs"], "audio": audio}}


def config(**changes) -> ConfigDict:
    """A linear model of tones that trains in seconds.

    Args:
        **changes: Full names of fields -> values.
    """
    made = base_config()
    made.seed = 1234
    made.data.update(
        name="tiny_dataset:tones", label="label", batch_size=8, num_read_threads=1
    )
    made.model = dict(name="unimodal", encoders=dict(video=dict(name="feature_tokens")))
    made.model.encoders.video.hidden_dim = 8
    made.losses = dict(task=dict(name="cross_entropy", weight=1.0))
    made.train.update(epochs=4, log_every=2, diagnosis=False)
    made.optim.learning_rate = 1e-2
    made.update_from_flattened_dict(changes)
    return made
