"""Losses on unimodal predictions (Hetero-Fusion-Net)."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import einops
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.candidates import EXAMPLE
from mmfusion_jax.losses.model_outputs import (
    UNIMODAL_LOGITS,
    as_float32,
    check_choice,
    model_output,
)
from mmfusion_jax.losses.supervised import L1, MSE, CrossEntropy, Multilabel
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.option_types import Modalities
from mmfusion_jax.types import Array, Batch, Outputs

KINDS: dict[str, Callable[[str], Any]] = {
    "cross_entropy": CrossEntropy,
    "multilabel": Multilabel,
    "l1": L1,
    "mse": MSE,
}


@dataclasses.dataclass(frozen=True)
class UnimodalLoss:
    """Mean of the losses of the unimodal predictions.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch(
        ...     {}, {"audio": mask, "video": mask}, {"emotion": jnp.array([0, 1])}
        ... )
        >>> outputs = mmf.Outputs(
        ...     jnp.zeros((2, 2)),
        ...     {"logits/audio": jnp.zeros((2, 2)), "logits/video": jnp.eye(2)},
        ... )
        >>> term = mmf.losses.UnimodalLoss("emotion", ("audio", "video"))
        >>> loss = term(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [0.5 0.5]

    Attributes:
        label: Name in `Batch.labels`.
        modalities: Names; each has logits in `Outputs.aux["logits/<name>"]`.
        kind: "cross_entropy", "multilabel", "l1" or "mse".

    Reference:
        Hetero-Fusion-Net; Eq. 12 needs such predictions.
    Deviation:
        The paper does not describe how they are trained. The mean is over the
        modalities that are present.
    """

    reads: ClassVar[str] = UNIMODAL_LOGITS
    scope: ClassVar[str] = EXAMPLE

    label: str
    modalities: Modalities
    kind: Literal["cross_entropy", "multilabel", "l1", "mse"] = "cross_entropy"

    def __post_init__(self):
        check_choice("kind", self.kind, tuple(KINDS))

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        term = KINDS[self.kind](self.label)
        present = _present(self.modalities, batch)
        unimodal = _logits(self.modalities, outputs)
        losses = [
            term(Outputs(zero_masked(logits, present[:, m])), batch)
            for m, logits in enumerate(unimodal)
        ]
        return masked_mean(jnp.stack(losses, axis=1), present, axis=1)


@dataclasses.dataclass(frozen=True)
class Consistency:
    """Cosine distance between unimodal predictions and the fused prediction.

        L = 1 - mean_m cos(p_m, p),  m the modalities that are present

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch(
        ...     {}, {"audio": mask, "video": mask}, {"emotion": jnp.array([0, 1])}
        ... )
        >>> outputs = mmf.Outputs(
        ...     jnp.zeros((2, 2)),
        ...     {"logits/audio": jnp.zeros((2, 2)), "logits/video": jnp.eye(2)},
        ... )
        >>> term = mmf.losses.Consistency(("audio", "video"))
        >>> loss = term(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [0.05 0.05]

    Attributes:
        modalities: Names; each has logits (b k) in `Outputs.aux["logits/<name>"]`.
        flags: The logits are pairs of 0 and 1, one pair per binary label; the result
            is the mean over the labels.

    Reference:
        Hetero-Fusion-Net, Eq. 10 and 13.
    Deviation:
        The paper names a consistency loss without defining it; ours is 1 minus its soft
        consistency, Eq. 13. An example without any modality contributes 0.
    """

    reads: ClassVar[str] = UNIMODAL_LOGITS
    scope: ClassVar[str] = EXAMPLE

    modalities: Modalities
    flags: bool = False

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        present = _present(self.modalities, batch)
        fused = zero_masked(as_float32(outputs.prediction), batch.weight > 0)
        if fused.ndim != 2:
            raise ConfigError(
                "C34",
                "the loss 'consistency' compares class probabilities, but the "
                f"predictions are {fused.shape}.",
                "remove this term of config.losses, or predict classes",
            )
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
        """Probabilities (b j k); j is 1, or the number of binary labels."""
        k = 2 if self.flags else logits.shape[-1]
        return jax.nn.softmax(einops.rearrange(logits, "b (j k) -> b j k", k=k))

    def _cosine(self, p: Array, q: Array) -> Array:
        """Mean over j of the cosine similarity of (b j k) and (b j k), (b)."""
        norms = jnp.sum(p * p, axis=-1) * jnp.sum(q * q, axis=-1)
        # Probabilities are never all 0, so the root needs no epsilon.
        return jnp.mean(jnp.sum(p * q, axis=-1) * jax.lax.rsqrt(norms), axis=1)


def _present(modalities: tuple[str, ...], batch: Batch) -> Array:
    """Returns which modalities are present in valid examples, (b m) bool."""
    return jnp.stack([batch.has_modalities(name) for name in modalities], axis=1)


def _logits(modalities: tuple[str, ...], outputs: Outputs) -> list[Array]:
    """Logits of every modality."""
    return [model_output(outputs, f"logits/{name}") for name in modalities]
