"""Supervised losses."""

import dataclasses
from typing import Annotated, ClassVar

import einops
import jax.numpy as jnp
import optax

from mmfusion_jax.errors import ConfigError, shown
from mmfusion_jax.losses.candidates import EXAMPLE
from mmfusion_jax.losses.model_outputs import (
    PREDICTION,
    as_float32,
    check_fit,
    is_classes,
    model_output,
)
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import NonNegativeFloat, NotAllZero
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Negative log-probability of the true class, in nats.

        L = -sum_i y_i log softmax(prediction)_i                  (CFN-SR, Eq. 10)

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> batch = mmf.Batch(
        ...     {}, {"audio": jnp.ones((2, 5), bool)}, {"emotion": jnp.array([0, 1])}
        ... )
        >>> outputs = mmf.Outputs(jnp.array([[4.0, 0.0], [0.0, 0.0]]))
        >>> loss = mmf.losses.CrossEntropy("emotion")(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [0.02 0.69]

    Attributes:
        label: Name in `Batch.labels`, (b) int classes 0..k-1.
        logits: Name in `Outputs.aux` to use instead of the prediction.
        class_weights: Weight of the examples of each class; () for 1.

    Reference:
        CFN-SR, Eq. 10.
    Deviation:
        Eq. 10 takes the logarithm of the prediction of Eq. 9, which is not a
        probability; we insert the softmax.
    """

    reads: ClassVar[str] = PREDICTION
    scope: ClassVar[str] = EXAMPLE

    label: str
    logits: str = ""
    class_weights: Annotated[tuple[NonNegativeFloat, ...], NotAllZero()] = ()

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        logits = (
            model_output(outputs, self.logits) if self.logits else outputs.prediction
        )
        label = batch.label(self.label)
        check_fit(
            "cross_entropy", logits, label, is_classes(label) and logits.ndim == 2
        )
        self._check(logits.shape[-1])
        # A label of -1 would silently be the last class here, and one beyond the
        # classes NaN with a finite gradient, so `Task.check` refuses both before
        # training.
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
                f"class_weights={shown(self.class_weights)} of a loss must have "
                f"{classes:d} entries, one per class.",
            )


@dataclasses.dataclass(frozen=True)
class L1:
    """Absolute error, |prediction - y|.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> batch = mmf.Batch(
        ...     {}, {"audio": jnp.ones((2, 5), bool)}, {"score": jnp.array([1.0, -2.0])}
        ... )
        >>> outputs = mmf.Outputs(jnp.array([0.5, 1.0]))
        >>> mmf.losses.L1("score")(outputs, batch).tolist()
        [0.5, 3.0]

    Attributes:
        label: Name in `Batch.labels`, (b) float.

    Reference:
        MCL-MCF, Eq. 22.
    """

    reads: ClassVar[str] = PREDICTION
    scope: ClassVar[str] = EXAMPLE

    label: str

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return jnp.abs(_error("l1", outputs, batch, self.label))


@dataclasses.dataclass(frozen=True)
class MSE:
    """Squared error, (prediction - y)^2.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> batch = mmf.Batch(
        ...     {}, {"audio": jnp.ones((2, 5), bool)}, {"score": jnp.array([1.0, -2.0])}
        ... )
        >>> outputs = mmf.Outputs(jnp.array([0.5, 1.0]))
        >>> mmf.losses.MSE("score")(outputs, batch).tolist()
        [0.25, 9.0]

    Attributes:
        label: Name in `Batch.labels`, (b) float.

    Reference:
        MEA, Sec. III-G.
    """

    reads: ClassVar[str] = PREDICTION
    scope: ClassVar[str] = EXAMPLE

    label: str

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        return jnp.square(_error("mse", outputs, batch, self.label))


@dataclasses.dataclass(frozen=True)
class Multilabel:
    """Cross-entropy of binary labels, in nats, averaged over the labels.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> labels = {"emotions": jnp.array([[0, 1], [1, 1]])}
        >>> batch = mmf.Batch({}, {"audio": jnp.ones((2, 5), bool)}, labels)
        >>> outputs = mmf.Outputs(jnp.zeros((2, 4)))
        >>> loss = mmf.losses.Multilabel("emotions")(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [0.69 0.69]

    Attributes:
        label: Name in `Batch.labels`, (b j) int 0 or 1; the prediction (b 2j) contains
            the logits of 0 and 1 for each of them.

    Reference:
        MEA, Sec. III-G, cross-entropy, for the four emotions of Sec. IV-A; two logits
        for each as in MulT (Tsai et al. 2019).
    """

    reads: ClassVar[str] = PREDICTION
    scope: ClassVar[str] = EXAMPLE

    label: str

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        logits, flags = as_float32(outputs.prediction), batch.label(self.label)
        pairs = flags.ndim == 2 and logits.shape == (len(flags), 2 * flags.shape[1])
        check_fit("multilabel", logits, flags, pairs)
        logits = zero_masked(logits, batch.weight > 0)
        logits = einops.rearrange(logits, "b (j k) -> b j k", k=2)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, flags)
        return jnp.mean(loss, axis=1)


def _error(loss: str, outputs: Outputs, batch: Batch, label: str) -> Array:
    """Prediction minus label, (b); 0 on padding rows."""
    y_pred = as_float32(outputs.prediction)
    y_true = batch.label(label)
    check_fit(loss, y_pred, y_true, y_pred.ndim == y_true.ndim == 1)
    return zero_masked(y_pred - y_true.astype(y_pred.dtype), batch.weight > 0)
