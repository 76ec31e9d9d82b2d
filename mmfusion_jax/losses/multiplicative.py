"""Multiplicative loss: late fusion that downweights weak modalities."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from mmfusion_jax.losses.candidates import EXAMPLE
from mmfusion_jax.losses.model_outputs import (
    UNIMODAL_LOGITS,
    check_fit,
    is_classes,
    model_output,
)
from mmfusion_jax.ops.late_fusion import multiplicative
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Fraction, Modalities
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class Multiplicative:
    """Cross-entropy of each modality, smaller if the others predict the true class.

        L = sum_m q_m^y (-log p_m^y),  q_m^y = prod_{j != m} (1 - p_j^y)^(beta / (M-1))

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
        >>> loss = mmf.losses.Multiplicative("emotion")(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [0.72 0.72]

    Attributes:
        label: Name in `Batch.labels`, (b) int classes y.
        modalities: Names; each has logits (b k) in `Outputs.aux["logits/<name>"]`.
        beta: Strength of the downweighting, 0..1.

    Reference:
        Liu et al. 2018; beta of CFN-SR, Table 1.
    """

    reads: ClassVar[str] = UNIMODAL_LOGITS
    scope: ClassVar[str] = EXAMPLE

    label: str
    modalities: Modalities = ("audio", "video")
    beta: Fraction = 0.3

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        logits = [model_output(outputs, f"logits/{name}") for name in self.modalities]
        label = batch.label(self.label)
        fits = is_classes(label) and logits[0].ndim == 2
        check_fit("multiplicative", logits[0], label, fits)
        present = jnp.stack(
            [batch.has_modalities(name) for name in self.modalities], axis=1
        )
        scores = multiplicative(
            zero_masked(jnp.stack(logits, axis=1), present),
            present,
            self.beta,
        )
        # Not a cross-entropy of the scores: they are not normalized, see
        # `multiplicative`.
        return -jnp.take_along_axis(scores, label[:, None], axis=1)[:, 0]
