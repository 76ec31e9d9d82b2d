"""Contrastive loss between the modalities of an example (OF-CMAER-CAT)."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, join_names
from mmfusion_jax.losses.model_outputs import check_choice, model_output
from mmfusion_jax.ops.contrastive import contrast, l2_normalize
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Modalities, Scale
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
        negatives: "batch" or "same_sample", see below; "same_sample" requires three
            modalities.

    With "batch", for an example n and a modality i that it has:

    - anchor: the vector of i of example n.
    - partners: the vectors of all other modalities j that example n has; the loss is
      the mean over them, 0 without any. Each is the positive of its own softmax.
    - negatives for partner j: the vectors of j of all other examples that have j,
      whether or not they have i.

    With "same_sample":

    - anchor: the vector of i of example n.
    - partner: the vector of the next modality of `modalities`, the first after the
      last, of example n. If n does not have it, the anchor contributes 0; the
      modality after it does not take its place.
    - negatives: the vectors of the remaining modalities that example n has; without
      any, the anchor contributes 0.

    A missing modality and a padding row are neither anchor, partner nor negative, and
    an anchor that contributes 0 still counts in the mean over the batch.

    Reference:
        OF-CMAER-CAT, Eq. 15-17.
    Deviation:
        All indices n of Eq. 15-16 are those of one example, which "same_sample"
        follows literally; the text sums over the batch. j(i) is not defined: all
        partners with "batch", the next modality with "same_sample". With two
        modalities the only candidate of "same_sample" is the partner itself, and the
        loss is 0 for any vectors.

    Raises:
        ConfigError: `negatives` is unknown, there are fewer than two modalities, or
            "same_sample" has fewer than three.
    """

    compares_modalities: ClassVar[bool] = True

    modalities: Modalities
    temperature: Scale = 0.1
    negatives: Literal["batch", "same_sample"] = "batch"

    def __post_init__(self):
        check_choice("negatives", self.negatives, NEGATIVES)
        if len(self.modalities) < 2:
            raise ConfigError(
                "C10",
                "the loss modality_contrast requires at least two modalities, got "
                f"{join_names(self.modalities)}: with one, the loss is 0 for any "
                "vectors.",
                "add a modality, or set the weight of the term to 0",
            )
        if self.negatives == "same_sample" and len(self.modalities) < 3:
            raise ConfigError(
                "C10",
                "negatives='same_sample' of the loss modality_contrast requires at "
                f"least three modalities, got {join_names(self.modalities)}: with two, "
                "the loss is 0 for any vectors.",
                "negatives='batch'",
            )

    def __call__(self, outputs: Outputs, batch: Batch) -> Array:
        present = self._present(batch)
        views = [
            l2_normalize(zero_masked(model_output(outputs, f"pooled/{name}"), mask))
            for name, mask in zip(self.modalities, present, strict=True)
        ]
        return self._compare(views, present)

    def chance_level(self, outputs: Outputs, batch: Batch) -> Array:
        """Returns the loss if all candidates were equally similar, (b).

        It is the sum over the anchors of the logarithm of the number of candidates,
        m ln b with "batch" if no modality is missing.
        """
        del outputs
        blank = jnp.zeros((*batch.weight.shape, 1), jnp.float32)
        return self._compare([blank] * len(self.modalities), self._present(batch))

    def _present(self, batch: Batch) -> list[Array]:
        """Which examples have each modality, (b) bool each."""
        return [batch.has_modalities(name) for name in self.modalities]

    def _compare(self, views: Sequence[Array], present: Sequence[Array]) -> Array:
        """Loss of normalized vectors, 0 where a modality is missing, (b)."""
        form = _in_batch if self.negatives == "batch" else _in_sample
        return form(views, present, 1 / self.temperature)


def _in_batch(views: Sequence[Array], present: Sequence[Array], scale: float) -> Array:
    """Sum over anchors of the mean loss over their partners, (b)."""
    own = jnp.eye(len(present[0]), dtype=bool)
    total = jnp.zeros(present[0].shape, jnp.float32)
    for i, anchor in enumerate(views):
        # Counted per example, since the partners are the modalities that it has.
        loss, count = jnp.zeros_like(total), jnp.zeros_like(total)
        for j, partner in enumerate(views):
            if j != i:
                # Only the anchor must have i: an example without i that has j is a
                # negative like any other.
                candidates = present[i][:, None] & present[j][None, :]
                logits = anchor @ partner.T * scale
                loss += contrast(logits, candidates & own, candidates & ~own)
                count += present[i] & present[j]
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
