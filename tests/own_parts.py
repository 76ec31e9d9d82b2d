"""One part of every kind, as another package would have it."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny_dataset

from mmfusion_jax.data.dataset import dataset_loader
from mmfusion_jax.metrics.score_info import ScoreInfo
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.option_types import PositiveInt
from mmfusion_jax.types import AUX, Outputs, Tokens


class Linear(nn.Module):
    """A model that adds the means of all modalities."""

    encoders: dict
    head_size: int
    width: PositiveInt = 4

    @nn.compact
    def __call__(self, batch, *, train):
        total = 0
        for name, encoder in self.encoders.items():
            tokens = encoder(batch.inputs[name], batch.valid_mask(name), train=train)
            mean = masked_mean(tokens.values, tokens.mask, axis=1)
            total = total + nn.Dense(self.width, name=f"to_{name}")(mean)
        return Outputs(nn.Dense(self.head_size, name="head")(total), {"total": total})


class Normalized(nn.Module):
    """An encoder that normalizes what another encoder is given."""

    encoder: nn.Module

    @nn.compact
    def __call__(self, values, mask, *, train):
        x = zero_masked(values, mask)
        x = x / (1 + jnp.abs(x))
        return self.encoder(x, mask, train=train)


class Projected(nn.Module):
    """An encoder: a linear layer."""

    hidden_dim: PositiveInt = 4

    @nn.compact
    def __call__(self, values, mask, *, train):
        x = nn.Dense(self.hidden_dim, name="out")(zero_masked(values, mask))
        return Tokens(zero_masked(x, mask), mask)


class Scaled(nn.Module):
    """A fusion block that multiplies a modality."""

    modality_order: tuple[str, ...]
    target: str
    factor: float = 2.0

    @nn.compact
    def __call__(self, streams, *, train):
        scale = self.param("scale", nn.initializers.constant(self.factor), ())
        tokens = streams[self.target]
        return {**streams, self.target: tokens.replace(values=scale * tokens.values)}


class SumOfMeans(nn.Module):
    """A fusion block that returns a vector, and stores an auxiliary output."""

    has_aux: ClassVar[bool] = True

    modality_order: tuple[str, ...]

    @nn.compact
    def __call__(self, streams, *, train):
        parts = [streams[m] for m in self.modality_order]
        total = sum(masked_mean(t.values, t.mask, axis=1) for t in parts)
        self.sow(AUX, "confidence", jax.nn.sigmoid(total[:, 0]))
        return total


class Result(nn.Module):
    """A fusion block that returns something else."""

    kind: str = ""

    @nn.compact
    def __call__(self, streams, *, train):
        if self.kind == "lost":
            return {"audio": streams["audio"]}
        if self.kind == "flat":
            audio = streams["audio"].replace(values=streams["audio"].values[:, 0])
            return {**streams, "audio": audio}
        return {"None": None, "vector": streams["audio"].values}[self.kind or "None"]


class FusionWithoutTrain(nn.Module):
    """Its call lacks an argument."""

    def __call__(self, streams):
        return streams


def fuse(streams, train):
    """A fusion block that is not a class."""
    return streams


@dataclasses.dataclass(frozen=True)
class Margin:
    """A loss: the mean square of the logits."""

    label: str
    factor: float = 1.0

    def __call__(self, outputs, batch):
        return self.factor * jnp.mean(jnp.square(outputs.prediction), axis=-1)


ERRORS = ScoreInfo(
    "errors",
    lambda collected: float(
        np.mean(collected["prediction"].argmax(-1) != collected["truth"])
    ),
    "Fraction of wrong predictions.",
    label="Errors",
    unit="",
    higher_is_better=False,
)


@dataset_loader(takes=("fold", "folds"))
def quiet_tones(*, fold: int = 0, folds: int = 1, count: PositiveInt = 30):
    """The tones by another name."""
    del count
    return tiny_dataset.tones(fold=fold, folds=folds)


@dataclasses.dataclass(frozen=True)
class Louder:
    """An augmentation."""

    modality: str
    factor: float = 2.0

    def __call__(self, example, rng):
        x = np.float32(self.factor) * example["inputs"][self.modality]
        return {**example, "inputs": {**example["inputs"], self.modality: x}}


@dataclasses.dataclass(frozen=True)
class Same:
    """An augmentation without options."""

    modality: str

    def __call__(self, example, rng):
        return example


def sgd(learning_rate, momentum: float = 0.5):
    """An optimizer."""
    return optax.sgd(learning_rate, momentum)


def halved(rate, steps, after: float = 0.5):
    """A schedule."""
    return lambda step: jnp.where(step < after * steps, rate, rate / 2)
