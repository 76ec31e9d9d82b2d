"""Losses against a label."""

import dataclasses

import jax.numpy as jnp
import optax

from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Loss term: the negative log-probability of the true class, in nats.

        L = -sum_i y_i log softmax(prediction)_i                  (CFN-SR, Eq. 10)

    Attributes:
        label: name in `Batch.labels`, (b) int classes 0..k-1.
        logits: name in `Outputs.extras` to use instead of the prediction.

    Reading:
        Eq. 10 takes the logarithm of the prediction of Eq. 9, which is not a
        probability yet: the softmax in between is meant.
    """

    label: str
    logits: str = ""

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        logits = outputs.extras[self.logits] if self.logits else outputs.prediction
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, batch.labels[self.label]
        )
