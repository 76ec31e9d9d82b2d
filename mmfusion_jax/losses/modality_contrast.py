"""Contrastive loss between the modalities of an example (OF-CMAER-CAT)."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp

from mmfusion_jax.losses.model_outputs import check_choice, model_output
from mmfusion_jax.ops.contrastive import contrast, info_nce, l2_normalize
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Names, PositiveFloat
from mmfusion_jax.types import Array, Batch, Outputs

NEGATIVES = ("batch", "same_sample")


@dataclasses.dataclass(frozen=True)
class ModalityContrast:
    """InfoNCE with the other modalities of the same example as positives.

        L_con = -sum_i mean_j log(exp(s_ij / tau) / sum_q exp(s_iq / tau))     (15-17)

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> names = ("audio", "video")
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch({}, {"audio": mask, "video": mask})
        >>> outputs = mmf.Outputs(
        ...     jnp.zeros((2, 3)), {f"pooled/{m}": jnp.eye(2) for m in names}
        ... )
        >>> loss = mmf.losses.ModalityContrast(names, temperature=1.0)(outputs, batch)
        >>> print(np.asarray(loss).round(2))
        [0.63 0.63]

    Attributes:
        modalities: Names; each has `Outputs.aux["pooled/<m>"]`, (b d).
        temperature: tau.
        negatives: "batch": the positives are the other modalities j of the example,
            the candidates those of all examples. "same_sample": the positive is the
            next modality, the first after the last, and the candidates are the other
            modalities of the example.

    Reference:
        OF-CMAER-CAT, Eq. 15-17.
    Deviation:
        All indices n of Eq. 15-16 are those of one example, which "same_sample"
        follows literally; the text sums over the batch. A missing modality is neither
        anchor nor positive nor negative.
    """

    compares_modalities: ClassVar[bool] = True

    modalities: Names
    temperature: PositiveFloat = 0.1
    negatives: str = "batch"

    def __post_init__(self):
        check_choice("negatives", self.negatives, NEGATIVES)

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        present = [batch.has_modalities(name) for name in self.modalities]
        views = [
            l2_normalize(zero_masked(model_output(outputs, f"pooled/{name}"), mask))
            for name, mask in zip(self.modalities, present, strict=True)
        ]
        form = _in_batch if self.negatives == "batch" else _in_sample
        return form(views, present, 1 / self.temperature)


def _in_batch(views: Sequence[Array], present: Sequence[Array], scale: float) -> Array:
    """Sum over anchors of the mean loss over their positives, (b)."""
    total = jnp.zeros(present[0].shape, jnp.float32)
    for i, anchor in enumerate(views):
        # Counted per example, since the positives are the modalities that it has.
        loss, count = jnp.zeros_like(total), jnp.zeros_like(total)
        for j, positive in enumerate(views):
            if j != i:
                both = present[i] & present[j]
                loss += info_nce(anchor, positive, both, scale=scale, symmetric=False)
                count += both
        total += loss / jnp.maximum(count, 1)
    return total


def _in_sample(views: Sequence[Array], present: Sequence[Array], scale: float) -> Array:
    """Sum over anchors of the loss with the next modality as the positive, (b)."""
    stacked, mask = jnp.stack(views, axis=1), jnp.stack(present, axis=1)  # b m d, b m
    own = jnp.eye(len(views), dtype=bool)
    both = mask[:, :, None] & mask[:, None, :] & ~own
    following = jnp.roll(own, 1, axis=1)
    logits = jnp.einsum("bid,bjd->bij", stacked, stacked) * scale
    loss = contrast(logits, both & following, both & ~following)
    return jnp.sum(loss, axis=1)
