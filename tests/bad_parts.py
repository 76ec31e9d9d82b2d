"""Parts of another package that do not do what a part of their kind must do."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import tiny_dataset

from mmfusion_jax.data.dataset import Dataset
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


def dataset(kind: str = ""):
    """A dataset that is wrong in one way."""
    if kind == "None":
        return None
    if kind == "raises":
        raise FileNotFoundError("no such clip")
    sources = {split: tiny_dataset.Tones(9, 1) for split in ("train", "valid", "test")}
    if kind == "no train":
        del sources["train"]
    if kind == "empty":
        sources["valid"] = []
    if kind in ("mask", "lengths"):
        masks = {"video": np.ones((9, 3 if kind == "mask" else 1), bool)}
        label = np.zeros(9 if kind == "mask" else 4, np.int32)
        video = np.zeros((9, 1, 6), np.float32)
        sources["train"] = InMemory({"video": video}, masks, {"label": label})
    if kind == "text":
        sources["train"] = [{"video": np.zeros(3)}]
    return Dataset("bad", "bad", sources, {"label": tiny_dataset.CLASSES})


def no_schedule(rate, steps):
    return "fast"


def no_optimizer(learning_rate):
    return None
