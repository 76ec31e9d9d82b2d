"""Losses against a label."""

import dataclasses

import einops
import jax.numpy as jnp
import optax

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.model_outputs import as_float32, model_output
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Loss term: the negative log-probability of the true class, in nats.

        L = -sum_i y_i log softmax(prediction)_i                  (CFN-SR, Eq. 10)

    Attributes:
        label: name in `Batch.labels`, (b) int classes 0..k-1.
        logits: name in `Outputs.aux` to use instead of the prediction.
        class_weights: what an example of each class counts for; () for 1.

    Deviation:
        Eq. 10 takes the logarithm of the prediction of Eq. 9, which is not a
        probability yet: the softmax in between is meant.
    """

    label: str
    logits: str = ""
    class_weights: tuple[float, ...] = ()

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        logits = (
            model_output(outputs, self.logits) if self.logits else outputs.prediction
        )
        self._check(logits.shape[-1])
        label = batch.labels[self.label]
        loss = optax.softmax_cross_entropy_with_integer_labels(
            zero_masked(as_float32(logits), batch.weight > 0), label
        )
        if not self.class_weights:
            return loss
        return loss * jnp.array(self.class_weights, loss.dtype)[label]

    def _check(self, classes: int) -> None:
        if self.class_weights and len(self.class_weights) != classes:
            raise ConfigError(
                "C10",
                f"class_weights={self.class_weights} of a loss are not {classes}, one "
                "for each class.",
            )


@dataclasses.dataclass(frozen=True)
class L1:
    """Loss term: the distance from the label, |prediction - y|.

    Attributes:
        label: name in `Batch.labels`, (b) float.

    Reference:
        MCL-MCF, Eq. 22.
    """

    label: str

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return jnp.abs(_error(outputs, batch, self.label))


@dataclasses.dataclass(frozen=True)
class MSE:
    """Loss term: the squared distance from the label, (prediction - y)^2.

    Attributes:
        label: name in `Batch.labels`, (b) float.

    Reference:
        MEA, Sec. III-G.
    """

    label: str

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return jnp.square(_error(outputs, batch, self.label))


@dataclasses.dataclass(frozen=True)
class Multilabel:
    """Loss term: the cross-entropy of yes or no, in nats, the mean over the flags.

    Attributes:
        label: name in `Batch.labels`, (b j) int 0 or 1; the prediction (b 2j) holds the
            logits of no and yes of one flag after the other.

    Reference:
        MEA, Sec. III-G, for IEMOCAP.
    """

    label: str

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        logits = zero_masked(as_float32(outputs.prediction), batch.weight > 0)
        logits = einops.rearrange(logits, "b (j k) -> b j k", k=2)
        loss = optax.softmax_cross_entropy_with_integer_labels(
            logits, batch.labels[self.label]
        )
        return jnp.mean(loss, axis=1)


def _error(outputs: Outputs, batch: Batch, label: str) -> Array:
    """How far the prediction is above the label, (b); 0 on rows that fill up."""
    said = as_float32(outputs.prediction)
    return zero_masked(said - batch.labels[label].astype(said.dtype), batch.weight > 0)
