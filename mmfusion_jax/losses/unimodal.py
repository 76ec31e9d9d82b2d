"""What every modality says alone, against the label and against the prediction."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import chex
import einops
import jax
import jax.numpy as jnp

from mmfusion_jax.losses.model_outputs import as_float32, check_choice, model_output
from mmfusion_jax.losses.supervised import L1, MSE, CrossEntropy, Multilabel
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.types import Array, Batch, Outputs

KINDS: dict[str, Callable[[str], Any]] = {
    "cross_entropy": CrossEntropy,
    "multilabel": Multilabel,
    "l1": L1,
    "mse": MSE,
}


@dataclasses.dataclass(frozen=True)
class UnimodalLoss:
    """Loss term: the loss of every modality alone, the mean over those present.

    Attributes:
        label: name in `Batch.labels`.
        modalities: each has its logits in `Outputs.aux["logits/<name>"]`.
        kind: of loss: "cross_entropy", "multilabel", "l1" or "mse".

    Reference:
        Hetero-Fusion-Net, Eq. 12 needs such predictions.
    Deviation:
        The paper does not say how they are learned.
    """

    label: str
    modalities: tuple[str, ...]
    kind: Literal["cross_entropy", "multilabel", "l1", "mse"] = "cross_entropy"

    def __post_init__(self):
        check_choice("kind", self.kind, tuple(KINDS))

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        term = KINDS[self.kind](self.label)
        present = _present(self.modalities, batch)
        alone = _logits(self.modalities, outputs)
        losses = [
            term(Outputs(zero_masked(logits, present[:, m])), batch)
            for m, logits in enumerate(alone)
        ]
        return masked_mean(jnp.stack(losses, axis=1), present, axis=1)


@dataclasses.dataclass(frozen=True)
class Consistency:
    """Loss term: how far the modalities are from the prediction of all of them.

        L = 1 - mean_m cos(p_m, p),  the mean over the modalities present

    Attributes:
        modalities: each has its logits (b k) in `Outputs.aux["logits/<name>"]`.
        flags: the logits are pairs of no and yes: the mean over the flags.

    Reference:
        Hetero-Fusion-Net, Eq. 10 and 13.
    Deviation:
        The paper names a consistency loss and does not define it: 1 less its soft
        consistency, Eq. 13. An example without any modality adds 0.
    """

    modalities: tuple[str, ...]
    flags: bool = False

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        present = _present(self.modalities, batch)
        fused = zero_masked(as_float32(outputs.prediction), batch.weight > 0)
        chex.assert_rank(fused, 2)
        fused = self._probabilities(fused)
        distances = [
            1
            - self._cosine(
                self._probabilities(zero_masked(logits, present[:, m])), fused
            )
            for m, logits in enumerate(_logits(self.modalities, outputs))
        ]
        return masked_mean(jnp.stack(distances, axis=1), present, axis=1)

    def _probabilities(self, logits: Array) -> Array:
        """(b j k): j is 1, or the number of flags."""
        k = 2 if self.flags else logits.shape[-1]
        return jax.nn.softmax(einops.rearrange(logits, "b (j k) -> b j k", k=k))

    def _cosine(self, p: Array, q: Array) -> Array:
        """The mean over j of the cosine of (b j k) and (b j k), (b)."""
        lengths = jnp.sum(p * p, axis=-1) * jnp.sum(q * q, axis=-1)
        return jnp.mean(jnp.sum(p * q, axis=-1) * jax.lax.rsqrt(lengths), axis=1)


def _present(modalities: tuple[str, ...], batch: Batch) -> Array:
    """Which modalities a real example has, (b m) bool."""
    return jnp.stack([batch.has_modalities(name) for name in modalities], axis=1)


def _logits(modalities: tuple[str, ...], outputs: Outputs) -> list[Array]:
    """What every modality says alone."""
    return [model_output(outputs, f"logits/{name}") for name in modalities]
