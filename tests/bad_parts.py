"""Parts of another package that do not do what a part of their kind must do."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import tiny_dataset

from mmfusion_jax.data.dataset import Dataset, RegressionTarget
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.types import Outputs, Tokens


class NotAModel:
    """An object without init and apply."""

    def __init__(self, encoders, head_size):
        del encoders, head_size


class Model(nn.Module):
    """A linear model whose result depends on `kind`."""

    encoders: dict
    head_size: int
    kind: str = ""

    @nn.compact
    def __call__(self, batch, *, train):
        x = jnp.mean(batch.inputs["video"], axis=1)
        if self.kind == "no parameters":
            return Outputs(x[:, : self.head_size])
        if self.kind == "raises":
            return x @ jnp.ones((99, 3))
        if self.kind == "scalar":
            return Outputs(nn.Dense(self.head_size)(x), {"scale": jnp.ones(())})
        if self.kind == "classes":
            return Outputs(nn.Dense(self.head_size)(x).astype(jnp.int32))
        y = nn.Dense(7 if self.kind == "wrong size" else self.head_size)(x)
        return y if self.kind == "an array" else Outputs(y)


class Encoder(nn.Module):
    """An encoder whose result depends on `kind`."""

    kind: str = ""

    def __post_init__(self):
        if self.kind == "refused":
            raise ValueError("no such kind")
        super().__post_init__()

    @nn.compact
    def __call__(self, values, mask, *, train):
        if self.kind == "flat":
            return Tokens(values[:, 0], mask)
        return values if self.kind == "an array" else Tokens(values, mask)


class OddWeights(Encoder):
    """Its weight mapping is a dict."""

    weight_mapping: ClassVar = {"dense/kernel": "fc.weight"}


class EncoderWithoutTrain(nn.Module):
    """Its call lacks an argument."""

    def __call__(self, values, mask):
        return Tokens(values, mask)


def loss_function(outputs, batch):
    """A loss that is not a class."""
    return outputs.prediction[:, 0]


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss whose result depends on `kind`."""

    kind: str = ""

    def __call__(self, outputs, batch):
        if self.kind == "a key":
            return outputs.aux["smell"]
        if self.kind == "per class":
            return outputs.prediction
        return None


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Returns something else than an example."""

    modality: str
    kind: str = ""

    def __call__(self, example, rng):
        if self.kind == "a key":
            return example["nothing"]
        if self.kind == "longer":
            longer = np.zeros((30, 4), np.float32)
            return {**example, "inputs": {**example["inputs"], "audio": longer}}
        return None


TONES = tiny_dataset.Tones(9, 1)
SOURCES = {"train": TONES, "valid": TONES, "test": TONES}
UNLABELED = [{**TONES[0], "labels": {}}]


def arrays(steps: int = 1, labels: int = 9) -> InMemory:
    """Nine examples, with masks of some steps and some labels."""
    return InMemory(
        {"video": np.zeros((9, 1, 6), np.float32)},
        {"video": np.ones((9, steps), bool)},
        {"label": np.zeros(labels, np.int32)},
    )


def raises():
    raise FileNotFoundError("no such clip")


CHANGES = {
    "": dict,
    "raises": raises,
    "no train": lambda: {"sources": {"test": TONES}},
    "empty": lambda: {"sources": SOURCES | {"valid": []}},
    "mask": lambda: {"sources": SOURCES | {"train": arrays(steps=3)}},
    "lengths": lambda: {"sources": SOURCES | {"train": arrays(labels=4)}},
    "text": lambda: {"sources": SOURCES | {"train": [{"video": np.zeros(3)}]}},
    "dev": lambda: {"sources": SOURCES | {"dev": TONES}},
    "generator": lambda: {"sources": SOURCES | {"valid": iter(())}},
    "unlabeled": lambda: {"sources": SOURCES | {"valid": UNLABELED}},
    "facts": lambda: {"facts": {"mean": np.zeros(3)}},
    "target": lambda: {"classes": {}, "values": {"label": (0, 1)}},
    "family": lambda: {
        "classes": {},
        "values": {"label": RegressionTarget(-1, 1, family="nothing_of_that_name:X")},
    },
    "flags": lambda: {"classes": {}, "flags": {"label": ("x", "y")}},
    "labels": lambda: {"labels": {"train": {"label": np.zeros(3, np.int32)}}},
}
"""Kind -> the fields of a dataset that are wrong."""


def dataset(kind: str = ""):
    """A dataset that is wrong in one way."""
    if kind == "None":
        return None
    changes = CHANGES[kind]()
    classes = {"label": tiny_dataset.CLASSES}
    return dataclasses.replace(Dataset("bad", "bad", SOURCES, classes), **changes)


def undeclared(fold):
    return dataset()


def no_schedule(rate, steps):
    return "fast"


def no_optimizer(learning_rate):
    return None
